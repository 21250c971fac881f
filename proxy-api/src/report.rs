//! Reports from a proxy to the operator.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{CONTRACT, Digest, ListenerId, Revision, Version, weight::ITEM};

/// State of a proxy's listeners: complete after each apply and on reconnect, single listeners on later changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Contract version of the proxy.
    #[serde(default)]
    pub contract: u32,
    /// Version of the last applied configuration.
    #[serde(flatten)]
    pub version: Version,
    /// State by listener.
    #[serde(default)]
    pub listeners: BTreeMap<ListenerId, ListenerReport>,
}

impl Default for Report {
    fn default() -> Self {
        Self { contract: CONTRACT, version: Version::default(), listeners: BTreeMap::new() }
    }
}

/// Part of a report. No part counts before the part with `commit` has arrived.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportPart {
    /// Contract version of the proxy.
    #[serde(default)]
    pub contract: u32,
    /// Version of the last applied configuration.
    #[serde(flatten)]
    pub version: Version,
    /// Whether this part replaces all earlier reports: the first part on its stream.
    #[serde(default)]
    pub whole: bool,
    /// Digest of the running configuration. If it equals the operator's digest, every listener absent from reports is
    /// bound at the revision that was sent.
    #[serde(default)]
    pub digest: Digest,
    /// Listeners in a new state.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::bounded::map")]
    pub listeners: BTreeMap<ListenerId, ListenerReport>,
    /// Listeners that ended with their last session.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty", deserialize_with = "crate::bounded::set")]
    pub gone: BTreeSet<ListenerId>,
    /// Whether this is the last part.
    #[serde(default)]
    pub commit: bool,
}

impl ReportPart {
    /// Bytes that this part takes in memory, approximately.
    #[must_use]
    pub fn weight(&self) -> usize {
        let listeners = self.listeners.iter().map(|(id, report)| id.weight() + report.weight());
        ITEM + listeners.chain(self.gone.iter().map(ListenerId::weight)).map(|texts| ITEM + texts).sum::<usize>()
    }

    /// Number of listeners that this part names.
    #[must_use]
    pub fn items(&self) -> usize {
        self.listeners.len() + self.gone.len()
    }
}

impl Report {
    /// The report relative to `before`, the last report sent on this stream, in parts of at most `per_part` listeners.
    ///
    /// Without `before`, the report is complete. If both sides also have the same digest (`agreed`), it omits listeners
    /// that are in the implied default state.
    #[must_use]
    pub fn parts_since(
        &self,
        before: Option<&Self>,
        digest: &Digest,
        agreed: bool,
        per_part: usize,
    ) -> Vec<ReportPart> {
        let news = match before {
            Some(before) => News::since(&before.listeners, &self.listeners),
            None => News {
                changed: self.listeners.iter().filter(|(_, now)| !agreed || !now.is_usual()).collect(),
                gone: Vec::new(),
            },
        };
        self.parts(news, before.is_none(), digest, per_part)
    }

    /// Like [`Self::parts_since`], if only listeners in `among` can differ from `before`: only these are compared.
    #[must_use]
    pub fn parts_among(
        &self,
        before: &Self,
        among: &BTreeSet<ListenerId>,
        digest: &Digest,
        per_part: usize,
    ) -> Vec<ReportPart> {
        self.parts(News::among(&before.listeners, &self.listeners, among), false, digest, per_part)
    }

    fn parts(
        &self,
        News { changed, gone }: News<'_>,
        whole: bool,
        digest: &Digest,
        per_part: usize,
    ) -> Vec<ReportPart> {
        let empty = || ReportPart {
            contract: CONTRACT,
            version: self.version.clone(),
            digest: digest.clone(),
            ..ReportPart::default()
        };
        let mut parts = vec![ReportPart { whole, ..empty() }];
        let mut items = 0;
        let mut last = |parts: &mut Vec<ReportPart>| {
            if items == per_part.max(1) {
                parts.push(empty());
                items = 0;
            }
            items += 1;
            parts.len() - 1
        };
        for (id, now) in changed {
            let at = last(&mut parts);
            parts[at].listeners.insert(id.clone(), now.clone());
        }
        for id in gone {
            let at = last(&mut parts);
            parts[at].gone.insert(id.clone());
        }
        if let Some(part) = parts.last_mut() {
            part.commit = true;
        }
        parts
    }
}

/// The difference between a report and the previous one.
struct News<'a> {
    /// New listeners, or listeners in another state.
    changed: Vec<(&'a ListenerId, &'a ListenerReport)>,
    /// Listeners that no longer exist.
    gone: Vec<&'a ListenerId>,
}

impl<'a> News<'a> {
    /// Compares two ordered maps in one parallel walk, without a lookup per listener.
    fn since(before: &'a BTreeMap<ListenerId, ListenerReport>, now: &'a BTreeMap<ListenerId, ListenerReport>) -> Self {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        let mut before = before.iter().peekable();
        for (id, report) in now {
            while let Some((passed, _)) = before.next_if(|(other, _)| *other < id) {
                gone.push(passed);
            }
            let last = before.next_if(|(other, _)| *other == id);
            if last.is_none_or(|(_, last)| last != report) {
                changed.push((id, report));
            }
        }
        gone.extend(before.map(|(id, _)| id));
        Self { changed, gone }
    }

    /// Like [`Self::since`], for these listeners only.
    fn among(
        before: &BTreeMap<ListenerId, ListenerReport>,
        now: &'a BTreeMap<ListenerId, ListenerReport>,
        ids: &'a BTreeSet<ListenerId>,
    ) -> Self {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        for id in ids {
            match (before.get(id), now.get(id)) {
                (last, Some(report)) if last != Some(report) => changed.push((id, report)),
                (Some(_), None) => gone.push(id),
                _ => {}
            }
        }
        Self { changed, gone }
    }
}

/// One listener of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerReport {
    /// Revision that the state applies to.
    pub revision: Revision,
    /// Whether the listener runs.
    pub state: ListenerState,
    /// With `Failed`: why the listener does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Health of the backends.
    #[serde(default, skip_serializing_if = "BackendHealth::is_all")]
    pub backends: BackendHealth,
    /// A limit that the listener has reached recently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<ReachedLimit>,
    /// Whether a session or datagram of the listener recently came back to the fleet, or a datagram had no hop left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub looped: bool,
    /// How a durable listener delivers; `None`: it is not durable, or has not run for a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
}

impl ListenerReport {
    /// The report of a listener that is bound at this revision, with nothing else to say.
    #[must_use]
    pub fn usual(revision: Revision) -> Self {
        Self {
            revision,
            state: ListenerState::Bound,
            failure: None,
            backends: BackendHealth::All,
            reached: None,
            looped: false,
            delivery: None,
        }
    }

    /// Bytes of the texts of this report.
    fn weight(&self) -> usize {
        let failure = self.failure.as_ref().map_or(0, |failure| {
            failure.message.len() + failure.serving.as_ref().map_or(0, |revision| revision.0.len())
        });
        self.revision.0.len() + failure
    }

    /// Whether this is the implied default: bound, with all backends healthy, no limit reached, no loop, not durable.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        let is_quiet = self.reached.is_none() && !self.looped && self.delivery.is_none();
        self.state == ListenerState::Bound && self.backends.is_all() && is_quiet
    }
}

/// A limit that listeners share. A listener that reaches several of them reports the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReachedLimit {
    /// The sessions of all listeners of the namespace: the listener refuses sessions.
    Tenant,
    /// The sessions of one source in the process: the listener refuses sessions of that source.
    Source,
    /// The lookups of all DNS names of the namespace: the names of the listener may wait for their turn.
    Lookups,
    /// A limit added by a newer proxy.
    #[serde(other)]
    Unknown,
}

/// How a durable listener delivers, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Delivery {
    /// Messages are delivered as they arrive.
    Flowing,
    /// The sink takes messages, but later than they arrive.
    Behind,
    /// Messages wait, and the sink takes none.
    Stalled,
    /// The log has no room, so that messages are dropped or refused.
    Full,
    /// The disk or the server of the stream fails, so that messages are not safe.
    StoreFailed,
    /// A state added by a newer proxy.
    #[serde(other)]
    Unknown,
}

/// How many of a listener's backends are healthy, and reachable if they are behind an agent. Counts belong to metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BackendHealth {
    /// None; new sessions try all of them anyway.
    None,
    /// Some, but not all.
    Some,
    /// All; also the default for unknown values from a newer proxy.
    #[default]
    #[serde(other)]
    All,
}

impl BackendHealth {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_all(&self) -> bool {
        *self == Self::All
    }
}

/// Whether a listener runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListenerState {
    /// The socket is bound and accepts sessions.
    Bound,
    /// This revision does not run.
    Failed,
    /// The listener is closed, because it was removed or the proxy drains; its sessions still run.
    Draining,
    /// A state added by a newer proxy.
    #[serde(other)]
    Unknown,
}

/// Why a revision does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Machine-readable reason.
    pub reason: FailureReason,
    /// Human-readable cause and remedy.
    #[serde(serialize_with = "crate::bounded::cut_failure", deserialize_with = "crate::bounded::failure")]
    pub message: String,
    /// The previous revision, if it keeps serving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Revision>,
}

/// Reasons for a failed listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FailureReason {
    /// Another socket holds the address.
    AddressInUse,
    /// The process lacks permission to bind the port.
    PermissionDenied,
    /// The socket is still used by a listener that could not move.
    SocketHeld,
    /// Another operating system error.
    BindFailed,
    /// The listener uses a field or value that this proxy does not know.
    Unsupported,
    /// A durable listener has no log for its messages.
    NoLog,
    /// The process is at its limit of open files.
    FileLimit,
    /// A reason added by a newer proxy.
    #[serde(other)]
    Unknown,
}
