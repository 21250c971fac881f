//! Failures, lost results, and many gateways at once.

use std::collections::{BTreeSet, VecDeque};

use crds::ForwardGateway;
use operator_core::{
    ObjectKey,
    desired::{ca::Trusted, gateway::Desired},
    schedule::{
        Dated, Effect, TermNumber,
        children::{Applied, Ended, Gateways, Marks},
    },
    world::{child::ChildKind, objects::Object},
};
use serde_json::json;

use super::{Desk, children, fleets};
use crate::scene::{child, condition_of, deployment, gateway_of, key, ms, pair, unscaled, writes};

fn failed(why: &str, is_new: bool) -> Ended {
    Ended::Failed { why: why.to_owned(), is_new }
}

/// Applying fails now, and again at each of these times, when it is due and not before.
fn fails_at(desk: &mut Desk, now: u64, times: &[u64]) {
    let effects = desk.at(now);
    desk.fail(&effects, "conflict", now);
    for at in times {
        assert!(desk.at(at - 1).is_empty(), "nothing is due before {at}");
        let effects = desk.at(*at);
        desk.fail(&effects, "conflict", *at);
    }
}

/// A fleet that was applied in an earlier term, and whose status says so, at the start of a term.
fn of_an_earlier_term() -> Desk {
    let mut desk = Desk::new();
    desk.see(deployment(2, 1));
    let effects = desk.at(0);
    desk.succeed(&effects, 0);
    let effects = desk.at(0);
    assert_eq!(condition_of(&writes(&effects)[0], "Programmed"), pair("True", "Programmed"));
    desk.show(&effects);
    desk.gateways = Gateways::new(fleets());
    desk.gateways.touch(&key("edge"));
    desk
}

#[test]
fn failures_are_tried_again_after_a_pause_that_grows_from_5_s_to_5_min() {
    let mut desk = Desk::new();
    let effects = desk.at(1000);
    assert_eq!(desk.fail(&effects, "forbidden", 1000), failed("forbidden", true));
    let effects = desk.at(1000);
    assert_eq!((effects.len(), condition_of(&writes(&effects)[0], "Programmed")), (1, pair("False", "ChildrenFailed")));
    desk.show(&effects);
    let mut now = 1000;
    for pause in [5, 10, 20, 40, 80, 160, 300, 300, 300] {
        now += pause * 1000;
        assert!(desk.at(now - 1).is_empty(), "the pause is {pause} s");
        let effects = desk.at(now);
        assert_eq!(desk.fail(&effects, "forbidden", now), failed("forbidden", false));
    }
    let effects = desk.at(now + 300_000);
    assert_eq!(desk.fail(&effects, "quota", now + 300_000), failed("quota", true), "another failure");
}

#[test]
fn a_success_ends_the_growth_of_pauses() {
    let mut desk = Desk::applied_at(1000);
    desk.trusted.signing = "B;".to_owned();
    desk.gateways.touch(&key("edge"));
    fails_at(&mut desk, 2500, &[7500]);
    let effects = desk.at(17_500);
    assert_eq!(desk.succeed(&effects, 17_500), Ended::Applied);
    desk.trusted.signing = "C;".to_owned();
    desk.gateways.touch(&key("edge"));
    let effects = desk.at(18_000);
    assert_eq!(desk.fail(&effects, "conflict", 18_000), failed("conflict", true));
    assert!(desk.at(22_999).is_empty());
    children(&desk.at(23_000));
}

#[test]
fn what_failed_is_tried_again_after_5_s_once_the_gateway_or_a_child_is_another() {
    let mut desk = Desk::new();
    fails_at(&mut desk, 0, &[]);
    let effects = desk.at(0);
    desk.show(&effects);
    assert!(desk.at(4999).is_empty());
    fails_at(&mut desk, 5000, &[15_000]);
    desk.trusted.signing = "B;".to_owned();
    desk.gateways.touch(&key("edge"));
    assert!(desk.at(19_999).is_empty());
    fails_at(&mut desk, 20_000, &[]);
    desk.see(child(ChildKind::Service, "other"));
    assert!(desk.at(24_999).is_empty());
    fails_at(&mut desk, 25_000, &[]);
    desk.see(deployment(5, 5));
    let effects = desk.at(26_000);
    desk.show(&effects);
    assert!(desk.at(29_999).is_empty());
    fails_at(&mut desk, 30_000, &[]);
    desk.see(deployment(6, 5));
    let effects = desk.at(31_500);
    assert_eq!((effects.len(), writes(&effects).len()), (1, 1), "how many pods there are means nothing");
    desk.show(&effects);
    assert!(desk.at(35_000).is_empty());
}

// C8
#[test]
fn a_fleet_that_was_applied_before_keeps_its_status_for_30_s_of_failures() {
    let mut desk = Desk::applied_at(1000);
    desk.trusted.signing = "B;".to_owned();
    desk.gateways.touch(&key("edge"));
    fails_at(&mut desk, 10_000, &[15_000, 25_000]);
    assert!(desk.at(39_999).is_empty());
    let effects = desk.at(40_000);
    assert_eq!((effects.len(), condition_of(&writes(&effects)[0], "Programmed")), (1, pair("False", "ChildrenFailed")));
    assert_eq!(condition_of(&writes(&effects)[0], "Stalled"), pair("True", "ChildrenFailed"));
    desk.show(&effects);
    let effects = desk.at(45_000);
    assert_eq!(desk.succeed(&effects, 45_000), Ended::Applied);
    let effects = desk.at(45_000);
    assert_eq!(condition_of(&writes(&effects)[0], "Programmed"), pair("Unknown", "NoProxies"), "the failure is over");
    assert_eq!(condition_of(&writes(&effects)[0], "Stalled"), pair("", ""));
}

#[test]
fn a_failure_that_is_over_within_30_s_is_never_told() {
    let mut desk = Desk::applied_at(1000);
    desk.trusted.signing = "B;".to_owned();
    desk.gateways.touch(&key("edge"));
    fails_at(&mut desk, 10_000, &[]);
    let effects = desk.at(15_000);
    desk.succeed(&effects, 15_000);
    assert!(desk.at(15_000).is_empty() && desk.at(40_000).is_empty());
}

#[test]
fn a_fleet_of_an_earlier_term_keeps_its_status_for_30_s_of_failures() {
    let mut desk = of_an_earlier_term();
    fails_at(&mut desk, 10_000, &[15_000, 25_000]);
    assert!(desk.at(39_999).is_empty());
    let effects = desk.at(40_000);
    assert_eq!((effects.len(), condition_of(&writes(&effects)[0], "Ready")), (1, pair("False", "ChildrenFailed")));
}

#[test]
fn a_new_generation_that_cannot_be_applied_is_pending_for_30_s_and_then_failed() {
    let mut desk = Desk::applied_at(1000);
    desk.see(gateway_of(&json!({"replicas": 3}), 2));
    fails_at(&mut desk, 2500, &[]);
    let effects = desk.at(2500);
    assert_eq!((effects.len(), condition_of(&writes(&effects)[0], "Programmed")), (1, pair("Unknown", "Pending")));
    assert_eq!(condition_of(&writes(&effects)[0], "Reconciling"), pair("True", "Pending"));
    desk.show(&effects);
    assert!(desk.at(7499).is_empty());
    fails_at(&mut desk, 7500, &[17_500]);
    assert!(desk.at(32_499).is_empty());
    assert_eq!(condition_of(&writes(&desk.at(32_500))[0], "Programmed"), pair("False", "ChildrenFailed"));
}

// C7
#[test]
fn an_attempt_without_a_result_has_failed_after_60_s() {
    let mut desk = Desk::new();
    let lost = desk.at(1000);
    children(&lost);
    assert!(desk.at(60_999).is_empty());
    let effects = desk.at(61_000);
    assert_eq!((effects.len(), condition_of(&writes(&effects)[0], "Programmed")), (1, pair("False", "ChildrenFailed")));
    desk.show(&effects);
    assert_eq!(desk.succeed(&lost, 62_000), Ended::Outdated, "a result that comes late");
    assert!(desk.at(65_999).is_empty());
    let effects = desk.at(66_000);
    assert_eq!(desk.succeed(&lost, 66_250), Ended::Outdated, "of the attempt before");
    assert!(desk.at(66_250).is_empty(), "the second attempt is under way still");
    assert_eq!(desk.succeed(&effects, 66_500), Ended::Applied);
}

#[test]
fn a_result_counts_once() {
    let mut desk = Desk::new();
    let effects = desk.at(0);
    assert_eq!(desk.succeed(&effects, 250), Ended::Applied);
    assert_eq!(desk.fail(&effects, "conflict", 500), Ended::Outdated);
}

#[test]
fn a_result_of_another_term_means_nothing() {
    let first = TermNumber::default().following();
    let of = |term: TermNumber| Dated { term, result: 7 };
    assert_eq!(of(first).within(first), Some(7));
    assert_eq!(of(first).within(first.following()), None, "this replica lost the Lease");
    assert_eq!(of(first).within(first.following().following()), None, "and got it back");
    assert_eq!(of(first.following()).within(first), None);
}

fn named(name: &str) -> Object {
    let metadata = json!({"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1});
    let gateway: ForwardGateway = serde_json::from_value(json!({"metadata": metadata, "spec": {}})).expect("a gateway");
    Object::Gateway(key(name), Box::new(Ok(gateway)))
}

/// A desk with this many gateways, all of which were touched.
fn crowd(count: usize) -> Desk {
    let mut desk = Desk::new();
    (1..count).for_each(|at| desk.see(named(&format!("g{at:02}"))));
    desk
}

/// The children that are applied.
fn begun(effects: &[Effect]) -> Vec<Desired> {
    let desired = |effect: &Effect| match effect {
        Effect::ApplyChildren(desired) => Some((**desired).clone()),
        _ => None,
    };
    effects.iter().filter_map(desired).collect()
}

fn succeed(desk: &mut Desk, desired: &Desired, millis: u64) {
    let applied = Applied { key: desired.key.clone(), attempt: desired.attempt, result: Ok(Marks::new()) };
    assert_eq!(desk.gateways.applied(applied, ms(millis)), Ended::Applied);
}

// C8
#[test]
fn a_hundred_gateways_are_applied_sixteen_at_a_time() {
    let mut desk = crowd(100);
    let mut running: VecDeque<Desired> = begun(&desk.at(0)).into();
    assert_eq!(running.len(), 16);
    assert!(desk.at(250).is_empty(), "the others wait, and no status mentions them yet");
    let (mut applied, mut now) = (BTreeSet::new(), 250);
    while let Some(desired) = running.pop_front() {
        now += 10;
        succeed(&mut desk, &desired, now);
        assert!(applied.insert(desired.key), "no gateway has two turns");
        running.extend(begun(&desk.at(now)));
        assert_eq!(running.len(), 16_usize.min(100 - applied.len()));
    }
    assert_eq!(applied.len(), 100);
}

#[test]
fn a_gateway_that_waits_has_its_turn_before_those_that_had_theirs() {
    let mut desk = crowd(17);
    let first = begun(&desk.at(0));
    for desired in &first {
        succeed(&mut desk, desired, 250);
    }
    desk.trusted = Trusted { bundle: "B;".to_owned(), signing: "B;".to_owned(), since: 0 };
    let view = desk.scene.view();
    let second = begun(&desk.gateways.tick(&view, &desk.trusted, true, &unscaled, ms(250)));
    assert_eq!(second.len(), 16);
    let keys = |all: &[Desired]| -> BTreeSet<ObjectKey> { all.iter().map(|desired| desired.key.clone()).collect() };
    assert!(!keys(&first).contains(&key("g16")) && keys(&second).contains(&key("g16")));
}

#[test]
fn a_gateway_of_an_earlier_term_that_waits_for_its_turn_keeps_its_status() {
    let mut desk = of_an_earlier_term();
    // These names come first.
    (0..16).for_each(|at| desk.see(named(&format!("a{at:02}"))));
    let effects = desk.at(10_000);
    assert_eq!((effects.len(), begun(&effects).len()), (16, 16));
    assert!(begun(&effects).iter().all(|desired| desired.key != key("edge")));
}

#[test]
fn a_fleet_that_was_applied_and_waits_for_its_turn_reports_its_new_generation_as_pending() {
    let mut desk = Desk::applied_at(1000);
    // These names come first.
    (0..16).for_each(|at| desk.see(named(&format!("a{at:02}"))));
    desk.see(gateway_of(&json!({"replicas": 3}), 2));
    let effects = desk.at(10_000);
    assert_eq!((begun(&effects).len(), writes(&effects).len()), (16, 1), "no status of a fleet that is applied now");
    assert!(begun(&effects).iter().all(|desired| desired.key != key("edge")));
    assert_eq!(condition_of(&writes(&effects)[0], "Programmed"), pair("Unknown", "Pending"));
}

#[test]
fn what_changes_during_an_attempt_without_a_result_is_told_once_the_attempt_is_given_up() {
    let mut desk = Desk::new();
    desk.see(deployment(2, 1));
    fails_at(&mut desk, 0, &[]);
    let effects = desk.at(0);
    desk.show(&effects);
    children(&desk.at(5000));
    desk.see(deployment(3, 1));
    assert!(desk.at(64_999).is_empty());
    let effects = desk.at(65_000);
    assert_eq!((effects.len(), &writes(&effects)[0].status["replicas"]), (1, &json!(3)));
}
