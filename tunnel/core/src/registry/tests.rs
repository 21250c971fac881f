use super::*;
use crate::identity::AgentName;

const ENDPOINT: Boot = Boot([100; 16]);
const POLICY: Policy = Policy { rotation: 1, suspended: false, is_newer: false, max_instances: 2 };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn agent(uid: &str) -> AgentIdentity {
    AgentIdentity::new(AgentName::new("infra", "home").expect("a name"), uid, 1).expect("an identity")
}

fn hello(instance: &str, boot: u8, epoch: u64, sessions: &[u64]) -> Hello {
    Hello {
        versions: VERSIONS,
        boot: Boot([boot; 16]),
        epoch,
        instance: Instance::new(instance).expect("an instance"),
        program: "0.9.0".to_owned(),
        sessions: sessions.iter().map(|born| SessionName { endpoint: ENDPOINT, born: *born }).collect(),
    }
}

fn key(uid: &str, instance: &str) -> Key {
    Key { uid: uid.to_owned(), instance: Instance::new(instance).expect("an instance") }
}

fn admit(registry: &mut Registry, hello: &Hello, now: u64) -> Admission {
    registry.admit(&agent("a"), hello, Some(&POLICY), at(now))
}

fn reason(admission: Admission) -> Option<Denial> {
    match admission {
        Admission::Denied(denied) => Some(denied.reason),
        Admission::New | Admission::Resume => None,
    }
}

fn registry() -> Registry {
    Registry::new(ENDPOINT, 3)
}

#[test]
fn an_agent_that_names_its_session_resumes_it() {
    let mut registry = registry();
    assert_eq!(admit(&mut registry, &hello("pi4", 1, 5, &[]), 10), Admission::New);
    assert_eq!(admit(&mut registry, &hello("pi4", 1, 6, &[5]), 20), Admission::Resume);
    let known = &registry.instances()[&key("a", "pi4")];
    assert_eq!((known.since, known.epoch), (at(10), 6));
}

#[test]
fn a_session_that_only_one_end_has_is_not_resumed() {
    let mut registry = registry();
    // A restarted endpoint knows of no session; the session of another endpoint does not count.
    assert_eq!(admit(&mut registry, &hello("pi4", 1, 5, &[3]), 0), Admission::New);
    // The agent did not learn of the session that began at 5, and still has the one before.
    assert_eq!(admit(&mut registry, &hello("pi4", 1, 6, &[3]), 1), Admission::New);
    let mut other = hello("pi4", 1, 7, &[]);
    other.sessions.push(SessionName { endpoint: Boot([101; 16]), born: 6 });
    assert_eq!(admit(&mut registry, &other, 2), Admission::New);
    assert_eq!(admit(&mut registry, &hello("pi4", 1, 8, &[7]), 3), Admission::Resume);
}

#[test]
fn an_epoch_that_is_not_higher_is_stale() {
    let mut registry = registry();
    assert_eq!(admit(&mut registry, &hello("pi4", 1, 5, &[]), 0), Admission::New);
    for epoch in [0, 4, 5] {
        assert_eq!(reason(admit(&mut registry, &hello("pi4", 1, epoch, &[5]), 1)), Some(Denial::Stale));
    }
    // A denied HELLO changes nothing.
    assert_eq!(admit(&mut registry, &hello("pi4", 1, 6, &[5]), 2), Admission::Resume);
}

#[test]
fn a_new_run_takes_the_place_of_the_one_before_and_keeps_it() {
    let mut registry = registry();
    assert_eq!(admit(&mut registry, &hello("pi4", 1, 50, &[]), 0), Admission::New);
    // Its epochs start over.
    assert_eq!(admit(&mut registry, &hello("pi4", 2, 1, &[]), 7), Admission::New);
    assert_eq!(registry.instances()[&key("a", "pi4")].since, at(7));
    assert_eq!(reason(admit(&mut registry, &hello("pi4", 1, 51, &[50]), 8)), Some(Denial::Superseded));
    assert_eq!(admit(&mut registry, &hello("pi4", 2, 2, &[1]), 9), Admission::Resume);
}

#[test]
fn runs_that_were_superseded_are_remembered_up_to_a_bound() {
    let mut registry = registry();
    for boot in 1..=6 {
        assert_eq!(admit(&mut registry, &hello("pi4", boot, 1, &[]), 0), Admission::New);
    }
    let known = &registry.instances()[&key("a", "pi4")];
    assert_eq!(known.superseded, [2, 3, 4, 5].map(|boot| Boot([boot; 16])));
}

#[test]
fn an_agent_has_as_many_instances_as_it_may() {
    let mut registry = registry();
    assert_eq!(admit(&mut registry, &hello("one", 1, 1, &[]), 0), Admission::New);
    assert_eq!(admit(&mut registry, &hello("two", 2, 1, &[]), 0), Admission::New);
    assert_eq!(reason(admit(&mut registry, &hello("three", 3, 1, &[]), 0)), Some(Denial::Instances));
    // A connected instance may restart, and another may connect when it is gone.
    assert_eq!(admit(&mut registry, &hello("one", 4, 1, &[]), 0), Admission::New);
    registry.forget(&key("a", "one"), SessionName { endpoint: ENDPOINT, born: 1 });
    assert_eq!(admit(&mut registry, &hello("three", 3, 2, &[]), 0), Admission::New);
}

#[test]
fn an_endpoint_serves_as_many_instances_as_it_may() {
    let mut registry = registry();
    for uid in ["a", "b", "c"] {
        let admission = registry.admit(&agent(uid), &hello("pi4", 1, 1, &[]), Some(&POLICY), at(0));
        assert_eq!(admission, Admission::New);
    }
    let admission = registry.admit(&agent("d"), &hello("pi4", 1, 1, &[]), Some(&POLICY), at(0));
    assert_eq!(reason(admission), Some(Denial::Full));
    assert_eq!(registry.instances().len(), 3);
}

#[test]
fn the_end_of_an_earlier_session_does_not_forget_the_present_one() {
    let mut registry = registry();
    assert_eq!(admit(&mut registry, &hello("pi4", 1, 1, &[]), 0), Admission::New);
    let first = registry.session(&key("a", "pi4")).expect("a session");
    assert_eq!(admit(&mut registry, &hello("pi4", 1, 2, &[]), 0), Admission::New);
    registry.forget(&key("a", "pi4"), first);
    assert_eq!(registry.instances().len(), 1);
    let second = registry.session(&key("a", "pi4")).expect("a session");
    registry.forget(&key("a", "pi4"), second);
    assert!(registry.instances().is_empty());
}

#[test]
fn an_agent_that_may_not_connect_hears_what_its_owner_can_do() {
    let mut registry = registry();
    for (policy, expected, remedy) in [
        (None, Denial::Unknown, "enrol again"),
        (Some(Policy { suspended: true, ..POLICY }), Denial::Suspended, "sets suspend to false"),
        (Some(Policy { suspended: true, is_newer: true, ..POLICY }), Denial::Suspended, "upgrade the server"),
        (Some(Policy { rotation: 2, ..POLICY }), Denial::Revoked, "enrol again"),
        (Some(Policy { max_instances: 0, ..POLICY }), Denial::Instances, "raise maxInstances"),
    ] {
        let admission = registry.admit(&agent("a"), &hello("pi4", 1, 1, &[]), policy.as_ref(), at(0));
        let Admission::Denied(denied) = admission else { panic!("admitted") };
        assert_eq!(denied.reason, expected);
        assert!(denied.detail.contains("infra/home") && denied.detail.contains(remedy), "{denied}");
    }
    assert!(registry.instances().is_empty());
}

#[test]
fn a_later_rotation_than_required_counts() {
    let policy = Policy { rotation: 0, ..POLICY };
    let admission = registry().admit(&agent("a"), &hello("pi4", 1, 1, &[]), Some(&policy), at(0));
    assert_eq!(admission, Admission::New);
}

#[test]
fn without_a_common_version_the_older_end_is_named() {
    let mut registry = registry();
    for (versions, end) in [(0..=0, "upgrade the agent"), (2..=9, "upgrade the endpoint")] {
        let hello = Hello { versions, ..hello("pi4", 1, 1, &[]) };
        let Admission::Denied(denied) = admit(&mut registry, &hello, 0) else { panic!("admitted") };
        assert!(denied.reason == Denial::Version && denied.detail.ends_with(end), "{denied}");
    }
}

#[test]
fn a_draining_endpoint_resumes_sessions_and_begins_none() {
    let mut registry = registry();
    assert_eq!(admit(&mut registry, &hello("pi4", 1, 1, &[]), 0), Admission::New);
    registry.drain();
    assert_eq!(admit(&mut registry, &hello("pi4", 1, 2, &[1]), 0), Admission::Resume);
    assert_eq!(reason(admit(&mut registry, &hello("pi4", 1, 3, &[]), 0)), Some(Denial::Draining));
    assert_eq!(reason(admit(&mut registry, &hello("two", 2, 1, &[]), 0)), Some(Denial::Draining));
}

#[test]
fn a_connected_instance_with_the_fewest_streams_is_asked_first() {
    let load = |leaving, detached, streams| Load { leaving, detached, streams };
    let ordered = [load(false, false, 1), load(false, false, 2), load(false, true, 0), load(true, false, 0)];
    let mut sorted = ordered;
    sorted.reverse();
    sorted.sort();
    assert_eq!(sorted, ordered);
}

#[test]
fn a_review_forgets_those_who_may_no_longer_connect() {
    let mut registry = registry();
    for uid in ["a", "b"] {
        let admission = registry.admit(&agent(uid), &hello("pi4", 1, 1, &[]), Some(&POLICY), at(0));
        assert_eq!(admission, Admission::New);
    }
    assert!(registry.review(|_| Some(POLICY)).is_empty());
    let denied =
        registry.review(|identity| Some(Policy { rotation: if identity.uid() == "b" { 2 } else { 1 }, ..POLICY }));
    let reasons: Vec<(Key, Denial)> = denied.into_iter().map(|(key, denied)| (key, denied.reason)).collect();
    assert_eq!(reasons, [(key("b", "pi4"), Denial::Revoked)]);
    assert_eq!(registry.instances().keys().collect::<Vec<_>>(), [&key("a", "pi4")]);
}

#[test]
fn a_suspended_agent_keeps_its_certificate_and_a_revoked_one_does_not() {
    assert_eq!(certifiable(&agent("a"), Some(&Policy { suspended: true, ..POLICY })), Ok(()));
    let revoked = certifiable(&agent("a"), Some(&Policy { rotation: 2, ..POLICY })).expect_err("refused");
    assert_eq!(revoked.reason, Denial::Revoked);
    assert_eq!(certifiable(&agent("a"), None).expect_err("refused").reason, Denial::Unknown);
}
