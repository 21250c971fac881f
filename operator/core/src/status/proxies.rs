//! The reports of proxies, one entry per pod.
//!
//! A fleet of a thousand proxies with ten thousand listeners has ten million listener states. Almost all of them are
//! "bound, as published", so an entry keeps only the number that the proxy has applied and the listeners that differ.
//!
//! The memory for one proxy is bounded: listeners by the configuration that the proxy was sent, and texts of failures
//! by a budget of the proxy and by one of all proxies.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proxy_api::{
    BackendHealth, Delivery, Failure, ListenerId, ListenerReport, ListenerState, Load, MAX_LISTENERS, ReachedLimit,
    ReportPart, Revision,
};

use crate::{status::rates::DrainRates, world::proxy_id::ProxyId};

/// Bytes of the messages of failures that are kept of one proxy. A status names eight rejections.
pub const FAILURE_TEXTS: usize = 64 << 10;
/// Bytes of the messages of failures that are kept of all proxies: 6 KiB for each of 5,000, and a sixteenth of the
/// memory limit of the chart.
pub const ALL_FAILURE_TEXTS: usize = 32 << 20;
/// The most listeners that are stored of one proxy: twice as many as it may run, because a removed listener stays until
/// the proxy reports its removal.
pub const LISTENERS: usize = 2 * MAX_LISTENERS;
/// Time for which the last load of a proxy counts after its stream ended, and for which a new leader waits for the
/// loads of ready pods. It is enough for two tries to open a stream: each takes up to 14 s, after a pause of up to 15
/// s.
pub const GRACE: Duration = Duration::from_secs(60);
/// The message of a failure beyond [`FAILURE_TEXTS`].
const OMITTED: &str = "too many failures to name each: see the log of the proxy";
/// The message of a failure beyond [`ALL_FAILURE_TEXTS`].
const NOT_KEPT: &str = "the message of this failure was discarded, because the messages of all proxies take too much \
                        memory: see the log of the proxy";

/// The proxies with an open stream, by pod.
#[derive(Clone, Debug)]
pub struct Proxies {
    by_id: BTreeMap<ProxyId, ProxyState>,
    /// The last loads of proxies whose streams ended, and when. At most one for each known pod.
    ended: BTreeMap<ProxyId, (Load, Duration)>,
    drains: DrainRates,
    /// Bytes that are free for messages of failures.
    room: usize,
}

impl Default for Proxies {
    fn default() -> Self {
        Self::with_room(ALL_FAILURE_TEXTS)
    }
}

/// The reports of one proxy.
#[derive(Clone, Debug, Default)]
pub struct ProxyState {
    /// The highest configuration number that the proxy has applied in this epoch.
    pub applied: u64,
    /// Listeners that are not bound as published under that number, or whose reports came without agreement.
    reported: BTreeMap<ListenerId, ListenerReport>,
    /// Bytes of the messages of failures in `reported`, without the fixed ones.
    texts: usize,
    /// Whether the proxy reported more than the operator keeps, so that an agreed digest implies nothing.
    is_full: bool,
    /// Whether every listener that is not in `reported` is bound as published.
    agreed: bool,
    /// The load in the last report.
    pub load: Option<Load>,
}

/// The state of one published listener in one proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    /// The listener is bound as published.
    Bound,
    /// The proxy has not reported on the listener yet.
    Pending,
    /// The listener does not run.
    Failed(Failure),
}

impl Proxies {
    /// The state without proxies, with room for this many bytes of their messages of failures. The room is first come,
    /// first served: a message stays until its proxy replaces it or leaves.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        Self { by_id: BTreeMap::new(), ended: BTreeMap::new(), drains: DrainRates::default(), room: bytes }
    }

    /// Forgets the reports of a proxy, and frees the room of its messages.
    fn forget(&mut self, id: &ProxyId) -> Option<ProxyState> {
        let state = self.by_id.remove(id)?;
        self.room += state.texts;
        Some(state)
    }

    /// Records that a proxy opened a stream: its earlier reports no longer count.
    pub fn connected(&mut self, id: &ProxyId) {
        self.forget(id);
        self.by_id.insert(id.clone(), ProxyState::default());
    }

    /// Records that the stream of a proxy ended. Its last load counts for [`GRACE`]: the proxy opens another stream
    /// soon, and its sessions continue.
    pub fn ended(&mut self, id: &ProxyId, now: Duration) {
        if let Some(load) = self.forget(id).and_then(|state| state.load) {
            self.ended.insert(id.clone(), (load, now));
        }
    }

    /// Records that the pod of a proxy is gone.
    pub fn gone(&mut self, id: &ProxyId) {
        self.forget(id);
        self.ended.remove(id);
    }

    /// Number of proxies with an open stream.
    #[must_use]
    pub fn connected_count(&self) -> usize {
        self.by_id.len()
    }

    /// Records that a proxy moved to another group: its agreement to the old configuration no longer counts.
    pub fn moved(&mut self, id: &ProxyId) {
        if let Some(state) = self.by_id.get_mut(id) {
            state.agreed = false;
            state.applied = 0;
        }
    }

    /// The state of a proxy.
    #[must_use]
    pub fn get(&self, id: &ProxyId) -> Option<&ProxyState> {
        self.by_id.get(id)
    }

    /// Takes the load that a proxy reported.
    pub fn loaded(&mut self, id: &ProxyId, load: Load) {
        if let Some(state) = self.by_id.get_mut(id) {
            state.load = Some(load);
            self.ended.remove(id);
        }
    }

    /// The load in the last report of a proxy. A report over an earlier stream counts for [`GRACE`] after the end of
    /// that stream.
    #[must_use]
    pub fn last_load(&self, id: &ProxyId, now: Duration) -> Option<&Load> {
        let earlier = || self.ended.get(id).filter(|(_, at)| now < *at + GRACE).map(|(load, _)| load);
        self.get(id).and_then(|state| state.load.as_ref()).or_else(earlier)
    }

    /// Records that a proxy reported the end of its drain. Returns whether to publish an Event.
    #[must_use]
    pub fn drained(&mut self, id: &ProxyId, now: Duration) -> bool {
        self.by_id.contains_key(id) && self.drains.admits(id, now)
    }

    /// Takes one part of a report and returns the listeners whose state changed at this proxy, apart from those that
    /// are bound as published: the end of the report covers them. `agreed` says whether the digest of the report equals
    /// the one that was published under its number.
    pub fn reported(&mut self, id: &ProxyId, part: ReportPart, agreed: bool) -> BTreeSet<ListenerId> {
        let Some(state) = self.by_id.get_mut(id) else { return BTreeSet::new() };
        // The room that other proxies leave, and the room that this one already uses.
        let room = self.room + state.texts;
        let mut changed = BTreeSet::new();
        if part.whole {
            changed.extend(std::mem::take(&mut state.reported).into_keys());
            (state.texts, state.is_full) = (0, false);
        }
        for id in part.gone {
            state.forget(&id);
        }
        for (id, report) in part.listeners {
            let before = state.forget(&id);
            // The usual state, bound with healthy backends, is implied by agreement.
            if !agreed || !report.is_usual() {
                state.keep(id.clone(), report, room);
            }
            if state.reported.get(&id) != before.as_ref() {
                changed.insert(id);
            }
        }
        self.room = room.saturating_sub(state.texts);
        if part.commit {
            state.agreed = agreed;
            state.applied = state.applied.max(part.version.number);
        }
        changed
    }
}

impl ProxyState {
    /// Stores the report of a listener. `room` is the number of bytes for the messages of this proxy, beside those of
    /// all others.
    fn keep(&mut self, id: ListenerId, mut report: ListenerReport, room: usize) {
        if self.reported.len() >= LISTENERS {
            self.is_full = true;
            return;
        }
        if let Some(failure) = &mut report.failure {
            let texts = self.texts + counted(failure);
            if texts > FAILURE_TEXTS {
                failure.message = OMITTED.into();
            } else if texts > room {
                failure.message = NOT_KEPT.into();
            } else {
                self.texts = texts;
            }
        }
        self.reported.insert(id, report);
    }

    fn forget(&mut self, id: &ListenerId) -> Option<ListenerReport> {
        let forgotten = self.reported.remove(id)?;
        self.texts = self.texts.saturating_sub(forgotten.failure.as_ref().map_or(0, counted));
        Some(forgotten)
    }

    /// Health of the backends of a listener, as this proxy sees it.
    #[must_use]
    pub fn backends(&self, id: &ListenerId) -> BackendHealth {
        self.reported.get(id).map_or(BackendHealth::All, |report| report.backends)
    }

    /// The limit that a listener recently reached in this proxy.
    #[must_use]
    pub fn reached(&self, id: &ListenerId) -> Option<ReachedLimit> {
        self.reported.get(id).and_then(|report| report.reached)
    }

    /// Whether a listener recently had a loop in this proxy.
    #[must_use]
    pub fn looped(&self, id: &ListenerId) -> bool {
        self.reported.get(id).is_some_and(|report| report.looped)
    }

    /// The delivery state of a durable listener in this proxy; `None` if it is unknown.
    #[must_use]
    pub fn delivery(&self, id: &ListenerId) -> Option<Delivery> {
        let delivery = self.reported.get(id).and_then(|report| report.delivery);
        delivery.filter(|delivery| *delivery != Delivery::Unknown)
    }

    /// The state of a listener that has been published in `revision` since the number `since`.
    #[must_use]
    pub fn ack(&self, id: &ListenerId, revision: &Revision, since: u64) -> Ack {
        match self.reported.get(id) {
            Some(report) if report.revision == *revision => match (&report.state, &report.failure) {
                (ListenerState::Bound, _) => Ack::Bound,
                (ListenerState::Failed, Some(failure)) => Ack::Failed(failure.clone()),
                _ => Ack::Pending,
            },
            None if self.agreed && !self.is_full && self.applied >= since => Ack::Bound,
            Some(_) | None => Ack::Pending,
        }
    }
}

/// The bytes of a message that count. Fixed messages do not count, whoever wrote them: the bound on listeners covers
/// them.
fn counted(failure: &Failure) -> usize {
    if [OMITTED, NOT_KEPT].contains(&failure.message.as_str()) { 0 } else { failure.message.len() }
}
