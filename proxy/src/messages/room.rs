//! The room of connections of durable listeners.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use durable::intake::Hold;

use crate::{
    core::{end::EndReason, session_sources::SessionSources, share},
    process::{Permits, Process},
    shared::Shared,
};

/// What a connection has, until it is dropped.
struct Held {
    source: IpAddr,
    sources: Arc<SessionSources>,
    _place: share::Place,
    _permits: Permits,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sources.leave(self.source);
    }
}

/// What a connection of this listener takes: of the share of its namespace, of the process, and of what its source may have
/// over all listeners. It does not wait for room as sessions do, since the task that accepts also sees connections end; but
/// idle UDP flows give way.
pub(super) fn take(shared: &Shared, process: &Process, source: IpAddr) -> Option<Hold> {
    // Status names the namespace, as for sessions.
    let closed = |reason: EndReason| shared.counters.closed[reason.index()].fetch_add(1, Relaxed);
    let Some(place) = shared.limiter.share.enter() else {
        closed(EndReason::TenantLimit);
        return None;
    };
    let Some(permits) = process.take_session() else {
        // They leave a moment later: the connection that comes next has their room.
        process.evict_flows_for_session();
        return None;
    };
    if !process.enter_source(source) {
        closed(EndReason::SourceShare);
        return None;
    }
    Some(Box::new(Held { source, sources: process.session_sources.clone(), _place: place, _permits: permits }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::tests::{disk, process_with, shared};

    // D7
    #[test]
    fn a_source_leaves_room_to_others_over_all_listeners_and_gives_back_what_it_had() {
        let process = process_with(Some(1 << 20));
        let (most, listeners) = (process.most_sessions(), [shared(disk()), shared(disk())]);
        let take = |at: usize, last: u8| take(&listeners[at % 2], &process, IpAddr::from([192, 0, 2, last]));
        let of_one = || (0..most).map_while(|at| take(at, 1)).collect::<Vec<Hold>>();
        let held = of_one();
        assert!(held.len() >= most / 2 && held.len() < most, "{} of {most}", held.len());
        let closed =
            listeners.iter().map(|shared| shared.counters.closed[EndReason::SourceShare.index()].load(Relaxed));
        assert_eq!(closed.sum::<u64>(), 1);
        assert!(take(0, 2).is_some(), "there is room for another source");
        let count = held.len();
        drop(held);
        assert!(process.session_sources.is_empty() && process.sessions.usage().0 == 0);
        assert_eq!(of_one().len(), count);
    }
}
