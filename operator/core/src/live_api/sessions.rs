//! The live sessions of several proxies in one list.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::{LiveSession, LiveSessions, MAX_LIVE, Origin, Selection};
use serde::Serialize;

use super::{HIGHEST, Metadata, group_version, rates::Rates, together::Forwards};
use crate::world::ObjectKey;

/// The most proxies that one request asks. Further proxies are reported as unanswered.
pub const MAX_PROXIES: usize = 500;
/// The most bytes of JSON text for listed sessions. Further sessions are counted, but not listed.
pub const MAX_TEXTS: usize = 4 << 20;

/// The answers of proxies to one request.
#[derive(Debug)]
pub struct Gathered {
    /// The requested sessions, of all proxies.
    selection: Selection,
    total: u64,
    sessions: Vec<(ObjectKey, LiveSession)>,
    /// Bytes of the texts in `sessions`.
    texts: usize,
    /// Whether a session did not fit.
    is_full: bool,
    /// Pods whose proxies have not answered.
    unanswered: BTreeSet<ObjectKey>,
    /// The rates of the proxies of all pods; absent for a pod whose rates are unknown. Absent if not requested.
    rates: Option<BTreeMap<ObjectKey, Option<Rates>>>,
    /// The forwards, if the sessions of several are requested.
    forwards: Option<Counted>,
}

/// The sessions of several forwards.
#[derive(Debug)]
struct Counted {
    of: BTreeMap<Origin, (u64, Option<Rates>)>,
    /// Forwards that are not counted one by one.
    omitted: usize,
    /// Sessions that a proxy counted for no forward, because it has sessions of too many.
    uncounted: u64,
}

impl Gathered {
    /// The state before any of these pods' proxies has answered.
    #[must_use]
    pub fn new(selection: Selection, pods: BTreeSet<ObjectKey>) -> Self {
        let (sessions, rates, forwards) = (Vec::new(), None, None);
        Self { selection, total: 0, sessions, texts: 0, is_full: false, unanswered: pods, rates, forwards }
    }

    /// Counts the sessions of each of these forwards.
    #[must_use]
    pub fn counting(self, forwards: Forwards) -> Self {
        let has_rates = self.selection.session.is_none();
        let of = forwards.rates.into_iter().map(|(origin, rates)| (origin, (0, rates.filter(|_| has_rates)))).collect();
        Self { forwards: Some(Counted { of, omitted: forwards.omitted, uncounted: 0 }), ..self }
    }

    /// Adds the rates of the proxies of all pods, as far as they are known. The rates cover all requested sessions, so
    /// a request for one session has none.
    #[must_use]
    pub fn rated(self, rates: BTreeMap<ObjectKey, Option<Rates>>) -> Self {
        Self { rates: self.selection.session.is_none().then_some(rates), ..self }
    }

    /// The sum of the rates of all proxies. `None` if the rates of a proxy are unknown.
    fn sum_of_rates(&self) -> Option<Rates> {
        let mut all = self.rates.as_ref()?.values();
        all.try_fold(Rates::default(), |sum, rates| Some(sum.plus((*rates)?, HIGHEST)))
    }

    /// Most sessions to request from the next proxy: 0 once the list is complete, because its total still counts.
    #[must_use]
    pub fn room(&self) -> usize {
        let room = if self.is_full { 0 } else { self.selection.limit.saturating_sub(self.sessions.len()) };
        room.min(MAX_LIVE)
    }

    /// Takes the answer of a pod's proxy: only the first one counts. Sessions that were not requested are dropped.
    pub fn take(&mut self, pod: &ObjectKey, live: LiveSessions) {
        // A proxy that does not count by object does not select by namespace either: its total includes other
        // namespaces.
        let is_older = self.selection.by_origin && live.origins.is_empty();
        let is_cut = (live.sessions.len() as u64) < live.total;
        if (is_older && is_cut) || !self.unanswered.remove(pod) {
            return;
        }
        let mut sessions = live.sessions;
        sessions.retain(|session| self.selection.has(&session.listener, session.session));
        // A proxy that knows no ids counts all its sessions; a list of one session is never cut.
        let total = if is_older || self.selection.session.is_some() { 0 } else { live.total };
        let total = total.max(sessions.len() as u64);
        self.total = self.total.saturating_add(total).min(HIGHEST);
        if let Some(forwards) = &mut self.forwards {
            let counts = if live.origins.is_empty() { by_origin(&sessions) } else { live.origins };
            forwards.add(counts, total);
        }
        for mut session in sessions {
            for number in [&mut session.bytes_up, &mut session.bytes_down, &mut session.seconds] {
                *number = HIGHEST.min(*number);
            }
            let texts = self.texts.saturating_add(session.weight());
            self.is_full |= self.sessions.len() >= self.selection.limit || texts > MAX_TEXTS;
            if self.is_full {
                return;
            }
            self.texts = texts;
            self.sessions.push((pod.clone(), session));
        }
    }

    /// The response: a `SessionList` as JSON, sorted by pod.
    ///
    /// # Errors
    /// Never for these types.
    pub fn document(mut self) -> Result<String, serde_json::Error> {
        // A stable sort: the sessions of a pod keep their order.
        self.sessions.sort_by(|(one, _), (other, _)| one.cmp(other));
        let known = self.rates.iter().flatten().filter_map(|(pod, rates)| {
            let rates = Rates::default().plus((*rates)?, HIGHEST);
            Some(RatesOfPod { pod, rates })
        });
        serde_json::to_string(&SessionList {
            kind: "SessionList",
            api_version: group_version(),
            metadata: Metadata {},
            total: self.total,
            sum: self.sum_of_rates(),
            rates: known.collect(),
            items: self.sessions.iter().map(|(pod, session)| Item { pod, session }).collect(),
            unanswered: &self.unanswered,
            forwards: self.forwards.as_ref().map(Counted::items),
            omitted_forwards: self.forwards.as_ref().map(|it| it.omitted).filter(|number| *number > 0),
            uncounted: self.forwards.as_ref().map(|it| it.uncounted).filter(|number| *number > 0),
        })
    }
}

impl Counted {
    /// Adds the counts of a proxy with `total` sessions.
    fn add(&mut self, counts: BTreeMap<Origin, u64>, total: u64) {
        let counted = counts.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        self.uncounted = self.uncounted.saturating_add(total.saturating_sub(counted)).min(HIGHEST);
        for (origin, count) in counts {
            // A proxy may count sessions of forwards that were deleted or not requested.
            if let Some((sum, _)) = self.of.get_mut(&origin) {
                *sum = sum.saturating_add(count).min(HIGHEST);
            }
        }
    }

    fn items(&self) -> Vec<OfForward<'_>> {
        let item = |(forward, (total, rates)): (_, &(u64, Option<Rates>))| {
            let rates = rates.map(|rates| Rates::default().plus(rates, HIGHEST));
            OfForward { forward, total: *total, rates }
        };
        self.of.iter().map(item).collect()
    }
}

/// Number of sessions by object.
fn by_origin(sessions: &[LiveSession]) -> BTreeMap<Origin, u64> {
    let mut counts = BTreeMap::new();
    for session in sessions {
        *counts.entry(session.listener.origin.clone()).or_default() += 1;
    }
    counts
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionList<'a> {
    kind: &'static str,
    api_version: String,
    metadata: Metadata,
    total: u64,
    /// The sum of the rates; absent if the rates of a proxy are unknown.
    #[serde(flatten)]
    sum: Option<Rates>,
    /// The proxies whose rates are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rates: Vec<RatesOfPod<'a>>,
    items: Vec<Item<'a>>,
    unanswered: &'a BTreeSet<ObjectKey>,
    /// The counts of each forward; absent if the sessions of one object are requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    forwards: Option<Vec<OfForward<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted_forwards: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uncounted: Option<u64>,
}

#[derive(Serialize)]
struct OfForward<'a> {
    forward: &'a Origin,
    total: u64,
    /// The rates of the forward; absent if the rates of a proxy are unknown.
    #[serde(flatten)]
    rates: Option<Rates>,
}

#[derive(Serialize)]
struct RatesOfPod<'a> {
    pod: &'a ObjectKey,
    #[serde(flatten)]
    rates: Rates,
}

#[derive(Serialize)]
struct Item<'a> {
    pod: &'a ObjectKey,
    #[serde(flatten)]
    session: &'a LiveSession,
}
