//! The live sessions of several proxies in one list.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::{LiveSession, LiveSessions, MAX_LIVE, Selection};
use serde::Serialize;

use super::{group_version, rates::Rates};
use crate::world::ObjectKey;

/// Most proxies that one request asks. Further ones are named as unanswered.
pub const MAX_PROXIES: usize = 500;
/// Most bytes of the texts of listed sessions in JSON. Further sessions count, and are not listed.
pub const MAX_TEXTS: usize = 4 << 20;
/// Highest number in a response: clients read numbers as integers of 64 bits with a sign.
const HIGHEST: u64 = i64::MAX.unsigned_abs();

/// The answers of proxies to one request.
#[derive(Debug)]
pub struct Gathered {
    /// The requested sessions, of all proxies.
    selection: Selection,
    total: u64,
    sessions: Vec<(ObjectKey, LiveSession)>,
    /// Bytes of the texts in `sessions`.
    texts: usize,
    /// A session did not fit.
    is_full: bool,
    /// Pods whose proxies have not answered.
    unanswered: BTreeSet<ObjectKey>,
    /// The rates of the proxies of all pods; of a pod absent where they are unknown. Absent: not requested.
    rates: Option<BTreeMap<ObjectKey, Option<Rates>>>,
}

impl Gathered {
    /// No answer yet from the proxies of these pods.
    #[must_use]
    pub fn new(selection: Selection, pods: BTreeSet<ObjectKey>) -> Self {
        Self { selection, total: 0, sessions: Vec::new(), texts: 0, is_full: false, unanswered: pods, rates: None }
    }

    /// Adds the rates of the proxies of all pods, where they are known. They are those of all requested sessions, so a
    /// request for one session has none.
    #[must_use]
    pub fn rated(self, rates: BTreeMap<ObjectKey, Option<Rates>>) -> Self {
        Self { rates: self.selection.session.is_none().then_some(rates), ..self }
    }

    /// The rates of all proxies together. `None` if those of a proxy are unknown.
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

    /// Takes the answer of the proxy of a pod: the first one counts. Sessions that were not requested are dropped.
    pub fn take(&mut self, pod: &ObjectKey, live: LiveSessions) {
        if !self.unanswered.remove(pod) {
            return;
        }
        let mut sessions = live.sessions;
        sessions.retain(|session| self.selection.has(&session.listener, session.session));
        // A proxy that knows no ids counts all its sessions; no list of one session is cut.
        let total = if self.selection.session.is_some() { 0 } else { live.total };
        self.total = self.total.saturating_add(total.max(sessions.len() as u64)).min(HIGHEST);
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
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionList<'a> {
    kind: &'static str,
    api_version: String,
    metadata: Metadata,
    total: u64,
    /// Absent if the rates of a proxy are unknown.
    #[serde(flatten)]
    sum: Option<Rates>,
    /// The proxies whose rates are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rates: Vec<RatesOfPod<'a>>,
    items: Vec<Item<'a>>,
    unanswered: &'a BTreeSet<ObjectKey>,
}

#[derive(Serialize)]
struct RatesOfPod<'a> {
    pod: &'a ObjectKey,
    #[serde(flatten)]
    rates: Rates,
}

/// Kubernetes expects metadata in every object.
#[derive(Serialize)]
struct Metadata {}

#[derive(Serialize)]
struct Item<'a> {
    pod: &'a ObjectKey,
    #[serde(flatten)]
    session: &'a LiveSession,
}
