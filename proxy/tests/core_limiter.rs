//! The limits of a forward at their edges: the queue, evicted flows, and bytes promised to waiting sessions.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use proxy::core::limits::{
    limiter::{Admission, Allowance, Bucket, FlowSlot, Limiter, Refusal, Slot, Waiting},
    session_room::SessionRoom,
    share::{Bound, Share},
};
use proxy_api::{Limits, OnLimit};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const ROOM: SessionRoom = SessionRoom { most: 1000, free: 1000 };

fn limiter(limits: &Limits) -> Arc<Limiter> {
    let limiter = Arc::new(Limiter::default());
    limiter.set(Some(limits));
    limiter
}

fn admitted(limiter: &Arc<Limiter>) -> Slot {
    match limiter.admit(HERE, 0) {
        Admission::Admitted(slot) => slot,
        other => panic!("{other:?}"),
    }
}

fn queued(limiter: &Arc<Limiter>) -> Waiting {
    match limiter.admit(HERE, 0) {
        Admission::Queued(waiting) => waiting,
        other => panic!("{other:?}"),
    }
}

/// Counts the calls of a waker.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

fn poll<F: Future + Unpin>(future: &mut F, wakes: &Arc<Wakes>) -> Poll<F::Output> {
    let notify = Waker::from(wakes.clone());
    Pin::new(future).poll(&mut Context::from_waker(&notify))
}

#[test]
fn a_released_slot_wakes_only_the_head_of_the_queue_and_counts_at_once() {
    let limiter =
        limiter(&Limits { max_connections: Some(1), on_limit: OnLimit::Queue, max_queued: 9, ..Limits::default() });
    let slot = admitted(&limiter);
    let (mut first, mut second) = (queued(&limiter), queued(&limiter));
    let (first_wakes, second_wakes) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    assert!(poll(&mut first, &first_wakes).is_pending() && poll(&mut second, &second_wakes).is_pending());
    assert_eq!(limiter.counts(), (1, 2));
    drop(slot);
    assert_eq!((first_wakes.count(), second_wakes.count()), (1, 0));
    assert_eq!(limiter.counts(), (1, 2), "the first connection has a slot but has not been polled yet");
    let Poll::Ready(slot) = poll(&mut first, &first_wakes) else { panic!("the first in the queue has a slot") };
    assert!(poll(&mut second, &second_wakes).is_pending());
    assert_eq!(limiter.counts(), (1, 1));
    drop((slot, second));
    assert_eq!(limiter.counts(), (0, 0));
}

#[test]
fn a_queue_of_no_places_refuses_and_a_forward_without_a_queue_says_which_limit_is_reached() {
    let refusal = |on_limit| {
        let limiter = limiter(&Limits { max_connections: Some(1), on_limit, max_queued: 0, ..Limits::default() });
        let _slot = admitted(&limiter);
        match limiter.admit(HERE, 0) {
            Admission::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refusal(OnLimit::Queue), Refusal::QueueFull);
    assert_eq!(refusal(OnLimit::Reject), Refusal::Connections);
}

#[test]
fn one_session_of_a_source_that_ends_makes_room_for_one_more_and_not_for_two() {
    let limiter = limiter(&Limits { max_connections_per_source: Some(2), ..Limits::default() });
    let (one, _two) = (admitted(&limiter), admitted(&limiter));
    assert!(matches!(limiter.admit(HERE, 0), Admission::Refused(Refusal::Source)));
    drop(one);
    let _three = admitted(&limiter);
    assert!(matches!(limiter.admit(HERE, 0), Admission::Refused(Refusal::Source)));
}

#[test]
fn a_flow_that_fits_evicts_no_other_flow() {
    let limiter = limiter(&Limits { max_flows: Some(3), ..Limits::default() });
    let idle = limiter.admit_flow(HERE, 0).expect("room");
    let used = limiter.admit_flow(HERE, 60_000).expect("room");
    assert!(!idle.mark().is_evicted() && !used.mark().is_evicted());
    assert_eq!(limiter.counts(), (2, 0));
}

/// Two forwards of a namespace with this share.
fn sharing(most: u32) -> (Arc<Share>, Arc<Limiter>, Arc<Limiter>) {
    let share = Arc::new(Share::default());
    share.set(Bound::of(most));
    (share.clone(), Arc::new(Limiter::of(share.clone())), Arc::new(Limiter::of(share)))
}

#[test]
fn the_flows_of_a_namespace_share_its_places_with_its_connections() {
    let (share, one, other) = sharing(3);
    let connection = share.enter(ROOM).expect("a place");
    let (first, second) = (one.admit_flow(HERE, 0).expect("a place"), other.admit_flow(HERE, 0).expect("a place"));
    assert_eq!(share.usage(), (3, Some(3)));
    assert_eq!(one.admit_flow(HERE, 10).err(), Some(Refusal::Tenant));
    drop(connection);
    let third = one.admit_flow(HERE, 10).expect("a place");
    assert!(share.enter(ROOM).is_none());
    drop((first, second, third));
    assert_eq!(share.usage(), (0, Some(3)));
}

#[test]
fn without_a_place_a_flow_takes_that_of_an_idle_flow_of_its_own_forward() {
    let (share, one, other) = sharing(2);
    let (idle, foreign) = (one.admit_flow(HERE, 0).expect("a place"), other.admit_flow(HERE, 0).expect("a place"));
    let next = one.admit_flow(HERE, 5000).expect("the place of the idle flow");
    assert!(idle.mark().is_evicted() && !foreign.mark().is_evicted());
    assert_eq!(share.usage().0, 2);
    drop(idle);
    assert_eq!(share.usage().0, 2, "its place was passed on");
    drop((next, foreign));
    assert_eq!(share.usage().0, 0);
    let connections: Vec<_> = (0..2).map(|_| share.enter(ROOM).expect("a place")).collect();
    assert_eq!(other.admit_flow(HERE, 9000).err(), Some(Refusal::Tenant), "no flow to evict");
    drop(connections);
    assert_eq!(share.usage().0, 0, "a refused flow holds no place");
}

#[test]
fn evicted_flows_beyond_a_lower_limit_return_their_places() {
    let (share, one, _) = sharing(10);
    let flows: Vec<FlowSlot> = (0..4).map(|_| one.admit_flow(HERE, 0).expect("a place")).collect();
    one.set(Some(&Limits { max_flows: Some(2), ..Limits::default() }));
    let last = one.admit_flow(HERE, 5000).expect("idle flows make room");
    assert_eq!((share.usage().0, one.counts().0), (2, 2));
    drop(flows);
    drop(last);
    assert_eq!(share.usage().0, 0);
}

#[test]
fn one_admission_evicts_at_most_1024_flows_and_the_next_one_the_rest() {
    let limiter = limiter(&Limits::default());
    let flows: Vec<FlowSlot> = (0..2000).map(|_| limiter.admit_flow(HERE, 0).expect("no limit yet")).collect();
    limiter.set(Some(&Limits { max_flows: Some(1), ..Limits::default() }));
    let evicted = || flows.iter().filter(|flow| flow.mark().is_evicted()).count();
    assert_eq!(limiter.admit_flow(HERE, 60_000).err(), Some(Refusal::Connections));
    assert_eq!((evicted(), limiter.counts()), (1024, (976, 0)));
    let flow = limiter.admit_flow(HERE, 60_000).expect("all other flows are idle");
    assert_eq!((evicted(), limiter.counts()), (2000, (1, 0)));
    drop(flow);
    assert_eq!(limiter.counts(), (0, 0));
}

#[test]
fn the_end_of_a_flow_wakes_the_waiting_task_and_is_known_to_a_task_that_waits_later() {
    let limiter = limiter(&Limits::default());
    let mark = limiter.admit_flow(HERE, 0).expect("no limit").mark();
    let (earlier, later) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let mut ended = mark.ended();
    assert!(poll(&mut ended, &earlier).is_pending() && poll(&mut ended, &later).is_pending());
    mark.end();
    assert_eq!((earlier.count(), later.count()), (0, 1), "the waker of the last poll");
    assert!(poll(&mut ended, &later).is_ready());
    assert!(poll(&mut mark.ended(), &later).is_ready());
    assert!(!mark.is_evicted(), "a flow that ends by itself is not evicted");
}

#[test]
fn an_evicted_flow_wakes_the_task_that_waits_for_its_end() {
    let limiter = limiter(&Limits { max_flows: Some(1), ..Limits::default() });
    let old = limiter.admit_flow(HERE, 0).expect("room");
    let (mark, wakes) = (old.mark(), Arc::new(Wakes::default()));
    assert!(poll(&mut mark.ended(), &wakes).is_pending());
    let _new = limiter.admit_flow(HERE, 1000).expect("the old flow is idle");
    assert_eq!((wakes.count(), mark.is_evicted()), (1, true));
}

/// A bucket of 100,000 bytes per second: the burst is used up, and 12,500 more bytes are promised to a session.
fn exhausted() -> Bucket {
    let bucket = Bucket::default();
    bucket.set(Some(100_000));
    assert_eq!(bucket.allow(1 << 20, 0), Allowance::Bytes(25_000));
    assert_eq!(bucket.allow(1 << 20, 0), Allowance::Later { bytes: 12_500, millis: 125, term: 1 });
    bucket
}

#[test]
fn datagrams_have_a_turn_of_half_a_burst_after_the_sessions_that_wait() {
    let bucket = exhausted();
    assert!(!bucket.take(500, 0), "the turn begins after the bytes of the session: at 250 ms");
    assert!(!bucket.take(500, 249));
    assert_eq!((0..100).filter(|_| bucket.take(500, 250)).count(), 25);
}

#[test]
fn datagrams_reserve_one_turn_at_a_time() {
    let bucket = exhausted();
    assert!(!bucket.take(12_500, 0) && !bucket.take(12_500, 0));
    assert_eq!(bucket.allow(1 << 20, 0), Allowance::Later { bytes: 12_500, millis: 375, term: 1 });
}

#[test]
fn a_datagram_larger_than_half_a_burst_has_a_turn_of_its_size() {
    let bucket = exhausted();
    assert!(!bucket.take(20_000, 0), "125 ms for the session, and 200 ms for the datagram");
    assert!(!bucket.take(20_000, 324));
    assert!(bucket.take(20_000, 325));
}

#[test]
fn a_slow_forward_has_a_burst_of_one_packet_and_portions_of_one_second() {
    let bucket = Bucket::default();
    bucket.set(Some(100));
    assert_eq!(bucket.allow(1 << 20, 0), Allowance::Bytes(1500));
    assert_eq!(bucket.allow(1 << 20, 0), Allowance::Later { bytes: 100, millis: 1000, term: 1 });
}

#[test]
fn bytes_allowed_without_a_limit_are_no_credit_when_a_session_returns_them() {
    let bucket = Bucket::default();
    bucket.set(Some(6000));
    assert_eq!(bucket.allow(1 << 20, 0), Allowance::Bytes(1500));
    bucket.set(None);
    assert_eq!(bucket.allow(1000, 0), Allowance::Bytes(1000));
    bucket.give(1000);
    bucket.set(Some(6000));
    assert!(!bucket.take(1, 0), "the burst is used up");
}

#[test]
fn the_same_rate_again_voids_no_promise_and_another_rate_does() {
    let bucket = exhausted();
    bucket.set(Some(100_000));
    assert_eq!(bucket.term(), 1);
    bucket.set(None);
    assert_eq!((bucket.term(), bucket.is_limited()), (2, false));
    assert_eq!(bucket.allow(1 << 20, 0), Allowance::Bytes(1 << 20));
}
