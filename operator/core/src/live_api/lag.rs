//! The lag of durable listeners of several proxies, in one list.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::{Lag, LiveSessions, Selection};
use serde::Serialize;

use super::{HIGHEST, Metadata, fair_list::FairList, group_version, sessions::MAX_TEXTS, together::Carried};
use crate::world::ObjectKey;

/// The most entries of a response. A durable listener has one entry for each of its proxies.
pub const MAX_LISTED: usize = 5000;

/// The answers of proxies to one request.
#[derive(Debug)]
pub struct Lags {
    /// The requested listeners, of all proxies.
    selection: Selection,
    /// The namespaces of the forwards that the proxies of pods carry, as far as that is known.
    carried: BTreeMap<ObjectKey, Carried>,
    items: FairList<Lag>,
    /// Number of entries that are not in `items`.
    omitted: u64,
    /// Pods whose proxies have not answered.
    unanswered: BTreeSet<ObjectKey>,
    /// Pods whose proxies have answered, but are too old to report lag.
    older: BTreeSet<ObjectKey>,
}

impl Lags {
    /// The state before any of these pods' proxies has answered.
    #[must_use]
    pub fn new(selection: Selection, pods: BTreeSet<ObjectKey>) -> Self {
        let (carried, items, older) = (BTreeMap::new(), FairList::new(MAX_LISTED, MAX_TEXTS), BTreeSet::new());
        Self { selection, carried, items, omitted: 0, unanswered: pods, older }
    }

    /// Restricts the entries of these pods' proxies to the namespaces of the forwards that they carry.
    #[must_use]
    pub fn carrying(self, carried: BTreeMap<ObjectKey, Carried>) -> Self {
        Self { carried, ..self }
    }

    /// Takes the answer of a pod's proxy. Only the first answer counts, and only the first entry for each listener.
    /// Listeners that were not requested, or that the proxy cannot have, are dropped: a proxy may lie. A lying proxy
    /// takes no more than its share of the list.
    pub fn take(&mut self, pod: &ObjectKey, live: LiveSessions) {
        if !self.unanswered.remove(pod) {
            return;
        }
        let Some(mut lag) = live.lag else {
            self.older.insert(pod.clone());
            return;
        };
        self.omit(live.total.saturating_sub(lag.len() as u64));
        let mut told = BTreeSet::new();
        let carried = self.carried.get(pod);
        let is_carried = |namespace: &String| {
            carried.is_none_or(|carried| carried.iter().any(|namespaces| namespaces.contains(namespace)))
        };
        lag.retain(|Lag { listener, .. }| {
            let is_requested = self.selection.has(listener, None) && is_carried(&listener.origin.namespace);
            is_requested && told.insert(listener.clone())
        });
        let rows = lag.into_iter().map(|mut lag| {
            bound(&mut lag);
            (lag.weight(), lag)
        });
        let left_out = self.items.add(pod, rows);
        self.omit(left_out);
    }

    fn omit(&mut self, number: u64) {
        self.omitted = self.omitted.saturating_add(number).min(HIGHEST);
    }

    /// The response: a `LagList` as JSON, sorted by pod.
    ///
    /// # Errors
    /// Never for these types.
    pub fn document(self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&LagList {
            kind: "LagList",
            api_version: group_version(),
            metadata: Metadata {},
            items: self.items.rows().into_iter().map(|(pod, lag)| Item { pod, lag }).collect(),
            omitted: (self.omitted > 0).then_some(self.omitted),
            unanswered: &self.unanswered,
            older: &self.older,
        })
    }
}

/// Caps the numbers of a listener.
fn bound(lag: &mut Lag) {
    let numbers = [
        &mut lag.oldest_seconds,
        &mut lag.backlog,
        &mut lag.log_bytes,
        &mut lag.received,
        &mut lag.delivered,
        &mut lag.resent,
        &mut lag.dropped,
        &mut lag.dead_lettered,
        &mut lag.lanes,
    ];
    for number in numbers.into_iter().chain(lag.dropped_by_reason.values_mut()) {
        *number = HIGHEST.min(*number);
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LagList<'a> {
    kind: &'static str,
    api_version: String,
    metadata: Metadata,
    items: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<u64>,
    unanswered: &'a BTreeSet<ObjectKey>,
    older: &'a BTreeSet<ObjectKey>,
}

#[derive(Serialize)]
struct Item<'a> {
    pod: &'a ObjectKey,
    #[serde(flatten)]
    lag: &'a Lag,
}
