//! Children that another client changed or deleted.

use operator_core::{
    schedule::{
        Effect,
        children::{Ended, Marks},
    },
    world::{
        child::ChildKind,
        watched::{Kind, Seen},
    },
};

use super::{Desk, children};
use crate::scene::{child, forward, key, mark, web};

/// The children as they were applied, with this field in each.
fn marks(field: &str) -> Marks {
    ChildKind::ALL.map(|kind| (kind, mark(field))).into()
}

/// A fleet whose children were applied at 1 s, before the watches show that.
fn fresh() -> Desk {
    let mut desk = Desk::new();
    desk.scene.see(forward(web("web", 80, 1)));
    let effects = desk.at(1000);
    assert_eq!(desk.end(&effects, Ok(marks("ours")), 1000), Ended::Applied);
    let effects = desk.at(1000);
    desk.show(&effects);
    desk
}

/// The same fleet once the watches show the children.
fn settled() -> Desk {
    let mut desk = fresh();
    for kind in ChildKind::ALL {
        desk.see(child(kind, "ours"));
    }
    desk
}

fn delete(desk: &mut Desk, kind: ChildKind) {
    let touched = desk.scene.gone(kind.watch(), "edge").touched;
    touched.gateways.iter().for_each(|key| desk.gateways.touch(key));
}

/// Applying repairs this child.
fn repairs(desk: &mut Desk, effects: &[Effect], kind: ChildKind, millis: u64) {
    assert_eq!(desk.end(effects, Ok(marks("ours")), millis), Ended::Repaired(vec![kind]));
}

#[test]
fn children_that_nobody_changes_are_left_alone() {
    let mut desk = settled();
    assert!([2000, 6000, 20_000, 600_999].iter().all(|at| desk.at(*at).is_empty()));
}

// C8
#[test]
fn a_child_that_somebody_deleted_is_applied_again_at_once() {
    for kind in ChildKind::ALL {
        let mut desk = settled();
        assert!(desk.at(60_000).is_empty());
        delete(&mut desk, kind);
        let effects = desk.at(60_250);
        repairs(&mut desk, &effects, kind, 60_500);
        desk.see(child(kind, "ours"));
        assert!(desk.at(60_750).is_empty() && desk.at(100_000).is_empty(), "once: {kind:?}");
    }
}

#[test]
fn a_child_that_somebody_changed_is_applied_again_at_once() {
    for kind in ChildKind::ALL {
        let mut desk = settled();
        desk.see(child(kind, "theirs"));
        let effects = desk.at(60_000);
        repairs(&mut desk, &effects, kind, 60_250);
        desk.see(child(kind, "ours"));
        assert!(desk.at(60_500).is_empty() && desk.at(100_000).is_empty(), "once: {kind:?}");
    }
}

#[test]
fn children_that_were_changed_together_are_repaired_together() {
    let mut desk = settled();
    delete(&mut desk, ChildKind::Service);
    desk.see(child(ChildKind::NetworkPolicy, "theirs"));
    let effects = desk.at(60_000);
    let expected = Ended::Repaired(vec![ChildKind::NetworkPolicy, ChildKind::Service]);
    assert_eq!(desk.end(&effects, Ok(marks("ours")), 60_250), expected);
}

#[test]
fn a_child_that_was_never_applied_is_nobodys_drift() {
    let mut desk = Desk::new();
    let effects = desk.at(1000);
    let mut without = marks("ours");
    without.remove(&ChildKind::Service);
    desk.end(&effects, Ok(without), 1000);
    let effects = desk.at(1000);
    desk.show(&effects);
    ChildKind::ALL.iter().filter(|kind| **kind != ChildKind::Service).for_each(|kind| desk.see(child(*kind, "ours")));
    assert!(desk.at(60_000).is_empty(), "a gateway without listeners has no Service");
}

#[test]
fn watches_have_5_s_to_show_what_was_applied() {
    let mut desk = fresh();
    assert!(desk.at(5999).is_empty(), "they show what was before");
    for kind in ChildKind::ALL {
        desk.see(child(kind, "ours"));
    }
    assert!(desk.at(6000).is_empty(), "and then what was applied");
    let mut desk = fresh();
    assert!(desk.at(5999).is_empty());
    let effects = desk.at(6000);
    children(&effects);
}

#[test]
fn a_change_within_5_s_after_an_apply_is_repaired_then() {
    let mut desk = settled();
    delete(&mut desk, ChildKind::Service);
    assert!(desk.at(2000).is_empty() && desk.at(5999).is_empty());
    let effects = desk.at(6000);
    repairs(&mut desk, &effects, ChildKind::Service, 6000);
}

#[test]
fn somebody_who_changes_a_child_again_and_again_is_answered_ever_later() {
    let mut desk = settled();
    desk.see(child(ChildKind::Deployment, "theirs"));
    let effects = desk.at(10_000);
    repairs(&mut desk, &effects, ChildKind::Deployment, 10_000);
    let mut now = 10_000;
    for pause in [10, 20, 40, 80, 160, 300, 300] {
        now += pause * 1000;
        assert!(desk.at(now - 1).is_empty(), "the pause is {pause} s");
        let effects = desk.at(now);
        repairs(&mut desk, &effects, ChildKind::Deployment, now);
    }
    desk.see(child(ChildKind::Deployment, "ours"));
    assert!(desk.at(now + 599_999).is_empty(), "they gave up");
    let effects = desk.at(now + 600_000);
    assert_eq!(desk.end(&effects, Ok(marks("ours")), now + 600_000), Ended::Applied, "a resync");
    desk.see(child(ChildKind::Deployment, "theirs"));
    assert!(desk.at(now + 604_999).is_empty());
    let effects = desk.at(now + 605_000);
    repairs(&mut desk, &effects, ChildKind::Deployment, now + 605_000);
}

#[test]
fn a_fight_over_one_child_delays_the_repair_of_no_other() {
    let mut desk = settled();
    desk.see(child(ChildKind::Deployment, "theirs"));
    for (at, next) in [(10_000, 20_000), (20_000, 40_000)] {
        let effects = desk.at(at);
        repairs(&mut desk, &effects, ChildKind::Deployment, at);
        assert!(desk.at(next - 1).is_empty());
    }
    delete(&mut desk, ChildKind::Service);
    let effects = desk.at(39_999);
    let both = Ended::Repaired(vec![ChildKind::Deployment, ChildKind::Service]);
    assert_eq!(desk.end(&effects, Ok(marks("ours")), 39_999), both);
}

#[test]
fn a_new_listener_does_not_wait_for_the_pause_between_repairs() {
    let mut desk = settled();
    delete(&mut desk, ChildKind::Service);
    let effects = desk.at(10_000);
    repairs(&mut desk, &effects, ChildKind::Service, 10_000);
    desk.see(child(ChildKind::Service, "ours"));
    desk.scene.see(forward(web("other", 81, 1)));
    desk.gateways.listeners(&key("edge"));
    let effects = desk.at(10_250);
    assert_eq!(desk.end(&effects, Ok(marks("ours")), 10_250), Ended::Applied);
}

#[test]
fn a_watch_that_has_listed_nothing_yet_shows_no_drift() {
    let mut desk = Desk::new();
    desk.scene.take(Kind::Budgets, Seen::Restarted);
    let effects = desk.at(1000);
    desk.end(&effects, Ok(marks("ours")), 1000);
    let effects = desk.at(1000);
    desk.show(&effects);
    let others = ChildKind::ALL.into_iter().filter(|kind| *kind != ChildKind::PodDisruptionBudget);
    others.for_each(|kind| desk.see(child(kind, "ours")));
    assert!(desk.at(60_000).is_empty());
    desk.scene.take(Kind::Budgets, Seen::Synced);
    desk.gateways.touch(&key("edge"));
    let effects = desk.at(60_250);
    repairs(&mut desk, &effects, ChildKind::PodDisruptionBudget, 60_250);
}

#[test]
fn a_repair_that_fails_is_tried_again_like_every_failure() {
    let mut desk = settled();
    delete(&mut desk, ChildKind::Service);
    let effects = desk.at(10_000);
    desk.fail(&effects, "conflict", 10_000);
    assert!(desk.at(14_999).is_empty(), "and its status stays");
    let effects = desk.at(15_000);
    assert_eq!(desk.end(&effects, Ok(marks("ours")), 15_000), Ended::Applied);
}

#[test]
fn a_fight_over_a_child_is_over_once_the_child_needed_no_repair_for_600_s() {
    let mut desk = settled();
    desk.see(child(ChildKind::Deployment, "theirs"));
    let effects = desk.at(10_000);
    repairs(&mut desk, &effects, ChildKind::Deployment, 10_000);
    desk.see(child(ChildKind::Deployment, "ours"));
    desk.scene.see(forward(web("other", 81, 1)));
    desk.gateways.listeners(&key("edge"));
    let effects = desk.at(605_000);
    assert_eq!(desk.end(&effects, Ok(marks("ours")), 605_000), Ended::Applied);
    desk.see(child(ChildKind::Deployment, "theirs"));
    let effects = desk.at(610_000);
    repairs(&mut desk, &effects, ChildKind::Deployment, 610_000);
}
