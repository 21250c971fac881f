//! What a proxy tells back.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{CONTRACT, Digest, ListenerId, Revision, Version};

/// State of a proxy's listeners: whole after each apply and on reconnect, single listeners when one changes later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Contract version of the proxy.
    #[serde(default)]
    pub contract: u32,
    /// The configuration that was last applied.
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

/// Part of what a proxy tells the operator. Nothing of it counts before a part with `commit`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportPart {
    /// Contract version of the proxy.
    #[serde(default)]
    pub contract: u32,
    /// The configuration that was last applied.
    #[serde(flatten)]
    pub version: Version,
    /// Forget what was told before: the first of its stream.
    #[serde(default)]
    pub whole: bool,
    /// The digest of what runs. If it is the one that the operator sent, every listener that no report names is bound in
    /// the revision that was sent.
    #[serde(default)]
    pub digest: Digest,
    /// Listeners whose state is new.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub listeners: BTreeMap<ListenerId, ListenerReport>,
    /// Listeners that are gone with their last session.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<ListenerId>,
    /// The last part.
    #[serde(default)]
    pub commit: bool,
}

impl Report {
    /// What to tell an operator that was told `before`, in parts of at most so many listeners.
    ///
    /// Without `before`, everything: with `agreed`, when both sides have the same digest, only what is not bound.
    #[must_use]
    pub fn parts_since(
        &self,
        before: Option<&Self>,
        digest: &Digest,
        agreed: bool,
        per_part: usize,
    ) -> Vec<ReportPart> {
        let is_news = |id: &ListenerId, now: &ListenerReport| match before {
            Some(before) => before.listeners.get(id) != Some(now),
            None => !agreed || !now.is_usual(),
        };
        let empty = || ReportPart {
            contract: CONTRACT,
            version: self.version.clone(),
            digest: digest.clone(),
            ..ReportPart::default()
        };
        let mut parts = vec![ReportPart { whole: before.is_none(), ..empty() }];
        let mut items = 0;
        let mut last = |parts: &mut Vec<ReportPart>| {
            if items == per_part.max(1) {
                parts.push(empty());
                items = 0;
            }
            items += 1;
            parts.len() - 1
        };
        for (id, now) in self.listeners.iter().filter(|(id, now)| is_news(id, now)) {
            let at = last(&mut parts);
            parts[at].listeners.insert(id.clone(), now.clone());
        }
        let known = before.map(|before| &before.listeners);
        for id in known.into_iter().flatten().map(|(id, _)| id).filter(|id| !self.listeners.contains_key(id)) {
            let at = last(&mut parts);
            parts[at].gone.insert(id.clone());
        }
        if let Some(part) = parts.last_mut() {
            part.commit = true;
        }
        parts
    }
}

/// One listener of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerReport {
    /// The revision that the state is about.
    pub revision: Revision,
    /// Whether it runs.
    pub state: ListenerState,
    /// Why not, with `Failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// How many of its backends are healthy.
    #[serde(default, skip_serializing_if = "BackendHealth::is_all")]
    pub backends: BackendHealth,
}

impl ListenerReport {
    /// Whether it is as everybody takes it to be who hears nothing: bound, with healthy backends.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        self.state == ListenerState::Bound && self.backends.is_all()
    }
}

/// How many of a listener's backends are healthy, without counts: counts belong to metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BackendHealth {
    /// None of them; new sessions try them all the same.
    None,
    /// Not all.
    Some,
    /// All; also what a newer proxy may say in another word.
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
    /// Its socket is bound and takes sessions.
    Bound,
    /// This revision does not run.
    Failed,
    /// Removed; sessions are still running.
    Draining,
    /// A state of a newer proxy.
    #[serde(other)]
    Unknown,
}

/// Why a revision does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// One word.
    pub reason: FailureReason,
    /// For a person: what was wrong and what to do.
    pub message: String,
    /// The previous revision, if it goes on serving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Revision>,
}

/// Reasons for a failed listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FailureReason {
    /// Another socket holds the address.
    AddressInUse,
    /// The process may not bind this port.
    PermissionDenied,
    /// The socket is still needed by a listener that could not move.
    SocketHeld,
    /// Another error of the operating system.
    BindFailed,
    /// The listener says something that this proxy does not know.
    Unsupported,
    /// A reason of a newer proxy.
    #[serde(other)]
    Unknown,
}
