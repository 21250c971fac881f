//! What proxies report, one entry per pod.
//!
//! A fleet of a thousand proxies with ten thousand listeners would have ten million states to keep. Almost all of them say
//! "bound, as published", so only the number that a proxy has applied is kept, and the listeners of which it says
//! anything else.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::{BackendHealth, Failure, ListenerId, ListenerReport, ListenerState, Load, ReportPart, Revision};

use crate::world::ObjectKey;

/// The proxies that have a stream, by pod.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    by_pod: BTreeMap<ObjectKey, ProxyState>,
}

/// What one proxy has told.
#[derive(Clone, Debug, Default)]
pub struct ProxyState {
    /// The number that it has applied in this epoch.
    pub applied: u64,
    /// Listeners that are not bound in the revision of that number, or were told one by one.
    told: BTreeMap<ListenerId, ListenerReport>,
    /// Whether everything that is not in `told` is as it was published.
    agreed: bool,
    /// What it has to do, as it told last.
    pub load: Option<Load>,
}

/// How one proxy stands to one listener as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    /// It is bound.
    Bound,
    /// It was not told of yet.
    Pending,
    /// It does not run.
    Failed(Failure),
}

impl Proxies {
    /// A proxy opened a stream: nothing it told before counts.
    pub fn connected(&mut self, pod: &ObjectKey) {
        self.by_pod.insert(pod.clone(), ProxyState::default());
    }

    /// Its stream ended, or it may no longer speak.
    pub fn gone(&mut self, pod: &ObjectKey) {
        self.by_pod.remove(pod);
    }

    /// Proxies with a stream.
    #[must_use]
    pub fn connected_count(&self) -> usize {
        self.by_pod.len()
    }

    /// A proxy is to run something else altogether: what it agreed to is of no account.
    pub fn moved(&mut self, pod: &ObjectKey) {
        if let Some(state) = self.by_pod.get_mut(pod) {
            state.agreed = false;
            state.applied = 0;
        }
    }

    /// What one proxy has told.
    #[must_use]
    pub fn get(&self, pod: &ObjectKey) -> Option<&ProxyState> {
        self.by_pod.get(pod)
    }

    /// A proxy told what it has to do.
    pub fn loaded(&mut self, pod: &ObjectKey, load: Load) {
        if let Some(state) = self.by_pod.get_mut(pod) {
            state.load = Some(load);
        }
    }

    /// Takes one part of a report; `agreed` says that its digest is the one that was sent for its number. Gives the
    /// listeners whose state at this proxy is other than it was.
    pub fn reported(&mut self, pod: &ObjectKey, part: ReportPart, agreed: bool) -> BTreeSet<ListenerId> {
        let Some(state) = self.by_pod.get_mut(pod) else { return BTreeSet::new() };
        let mut changed = BTreeSet::new();
        if part.whole {
            changed.extend(std::mem::take(&mut state.told).into_keys());
        }
        for id in part.gone {
            state.told.remove(&id);
        }
        for (id, report) in part.listeners {
            changed.insert(id.clone());
            // What is bound and agreed on, with healthy backends, needs no memory.
            if agreed && report.is_usual() {
                state.told.remove(&id);
            } else {
                state.told.insert(id, report);
            }
        }
        if part.commit {
            state.agreed = agreed;
            state.applied = state.applied.max(part.version.number);
        }
        changed
    }
}

impl ProxyState {
    /// How many backends of a listener are healthy, as this proxy sees it.
    #[must_use]
    pub fn backends(&self, id: &ListenerId) -> BackendHealth {
        self.told.get(id).map_or(BackendHealth::All, |report| report.backends)
    }

    /// How this proxy stands to a listener that was published under `since` in this revision.
    #[must_use]
    pub fn ack(&self, id: &ListenerId, revision: &Revision, since: u64) -> Ack {
        match self.told.get(id) {
            Some(report) if report.revision == *revision => match (&report.state, &report.failure) {
                (ListenerState::Bound, _) => Ack::Bound,
                (ListenerState::Failed, Some(failure)) => Ack::Failed(failure.clone()),
                _ => Ack::Pending,
            },
            None if self.agreed && self.applied >= since => Ack::Bound,
            Some(_) | None => Ack::Pending,
        }
    }
}
