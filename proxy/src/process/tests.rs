//! Tests of the room of a process.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll, Waker},
};

use super::*;
use crate::{
    core::{
        limits::limiter::{Mark, Member},
        udp::flows::FlowKey,
    },
    fixtures::{process, process_of, process_with_ports},
};

const NEWCOMER: Newcomer<'static> = Newcomer { namespace: "a", source: IpAddr::V4(Ipv4Addr::LOCALHOST) };

/// A process with room for four sessions.
fn small() -> Process {
    process(&Settings { max_sessions: 4, ..Settings::default() }, None)
}

#[test]
fn flows_leave_room_for_sessions_and_give_all_of_theirs_back() {
    let process = small();
    let flows: Vec<FlowPermits> = (0..100).map_while(|_| process.take_flow(NEWCOMER).ok()).collect();
    assert_eq!(flows.len(), 6);
    assert_eq!(process.take_flow(NEWCOMER).expect_err("no room"), Dropped::SessionLimit);
    assert!(process.take_session().is_some(), "a quarter is left");
    drop(flows);
    assert_eq!((process.flows.usage().0, process.sessions.usage().0, process.files.usage().0), (0, 0, 0));
}

#[test]
fn a_new_flow_takes_no_place_that_another_gave_up_for_a_connection() {
    let process = small();
    let mut flows: Vec<FlowPermits> = (0..6).map_while(|_| process.take_flow(NEWCOMER).ok()).collect();
    let session = process.take_session();
    let mut connection = pin!(process.wait_for_session());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(session.is_some() && connection.as_mut().poll(&mut cx).is_pending());
    drop(flows.pop());
    assert_eq!(process.take_flow(NEWCOMER).expect_err("a connection waits"), Dropped::SessionLimit);
    drop(flows.pop());
    assert!(connection.as_mut().poll(&mut cx).is_ready());
    drop(session);
    assert!(process.take_flow(NEWCOMER).is_ok(), "none waits");
}

// Pipes for splicing exist on Linux only.
#[cfg(target_os = "linux")]
#[test]
fn files_of_sessions_and_pipes_do_not_count_among_those_of_listeners() {
    let mut process = small();
    process.files = Arc::new(Files::new(100));
    process.pipes = Arc::new(Pipes::new(1 << 20, process.files.clone()));
    process.files.occupy(80);
    let free = process.free_files_for_listeners();
    let pipe = process.pipes.lend(0).expect("a pipe");
    let session = process.take_session().expect("room");
    assert_eq!((process.files.usage().0, process.free_files_for_listeners()), (84, free));
    drop((pipe, session));
    process.files.occupy(2);
    assert_eq!(process.free_files_for_listeners(), free - 2);
}

/// A flow as its worker holds it.
struct Held {
    mark: Arc<Mark>,
    _permits: FlowPermits,
    _member: Member,
}

/// Flows from one source, as many as the process takes.
fn flood(process: &Process) -> Vec<Held> {
    let flow = |port: u16| {
        let (permits, mark) = (process.take_flow(NEWCOMER).ok()?, Arc::<Mark>::default());
        let key = FlowKey { client: SocketAddr::new(NEWCOMER.source, port), local: None };
        let member = process.flow_registry.register(NEWCOMER.namespace, mark.clone(), key, 0);
        Some(Held { mark, _permits: permits, _member: member })
    };
    (0..u16::MAX).map_while(flow).collect()
}

#[test]
fn while_a_connection_waits_a_flow_of_another_source_gets_a_place_and_one_of_the_flood_gives_way() {
    let process = process(&Settings { max_sessions: 32, ..Settings::default() }, None);
    let mut flows = flood(&process);
    let _sessions: Vec<Permits> = std::iter::from_fn(|| process.take_session()).collect();
    let mut connection = pin!(process.wait_for_session());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(connection.as_mut().poll(&mut cx).is_pending());
    assert_eq!(process.take_flow(NEWCOMER).expect_err("no room"), Dropped::SessionLimit);
    let mut others = Vec::new();
    for last in 2..30 {
        let other = Newcomer { source: [127, 0, 0, last].into(), ..NEWCOMER };
        others.push(process.take_flow(other).expect("a place"));
        let victim = process.evict_flow_for_newcomer(other, false, 0).expect("a flow of the flood, in use");
        assert_eq!(victim.key.client.ip(), NEWCOMER.source);
        // As the worker of that flow does.
        flows.retain(|flow| !Arc::ptr_eq(&flow.mark, &victim.mark));
    }
    assert!(connection.as_mut().poll(&mut cx).is_pending(), "places have changed hands, and none is free");
    flows.truncate(flows.len() - SESSION_PLACES);
    assert!(connection.as_mut().poll(&mut cx).is_ready());
    assert_eq!(process.flows.usage().0, flows.len() + others.len());
}

#[test]
fn a_source_has_three_quarters_of_the_sessions_that_fit_in_beside_flows() {
    let process = process(&Settings { max_sessions: 32, ..Settings::default() }, None);
    let enter = |last: u8| {
        let permits = process.take_session()?;
        process.enter_source([192, 0, 2, last].into()).then_some(permits)
    };
    let take = |last: u8| std::iter::from_fn(|| enter(last)).collect::<Vec<Permits>>();
    let flows = flood(&process);
    assert_eq!(process.session_room(), SessionRoom { most: 8, free: 8 });
    let beside_flows = take(1);
    assert_eq!((beside_flows.len(), take(2).len()), (6, 1), "the next one is for another source again");
    for _ in &beside_flows {
        process.session_sources.leave([192, 0, 2, 1].into());
    }
    drop((flows, beside_flows));
    assert_eq!(process.session_room(), SessionRoom { most: 32, free: 32 });
    assert_eq!(take(3).len(), 24, "of all");
}

// D7
#[tokio::test(start_paused = true)]
async fn idle_flows_give_way_to_a_connection_that_is_accepted_and_none_takes_their_room_before_it() {
    let clock = Clock::of_age(Duration::from_secs(60));
    let process = process_of(clock, &Settings { max_sessions: 32, ..Settings::default() }, None);
    // They were used at its start, and not since.
    let mut flows = flood(&process);
    let _sessions: Vec<Permits> = std::iter::from_fn(|| process.take_session()).collect();
    let mut connection = pin!(process.wait_with_connection());
    let mut cx = Context::from_waker(Waker::noop());
    for left in (0..SESSION_PLACES).rev() {
        assert!(connection.as_mut().poll(&mut cx).is_pending());
        let evicted = flows.iter().position(|flow| flow.mark.is_evicted()).expect("one gives way");
        // As its worker does.
        drop(flows.swap_remove(evicted));
        assert_eq!(flows.iter().filter(|flow| flow.mark.is_evicted()).count(), left);
        assert_eq!(process.take_flow(NEWCOMER).expect_err("the connection waits"), Dropped::SessionLimit);
    }
    assert!(matches!(connection.as_mut().poll(&mut cx), Poll::Ready(Some(_))));
    assert_eq!(process.waiting.usage().0, 0);
}

#[tokio::test(start_paused = true)]
async fn few_connections_that_are_accepted_wait_for_room_and_each_for_a_bounded_time() {
    let process = small();
    let mut sessions: Vec<Permits> = std::iter::from_fn(|| process.take_session()).collect();
    let began = tokio::time::Instant::now();
    assert!(process.wait_with_connection().await.is_none());
    assert!(began.elapsed() >= ROOM_WITHIN && began.elapsed() < ROOM_WITHIN * 2, "{:?}", began.elapsed());
    let mut cx = Context::from_waker(Waker::noop());
    let mut waiting: Vec<_> = (0..MOST_WAITING).map(|_| Box::pin(process.wait_with_connection())).collect();
    assert!(waiting.iter_mut().all(|connection| connection.as_mut().poll(&mut cx).is_pending()));
    let mut beyond = pin!(process.wait_with_connection());
    assert!(matches!(beyond.as_mut().poll(&mut cx), Poll::Ready(None)), "it is refused at once");
    sessions.pop();
    let served: Vec<Permits> = waiting
        .iter_mut()
        .filter_map(|connection| match connection.as_mut().poll(&mut cx) {
            Poll::Ready(permits) => permits,
            Poll::Pending => None,
        })
        .collect();
    assert_eq!(served.len(), 1);
    drop(waiting);
    assert!(process.waiting.usage().0 == 0 && !process.sessions.is_awaited());
}

#[test]
fn a_pod_that_is_resized_holds_as_many_sessions_as_one_that_starts_with_that_memory() {
    let process = |memory| process(&Settings::default(), memory);
    let bounds = |process: &Process| (process.sessions.usage().1, process.flows.usage().1, process.budget.limit());
    let (small, large) = (Some(64 << 20), Some(512 << 20));
    let resized = process(small);
    assert!(!resized.resize(small), "the same");
    assert!(resized.resize(large));
    assert_eq!(bounds(&resized), bounds(&process(large)));
    assert!(resized.resize(small) && resized.resize(None));
    assert_eq!(bounds(&resized), bounds(&process(None)));
}

// D7
#[test]
fn while_memory_is_short_nothing_begins_and_no_flow_gives_way_and_then_who_waits_gets_in() {
    let clock = Clock::of_age(Duration::from_secs(60));
    let process = process_of(clock, &Settings { max_sessions: 32, ..Settings::default() }, None);
    // They are idle.
    let flows = flood(&process);
    process.set_short_of_memory(true);
    assert!(process.is_short_of_memory() && process.take_session().is_none());
    let other = Newcomer { source: [127, 0, 0, 2].into(), ..NEWCOMER };
    assert_eq!(process.take_flow(other).expect_err("memory is short"), Dropped::SessionLimit);
    assert!(process.evict_flow_for_newcomer(other, true, process.clock.millis()).is_none());
    let mut connection = pin!(process.wait_for_session());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(connection.as_mut().poll(&mut cx).is_pending());
    process.evict_flows_for_waiters();
    assert!(flows.iter().all(|flow| !flow.mark.is_evicted()), "nobody would get their room");
    process.set_short_of_memory(false);
    assert!(connection.as_mut().poll(&mut cx).is_ready());
    assert!(process.take_flow(other).is_ok());
    assert_eq!(process.sessions.paused.load(Relaxed), 1);
}

#[test]
fn flows_fit_into_the_local_ports_whatever_the_memory() {
    let process = process_with_ports(Clock::start(), &Settings::default(), Some(512 << 20), Some(80));
    assert_eq!(process.flows.usage().1, 70);
    assert!(process.resize(None), "there is room for more sessions");
    assert_eq!(process.flows.usage().1, 70);
}

#[test]
fn the_handshakes_of_strangers_follow_the_room_for_sessions() {
    let process = process(&Settings::default(), Some(64 << 20));
    let most = |process: &Process| {
        let _places: Vec<_> = (0..1024).map(|_| process.handshakes.enter(IpAddr::from([192, 0, 2, 1]))).collect();
        process.handshakes.taken()
    };
    let before = most(&process);
    process.tunnels.begin();
    assert!(process.resize(Some(64 << 20)));
    assert!(most(&process) < before, "{before}");
}

#[test]
fn sessions_leave_memory_to_those_with_agents_once_agents_can_connect() {
    let memory = Some(512 << 20);
    let process = process(&Settings::default(), memory);
    let before = process.sessions.usage().1;
    process.tunnels.begin();
    assert!(process.resize(memory) && process.sessions.usage().1 < before);
}
