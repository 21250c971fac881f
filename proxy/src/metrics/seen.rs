//! Reads the counters and backends of listeners for the admin page.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use proxy_api::{Denial, ListenerId};

use super::Metrics;
use crate::{
    core::{
        control::page::{self, Reasons, Seen, Totals},
        sessions::end::EndReason,
    },
    shared::{Counters, Dropped, Shared},
};

impl Metrics {
    /// Counters of all listeners, together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().map(|shared| totals(&shared.counters)).sum()
    }

    /// The data of these listeners for the page.
    #[must_use]
    pub fn seen(&self, shown: &BTreeSet<&ListenerId>) -> BTreeMap<ListenerId, Seen> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let chosen: Vec<Arc<Shared>> = listeners.iter().filter(|it| shown.contains(&it.id)).cloned().collect();
        drop(listeners);
        let now = self.process.clock.seconds();
        let mut room = page::ALL_ENDPOINTS;
        chosen.iter().map(|shared| (shared.id.clone(), seen(shared, now, &mut room))).collect()
    }
}

/// The data of a listener at `now` (seconds of the process clock), with no more than `room` endpoints.
fn seen(shared: &Shared, now: u64, room: &mut usize) -> Seen {
    let (spec, targets, counters) = (shared.spec.load(), shared.targets.load(), &shared.counters);
    let durable = counters.durable();
    Seen {
        address: Some(spec.place()),
        hostnames: spec.hostnames.clone(),
        counts: totals(counters),
        closed: reasons(EndReason::ALL.map(EndReason::as_str), &counters.closed),
        dropped: reasons(Dropped::ALL.map(Dropped::as_str), &counters.dropped),
        refused_addresses: reasons(Denial::ALL.map(Denial::as_str), &counters.refused),
        delivery: durable.as_ref().map(|seen| seen.delivery.as_str()),
        backlog: durable.as_ref().map(|seen| seen.backlog),
        backends: targets.entries.iter().map(|entry| page::backend(entry, now, room)).collect(),
    }
}

fn totals(counters: &Counters) -> Totals {
    let refusals = EndReason::ALL.iter().filter(|reason| reason.is_refusal());
    Totals {
        live: counters.active(),
        opened: counters.opened.load(Relaxed),
        refused: refusals.map(|reason| counters.closed[reason.index()].load(Relaxed)).sum(),
        up: counters.up.load(Relaxed),
        down: counters.down.load(Relaxed),
    }
}

/// The counters that are not zero.
fn reasons<const N: usize>(names: [&'static str; N], counts: &[AtomicU64; N]) -> Reasons {
    let all = names.into_iter().zip(counts).map(|(why, count)| (why, count.load(Relaxed)));
    all.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_sessions_are_those_that_an_access_list_or_a_limit_closed() {
        let counters = Counters::default();
        counters.opened.store(5, Relaxed);
        for (reason, count) in [(EndReason::Finished, 1), (EndReason::AccessDenied, 2), (EndReason::RateLimit, 1)] {
            counters.closed[reason.index()].store(count, Relaxed);
        }
        assert_eq!(totals(&counters), Totals { live: 1, opened: 5, refused: 3, up: 0, down: 0 });
        let closed = reasons(EndReason::ALL.map(EndReason::as_str), &counters.closed);
        assert_eq!(closed, Reasons::from([("AccessDenied", 2), ("Finished", 1), ("RateLimit", 1)]));
    }
}
