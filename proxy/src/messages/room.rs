//! The room of connections of durable listeners.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arc_swap::ArcSwapOption;
use durable::intake::Hold;

use crate::{
    core::{
        limits::{session_sources::SessionSources, share},
        sessions::end::EndReason,
    },
    process::{Permits, Process},
    shared::Shared,
};

/// The places that a connection holds, until this is dropped.
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

/// Takes the places of a connection of this listener: in the process, in the share of its namespace, and among those of
/// its source over all listeners. The connection waits for room as sessions do, and UDP flows give way, but not for
/// ever: it is accepted already, so that its source and its place at the listener are known.
pub(super) async fn take(listener: Arc<ArcSwapOption<Shared>>, process: Arc<Process>, source: IpAddr) -> Option<Hold> {
    let permits = process.wait_with_connection().await?;
    // The listener may have changed meanwhile.
    let shared = listener.load_full()?;
    // Status names the namespace, as for sessions.
    let closed = |reason: EndReason| shared.counters.closed[reason.index()].fetch_add(1, Relaxed);
    let Some(place) = shared.limiter.share.enter(process.session_room()) else {
        closed(EndReason::TenantLimit);
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
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;
    use crate::{
        core::limits::limiter::Newcomer,
        messages::tests::{disk, process_with, shared},
        process::FlowPermits,
    };

    /// A process with room for a few sessions, and a listener.
    fn small() -> (Arc<Process>, Arc<ArcSwapOption<Shared>>) {
        (Arc::new(process_with(Some(1 << 20))), listener())
    }

    fn listener() -> Arc<ArcSwapOption<Shared>> {
        Arc::new(ArcSwapOption::new(Some(shared(disk()))))
    }

    fn closed(listener: &ArcSwapOption<Shared>, reason: EndReason) -> u64 {
        listener.load_full().map_or(0, |shared| shared.counters.closed[reason.index()].load(Relaxed))
    }

    /// Connections of this source, until one is refused.
    async fn all_of(source: IpAddr, listeners: &[Arc<ArcSwapOption<Shared>>], process: &Arc<Process>) -> Vec<Hold> {
        let mut all = Vec::new();
        for listener in listeners.iter().cycle() {
            let Some(held) = take(listener.clone(), process.clone(), source).await else { break };
            all.push(held);
        }
        all
    }

    // D7
    #[tokio::test(start_paused = true)]
    async fn a_source_leaves_room_to_others_over_all_listeners_and_gives_back_what_it_had() {
        let (process, first) = small();
        let (most, listeners) = (process.most_sessions(), [first, listener()]);
        let [one, other] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let held = all_of(one, &listeners, &process).await;
        assert!(held.len() >= most / 2 && held.len() < most, "{} of {most}", held.len());
        assert_eq!(listeners.iter().map(|listener| closed(listener, EndReason::SourceShare)).sum::<u64>(), 1);
        let [first, _] = &listeners;
        assert!(take(first.clone(), process.clone(), other).await.is_some(), "there is room for another source");
        let count = held.len();
        drop(held);
        assert!(process.session_sources.is_empty() && process.sessions.usage().0 == 0);
        assert_eq!(all_of(one, &listeners, &process).await.len(), count);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_gets_in_once_flows_that_have_all_room_have_given_way() {
        let (process, listener) = small();
        let source = IpAddr::from([192, 0, 2, 1]);
        let newcomer = Newcomer { namespace: "ns", source };
        let mut flows: Vec<FlowPermits> = std::iter::from_fn(|| process.take_flow(newcomer).ok()).collect();
        let _sessions: Vec<_> = std::iter::from_fn(|| process.take_session()).collect();
        let mut connection = pin!(take(listener.clone(), process.clone(), source));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(connection.as_mut().poll(&mut cx).is_pending());
        let held = loop {
            flows.pop().expect("it gets in before all are gone");
            assert!(process.take_flow(newcomer).is_err(), "the connection waits");
            if let Poll::Ready(held) = connection.as_mut().poll(&mut cx) {
                break held;
            }
        };
        assert!(held.is_some() && !flows.is_empty());
        assert_eq!(process.session_sources.len(), 1);
        assert!(take(listener, process, source).await.is_none(), "its time is over");
    }
}
