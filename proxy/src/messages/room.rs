//! The room of connections of durable listeners.

use std::sync::atomic::Ordering::Relaxed;

use durable::intake::Hold;

use crate::{core::end::EndReason, process::Process, shared::Shared};

/// What a connection of this listener takes: of the share of its namespace, and of the process. It does not wait for room
/// as sessions do, since the task that accepts also sees connections end; but idle UDP flows give way.
pub(super) fn take(shared: &Shared, process: &Process) -> Option<Hold> {
    let Some(place) = shared.limiter.share.enter() else {
        // Status names the namespace, as for sessions.
        shared.counters.closed[EndReason::TenantLimit.index()].fetch_add(1, Relaxed);
        return None;
    };
    let permits = process.take_session();
    if permits.is_none() {
        // They leave a moment later: the connection that comes next has their room.
        process.evict_flows_for_session();
    }
    Some(Box::new((place, permits?)))
}
