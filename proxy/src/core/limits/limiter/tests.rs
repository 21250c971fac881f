use std::{
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    task::Wake,
    thread,
};

use proptest::prelude::*;

use super::*;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn limiter(limits: &Limits) -> Arc<Limiter> {
    let limiter = Arc::new(Limiter::default());
    limiter.set(Some(limits));
    limiter
}

fn admitted(admission: Admission) -> Slot {
    match admission {
        Admission::Admitted(slot) => slot,
        other => panic!("{other:?}"),
    }
}

fn queued(admission: Admission) -> Waiting {
    match admission {
        Admission::Queued(waiting) => waiting,
        other => panic!("{other:?}"),
    }
}

fn refused(admission: &Admission) -> Option<Refusal> {
    match admission {
        Admission::Refused(refusal) => Some(*refusal),
        _ => None,
    }
}

struct Thread(thread::Thread);

impl Wake for Thread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn poll(waiting: &mut Waiting) -> Option<Slot> {
    let waker = Waker::from(Arc::new(Thread(thread::current())));
    match Pin::new(waiting).poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(slot) => Some(slot),
        Poll::Pending => None,
    }
}

#[test]
fn a_slot_that_is_kept_is_released_once_for_its_source_and_goes_to_the_queue() {
    let limits = Limits {
        max_connections: Some(1),
        max_connections_per_source: Some(2),
        on_limit: OnLimit::Queue,
        max_queued: 2,
        ..Limits::default()
    };
    let limiter = limiter(&limits);
    admitted(limiter.admit(HERE, 0)).keep();
    assert_eq!(limiter.counts(), (1, 0));
    let mut next = queued(limiter.admit(HERE, 0));
    assert!(poll(&mut next).is_none());
    assert_eq!(refused(&limiter.admit(HERE, 0)), Some(Refusal::Source));
    limiter.leave(HERE);
    let slot = poll(&mut next).expect("the slot that was kept");
    assert_eq!(limiter.counts(), (1, 0));
    drop((slot, next));
    assert_eq!(limiter.counts(), (0, 0));
    assert!(limiter.lock().takes_source(HERE).is_ok());
}

#[test]
fn the_queue_is_first_come_first_served_and_bounded() {
    let limiter =
        limiter(&Limits { max_connections: Some(1), on_limit: OnLimit::Queue, max_queued: 2, ..Limits::default() });
    let slot = admitted(limiter.admit(HERE, 0));
    let mut first = queued(limiter.admit(HERE, 0));
    let mut second = queued(limiter.admit(HERE, 0));
    assert_eq!(refused(&limiter.admit(HERE, 0)), Some(Refusal::QueueFull));
    assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
    drop(slot);
    assert!(poll(&mut second).is_none(), "not its turn");
    let slot = poll(&mut first).expect("the first in the queue gets the slot");
    // A newcomer does not pass those already waiting.
    let third = queued(limiter.admit(HERE, 0));
    drop(slot);
    drop(second);
    let mut third = third;
    assert!(poll(&mut third).is_some(), "a slot granted to an abandoned place is passed on");
    drop(third);
    assert_eq!(limiter.counts(), (0, 0));
}

#[test]
fn limits_that_change_admit_who_waits_and_send_nobody_away() {
    let limits =
        |most| Limits { max_connections: Some(most), on_limit: OnLimit::Queue, max_queued: 10, ..Limits::default() };
    let limiter = limiter(&limits(3));
    let slots: Vec<Slot> = (0..3).map(|_| admitted(limiter.admit(HERE, 0))).collect();
    limiter.set(Some(&limits(1)));
    assert_eq!(limiter.counts(), (3, 0));
    let mut waiting = queued(limiter.admit(HERE, 0));
    drop(slots);
    assert!(poll(&mut waiting).is_some());
    let slot = admitted(limiter.admit(HERE, 0));
    let mut waiting = queued(limiter.admit(HERE, 0));
    limiter.set(None);
    assert!(poll(&mut waiting).is_some(), "the limit was removed");
    drop(slot);
}

#[test]
fn a_source_is_an_address_and_comes_before_the_queue() {
    let limiter = limiter(&Limits {
        max_connections: Some(2),
        max_connections_per_source: Some(1),
        on_limit: OnLimit::Queue,
        max_queued: 9,
        ..Limits::default()
    });
    let at = |text: &str| text.parse::<IpAddr>().expect("an address");
    let one = admitted(limiter.admit(at("2001:db8::1"), 0));
    assert_eq!(refused(&limiter.admit(at("2001:db8::1"), 0)), Some(Refusal::Source));
    let mapped = admitted(limiter.admit(at("::ffff:192.0.2.1"), 0));
    assert_eq!(refused(&limiter.admit(HERE, 0)), Some(Refusal::Source));
    let waiting = queued(limiter.admit(at("192.0.2.2"), 0));
    assert_eq!(refused(&limiter.admit(at("192.0.2.2"), 0)), Some(Refusal::Source));
    drop((waiting, one, mapped));
    assert_eq!(limiter.counts(), (0, 0));
    assert!(limiter.lock().sources.is_empty(), "the table only holds live sources");
}

// C3
#[test]
fn an_ipv6_source_leaves_sessions_to_its_64_which_has_three_times_as_many() {
    let limits = |max_connections| Limits { max_connections, max_connections_per_source: Some(4), ..Limits::default() };
    let limiter = limiter(&limits(None));
    let six = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    let slots: Vec<Slot> = (0..12).map(|at| admitted(limiter.admit(six(1 + at / 4), 0))).collect();
    assert_eq!([1, 2, 3, 4].map(|last| refused(&limiter.admit(six(last), 0))), [Some(Refusal::Source); 4]);
    assert!(limiter.admit_flow(six(5), 0).is_err_and(|refusal| refusal == Refusal::Source), "nor flows");
    let other = admitted(limiter.admit(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, 1]), 0));
    drop((slots, other));
    assert!(limiter.lock().sources.is_empty());
    limiter.set(Some(&limits(Some(8))));
    let _slots: Vec<Slot> = (1..=6).map(|last| admitted(limiter.admit(six(last), 0))).collect();
    assert_eq!(refused(&limiter.admit(six(7), 0)), Some(Refusal::Source), "three quarters of all");
    assert!(refused(&limiter.admit(HERE, 0)).is_none());
}

#[test]
fn new_ones_a_second_have_a_burst_of_one_second() {
    let limiter = limiter(&Limits { new_connections_per_second: Some(10), ..Limits::default() });
    let begun = |at| (0..100).filter(|_| refused(&limiter.admit(HERE, at)).is_none()).count();
    assert_eq!((begun(0), begun(99), begun(100), begun(5000)), (10, 0, 1, 10));
    let limits = |rate| Limits { new_connections_per_second: Some(rate), ..Limits::default() };
    limiter.set(Some(&limits(1000)));
    begun(10_000);
    limiter.set(Some(&limits(2)));
    assert_eq!(begun(10_500), 1, "debt of an earlier rate is capped");
}

#[test]
fn flows_count_and_have_a_limit_of_their_own() {
    let limiter = limiter(&Limits { max_connections: Some(3), max_flows: Some(2), ..Limits::default() });
    let flows: Vec<FlowSlot> = (0..2).map(|_| limiter.admit_flow(HERE, 0).expect("room")).collect();
    assert_eq!(limiter.admit_flow(HERE, 0).err(), Some(Refusal::Connections));
    let connection = admitted(limiter.admit(HERE, 0));
    assert_eq!(refused(&limiter.admit(HERE, 0)), Some(Refusal::Connections));
    drop((flows, connection));
    assert_eq!(limiter.counts(), (0, 0));
}

#[test]
fn the_flow_used_longest_ago_makes_room_and_its_place_is_given_once() {
    let at = |last: u8| IpAddr::from([192, 0, 2, last]);
    let limiter = limiter(&Limits { max_flows: Some(2), max_connections_per_source: Some(1), ..Limits::default() });
    let (one, two) = (limiter.admit_flow(at(1), 0).expect("room"), limiter.admit_flow(at(2), 10).expect("room"));
    one.mark().touch(20);
    assert_eq!(limiter.admit_flow(at(3), 1009).err(), Some(Refusal::Connections), "both are in use");
    assert_eq!(limiter.admit_flow(at(2), 5000).err(), Some(Refusal::Source), "no eviction for a refused flow");
    let three = limiter.admit_flow(at(3), 1010).expect("the slot of the second flow");
    assert!(two.mark().is_evicted() && !one.mark().is_evicted());
    assert_eq!(limiter.counts().0, 2);
    let again = limiter.admit_flow(at(2), 1020).expect("the slot of the first flow, as the source is free again");
    assert!(one.mark().is_evicted());
    drop((one, two));
    assert_eq!(limiter.counts().0, 2, "their slots were passed on");
    drop((three, again));
    assert_eq!(limiter.counts(), (0, 0));
    assert!(limiter.lock().sources.is_empty());
}

#[test]
fn no_flow_goes_for_one_that_may_not_come_and_those_beyond_a_lower_limit_go() {
    let limits = |most| Limits { max_flows: Some(most), new_connections_per_second: Some(3), ..Limits::default() };
    let limiter = limiter(&limits(3));
    let flows: Vec<FlowSlot> = (0..3).map(|_| limiter.admit_flow(HERE, 0).expect("room")).collect();
    let evicted = || flows.iter().filter(|flow| flow.mark().is_evicted()).count();
    let _connections: Vec<Slot> = (0..3).map(|_| admitted(limiter.admit(HERE, 5000))).collect();
    assert_eq!(limiter.admit_flow(HERE, 5000).err(), Some(Refusal::Rate));
    assert_eq!(evicted(), 0);
    limiter.set(Some(&limits(1)));
    flows[0].mark().touch(6000);
    assert_eq!(limiter.admit_flow(HERE, 6000).err(), Some(Refusal::Connections), "one flow is in use");
    assert_eq!(evicted(), 2, "flows beyond the limit are evicted");
    let _flow = limiter.admit_flow(HERE, 7000).expect("the last flow makes room");
    assert_eq!((evicted(), limiter.lock().flows.len()), (3, 1));
}

#[test]
fn flows_that_go_make_room_for_connections_that_wait_and_none_goes_where_connections_are_too_many() {
    let limits = |flows, most| Limits {
        max_connections: Some(most),
        max_flows: Some(flows),
        on_limit: OnLimit::Queue,
        max_queued: 9,
        ..Limits::default()
    };
    let limiter = limiter(&limits(4, 4));
    let flows: Vec<FlowSlot> = (0..4).map(|_| limiter.admit_flow(HERE, 0).expect("room")).collect();
    let mut waiting = queued(limiter.admit(HERE, 0));
    assert!(poll(&mut waiting).is_none());
    limiter.set(Some(&limits(1, 4)));
    let _flow = limiter.admit_flow(HERE, 5000).expect("room");
    let _connection = poll(&mut waiting).expect("three slots were freed and one was taken");
    drop(flows);
    limiter.set(Some(&limits(9, 1)));
    let _others: Vec<Waiting> = (0..3).map(|_| queued(limiter.admit(HERE, 5000))).collect();
    limiter.set(Some(&limits(9, 4)));
    limiter.set(Some(&limits(9, 1)));
    assert_eq!(limiter.admit_flow(HERE, 9000).err(), Some(Refusal::Connections));
    assert_eq!(limiter.lock().flows.len(), 1, "eviction could not have made room");
}

#[test]
fn sixteen_workers_never_have_more_flows_than_the_limit_and_lose_no_place() {
    let limiter = limiter(&Limits { max_flows: Some(5), ..Limits::default() });
    thread::scope(|scope| {
        for worker in 0..16_u64 {
            let limiter = &limiter;
            scope.spawn(move || {
                let mut own = std::collections::VecDeque::new();
                for step in 0..2000 {
                    // Time advances, so that untouched flows become idle.
                    let now = step * 300;
                    match (worker + step) % 3 {
                        0 => drop(own.pop_front()),
                        1 => own.iter().for_each(|flow: &FlowSlot| flow.mark().touch(now)),
                        _ => own.extend(limiter.admit_flow(HERE, now)),
                    }
                    let (live, _) = limiter.counts();
                    assert!(live <= 5, "{live}");
                }
            });
        }
    });
    assert_eq!(limiter.counts(), (0, 0));
    assert!(limiter.lock().sources.is_empty());
}

/// A step of one of many workers.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Begin a session, waiting if necessary.
    Begin,
    /// Begin a session, giving up at once if it has to wait.
    BeginOrGiveUp,
    /// End the oldest own session.
    End,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![Just(Step::Begin), Just(Step::BeginOrGiveUp), Just(Step::End)];
    proptest::collection::vec(step, 1..60)
}

fn work(limiter: &Arc<Limiter>, steps: &[Step], live: &AtomicU32, most: u32) {
    struct Counted<'a>(Option<Slot>, &'a AtomicU32);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.1.fetch_sub(1, SeqCst);
            self.0.take();
        }
    }
    let begun = |slot: Slot| {
        let now = live.fetch_add(1, SeqCst) + 1;
        assert!(now <= most, "{now} of {most}");
        Counted(Some(slot), live)
    };
    let mut own = std::collections::VecDeque::new();
    for step in steps {
        let admission = match step {
            Step::End => {
                own.pop_front();
                continue;
            }
            Step::Begin | Step::BeginOrGiveUp => limiter.admit(HERE, 0),
        };
        match admission {
            Admission::Admitted(slot) => own.push_back(begun(slot)),
            Admission::Queued(mut waiting) if matches!(step, Step::Begin) => {
                // Release own slots before waiting, or all workers could wait for each other.
                own.clear();
                let slot = loop {
                    match poll(&mut waiting) {
                        Some(slot) => break slot,
                        None => thread::park_timeout(std::time::Duration::from_millis(5)),
                    }
                };
                own.push_back(begun(slot));
            }
            Admission::Queued(_) | Admission::Refused(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn sixteen_workers_never_have_more_than_the_limit_and_lose_no_slot(
        most in 1_u32..6,
        per_worker in proptest::collection::vec(steps(), 16),
    ) {
        let limits = Limits {
            max_connections: Some(most),
            on_limit: OnLimit::Queue,
            max_queued: 8,
            max_connections_per_source: Some(1000),
            ..Limits::default()
        };
        let limiter = limiter(&limits);
        let live = AtomicU32::new(0);
        thread::scope(|scope| {
            for steps in &per_worker {
                scope.spawn(|| work(&limiter, steps, &live, most));
            }
        });
        prop_assert_eq!(limiter.counts(), (0, 0));
        let again: Vec<Slot> = (0..most).map(|_| admitted(limiter.admit(HERE, 0))).collect();
        prop_assert_eq!(again.len(), most as usize);
    }
}

#[test]
fn flows_give_way_by_the_ipv4_address_and_by_the_ipv6_64() {
    let of = |text: &str| network(text.parse().expect("an address")).to_string();
    assert_eq!(["192.0.2.1", "::ffff:192.0.2.1"].map(of), ["192.0.2.1"; 2]);
    assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
}
