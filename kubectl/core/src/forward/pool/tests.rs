//! Connections and pods on a clock of the test.

use super::*;

const WAIT: Duration = Duration::from_secs(2);

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn id(name: &str) -> PodId {
    PodId { name: name.to_owned(), uid: format!("uid-{name}") }
}

fn ready(names: &[&str]) -> Vec<Endpoint> {
    names.iter().map(|name| Endpoint { pod: id(name), port: 80, is_ready: true }).collect()
}

fn pool(names: &[&str]) -> Pool {
    let mut pool = Pool::new(WAIT);
    pool.set(ready(names));
    pool
}

fn refused() -> Failure {
    Failure::Refused("connection refused".to_owned())
}

/// The pod that a session is attached to.
fn attach(pool: &mut Pool, session: SessionId, now: Duration) -> String {
    match pool.next(session, now) {
        Step::Attach { pod, .. } => pod.name,
        other => panic!("not attached: {other:?}"),
    }
}

fn open(pool: &mut Pool, now: Duration) -> (SessionId, String) {
    let session = pool.open(now);
    let pod = attach(pool, session, now);
    (session, pod)
}

#[test]
fn a_connection_goes_to_the_pod_with_the_fewest_sessions() {
    let mut pool = pool(&["a", "b"]);
    let (first, pod) = open(&mut pool, at(0));
    assert_eq!(pod, "a");
    assert_eq!(open(&mut pool, at(0)).1, "b");
    pool.close(first);
    assert_eq!(open(&mut pool, at(0)).1, "a");
    assert_eq!(pool.sessions(), 2);
}

#[test]
fn connections_one_after_the_other_go_to_all_pods_in_turn() {
    let mut pool = pool(&["a", "b", "c"]);
    let mut pods = String::new();
    for _ in 0..6 {
        let (session, pod) = open(&mut pool, at(0));
        pods += &pod;
        pool.close(session);
    }
    assert_eq!(pods, "abcabc");
}

#[test]
fn a_pod_that_fails_is_left_out_and_another_is_tried_at_once() {
    let mut pool = pool(&["a", "b"]);
    let (session, _) = open(&mut pool, at(0));
    pool.failed(session, refused(), at(1));
    assert_eq!(attach(&mut pool, session, at(1)), "b");
    // `a` has fewer sessions, and is left out until its backoff is over.
    assert_eq!(open(&mut pool, at(50)).1, "b");
    assert_eq!(open(&mut pool, at(101)).1, "a");
}

#[test]
fn the_only_pod_is_tried_again_after_its_backoff_and_an_answer_ends_the_backoff() {
    let mut pool = pool(&["a"]);
    let (session, _) = open(&mut pool, at(0));
    pool.failed(session, refused(), at(0));
    assert_eq!(pool.next(session, at(0)), Step::Wait(at(100)));
    attach(&mut pool, session, at(100));
    pool.failed(session, refused(), at(100));
    assert_eq!(pool.next(session, at(100)), Step::Wait(at(300)));
    attach(&mut pool, session, at(300));
    pool.answered(session);
    assert_eq!(open(&mut pool, at(300)).1, "a");
}

#[test]
fn a_new_connection_has_the_time_for_an_attempt_however_often_a_pod_has_failed() {
    let mut pool = pool(&["a"]);
    let mut now = Duration::ZERO;
    for _ in 0..40 {
        let session = pool.open(now);
        let started = now;
        while let Step::Wait(until) = pool.next(session, now) {
            now = until;
        }
        assert!(now < started + WAIT, "there was no attempt");
        pool.failed(session, refused(), now);
        pool.close(session);
    }
}

#[test]
fn without_a_ready_pod_a_connection_waits_until_its_deadline_and_takes_the_first_that_comes() {
    let mut pool = Pool::new(WAIT);
    pool.set(vec![Endpoint { is_ready: false, ..ready(&["a"]).remove(0) }]);
    let (early, late) = (pool.open(at(0)), pool.open(at(1500)));
    assert_eq!(pool.next(early, at(1000)), Step::Wait(at(2000)));
    let refusal = Refusal::NoReadyPod { wait: WAIT, ready: 0, known: 1 };
    assert_eq!(refusal.to_string(), "no ready pod within 2 s (0 of 1 pods are ready)");
    assert_eq!(pool.next(early, at(2000)), Step::GiveUp(refusal));
    pool.set(ready(&["b"]));
    assert_eq!(attach(&mut pool, late, at(2000)), "b");
}

#[test]
fn an_attempt_leaves_time_for_another_and_attempts_are_bounded() {
    let names: Vec<String> = (0..20).map(|number| format!("p{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut pool = pool(&names);
    let session = pool.open(at(0));
    let Step::Attach { until, .. } = pool.next(session, at(0)) else { panic!("attached") };
    assert_eq!(until, at(1000));
    pool.failed(session, Failure::Late, at(0));
    for _ in 1..ATTEMPTS {
        attach(&mut pool, session, at(0));
        pool.failed(session, refused(), at(0));
    }
    let Step::GiveUp(Refusal::Failed { attempts, .. }) = pool.next(session, at(0)) else { panic!("given up") };
    assert_eq!(attempts, ATTEMPTS);
}

#[test]
fn a_failure_of_the_api_server_is_not_held_against_the_pod() {
    let mut pool = pool(&["a"]);
    let (session, _) = open(&mut pool, at(0));
    pool.failed(session, Failure::Unreachable("no route".to_owned()), at(0));
    assert_eq!(pool.next(session, at(0)), Step::Wait(at(100)));
    assert_eq!(open(&mut pool, at(0)).1, "a");
}

#[test]
fn a_missing_right_is_not_tried_again() {
    let mut pool = pool(&["a", "b"]);
    let (session, _) = open(&mut pool, at(0));
    pool.failed(session, Failure::of_status("shop", 403, "forbidden"), at(0));
    assert!(matches!(pool.next(session, at(0)), Step::GiveUp(Refusal::Failed { attempts: 1, .. })));
}

#[test]
fn sessions_survive_until_their_pod_has_ended() {
    let mut pool = pool(&["a"]);
    let (session, _) = open(&mut pool, at(0));
    // The pod lost its label, or its readiness, or was deleted: the endpoints do not tell.
    pool.set(ready(&["b"]));
    assert_eq!(open(&mut pool, at(1)).1, "b");
    assert_eq!(pool.suspects(at(1)), [id("a")]);
    assert!(pool.suspects(at(2)).is_empty(), "looked at a moment ago");
    assert_eq!(pool.suspects(at(10_001)), [id("a")]);
    assert!(!pool.has_ended(session));
    pool.ended(&id("a"));
    assert!(pool.has_ended(session));
    assert!(pool.suspects(at(30_000)).is_empty());
    pool.close(session);
    assert_eq!(pool.counts(), (1, 1));
}

#[test]
fn a_pod_of_the_same_name_is_another_pod() {
    let mut pool = pool(&["db-0"]);
    let (session, _) = open(&mut pool, at(0));
    let pod = PodId { name: "db-0".to_owned(), uid: "new".to_owned() };
    pool.set(vec![Endpoint { pod, port: 80, is_ready: true }]);
    pool.ended(&id("db-0"));
    let (fresh, _) = open(&mut pool, at(1));
    assert!(pool.has_ended(session) && !pool.has_ended(fresh));
}

#[test]
fn the_time_without_attempts_doubles_up_to_its_limit_however_many_failures_there_are() {
    let pauses = [0, 1, 3, 4, 31, 32, u32::MAX].map(|failures| backoff(failures, at(1000)));
    assert_eq!(pauses, [100, 200, 800, 1000, 1000, 1000, 1000].map(at));
}

#[test]
fn a_pod_with_another_port_is_tried_at_once_and_with_the_same_one_its_failures_count() {
    let mut pool = pool(&["a"]);
    let (session, _) = open(&mut pool, at(0));
    pool.failed(session, refused(), at(0));
    pool.set(ready(&["a"]));
    assert_eq!(pool.next(session, at(1)), Step::Wait(at(100)));
    pool.set(vec![Endpoint { port: 81, ..ready(&["a"]).remove(0) }]);
    assert!(matches!(pool.next(session, at(1)), Step::Attach { port: 81, .. }));
}

#[test]
fn a_failure_after_an_answer_is_a_first_one() {
    let mut pool = pool(&["a"]);
    let (session, _) = open(&mut pool, at(0));
    pool.failed(session, refused(), at(0));
    attach(&mut pool, session, at(100));
    pool.answered(session);
    pool.close(session);
    let (later, _) = open(&mut pool, at(200));
    pool.failed(later, refused(), at(200));
    assert_eq!(pool.next(later, at(200)), Step::Wait(at(300)));
}

#[test]
fn a_pod_that_is_no_endpoint_is_forgotten_with_its_last_session() {
    let mut pool = pool(&["a"]);
    let (session, _) = open(&mut pool, at(0));
    pool.set(ready(&["b"]));
    assert_eq!(pool.pods.len(), 2, "its session continues");
    pool.close(session);
    assert!(pool.pods.keys().eq([&id("b")]));
}
