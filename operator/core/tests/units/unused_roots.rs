//! Which roots of gateways are removed, and when the leader looks for them.

use operator_core::{
    enrolment::{Looked, Unused},
    schedule::{Effect, unused_roots::UnusedRoots},
};
use serde_json::json;

use crate::scene::{Scene, gateway, ms};

const DAY: u64 = 24 * 3600;
const NOW: u64 = 1_800_000_000;
const KEYS: [&str; 2] = ["team.uid-a.pem", "team.uid-b.pem"];

/// A look at both roots, of which those of the gateways `used` are in use.
fn look(unused: &Unused, used: &[&str], now: u64) -> Option<Looked> {
    unused.look(KEYS.into_iter(), |gateway_uid| used.contains(&gateway_uid), now)
}

/// What is recorded after looks on these days, none of which removes a root. `uid-b` is in use.
fn noted(days: impl Iterator<Item = u64>) -> Unused {
    let mut unused = Unused::default();
    for day in days {
        let looked = look(&unused, &["uid-b"], NOW + day * DAY).expect("something to note");
        assert!(looked.gone.is_empty(), "day {day}: {looked:?}");
        unused = looked.unused;
    }
    unused
}

#[test]
fn a_root_goes_once_nothing_that_it_signed_counts_any_more() {
    let unused = noted(0..=9);
    let looked = look(&unused, &["uid-b"], NOW + 10 * DAY).expect("something to note");
    assert_eq!(looked.gone, [KEYS[0]]);
    assert_eq!(Unused::parse(Some(&looked.unused.encode())), looked.unused);
}

#[test]
fn a_root_that_is_used_again_begins_anew() {
    let unused = noted(0..=9);
    let before_use = unused.without(KEYS[0]).expect("it was noted");
    assert_eq!(before_use.without(KEYS[0]), None);
    assert_eq!(unused.without(KEYS[1]), None, "it was in use all the time");
    let looked = look(&before_use, &["uid-b"], NOW + 10 * DAY).expect("something to note");
    assert!(looked.gone.is_empty() && looked.unused.without(KEYS[0]).is_some());
    let seen = look(&unused, &["uid-a", "uid-b"], NOW + 10 * DAY).expect("something to note");
    assert!(seen.gone.is_empty());
    assert_eq!(seen.unused.without(KEYS[0]), None);
}

#[test]
fn after_a_pause_a_jump_of_the_clock_or_a_restore_all_roots_begin_anew() {
    let unused = noted(0..=9);
    for later in [NOW + 12 * DAY, NOW + 400 * DAY, NOW - DAY] {
        let looked = look(&unused, &["uid-b"], later).expect("something to note");
        assert!(looked.gone.is_empty(), "{looked:?}");
        let next = look(&looked.unused, &["uid-b"], later + 2 * DAY).expect("something to note");
        assert!(next.gone.is_empty(), "it begins at the look after the pause: {next:?}");
    }
    for damaged in [None, Some(""), Some("[]"), Some("{\"since\": {\"team.uid-a.pem\": 1}}")] {
        let looked = look(&Unused::parse(damaged), &["uid-b"], NOW).expect("something to note");
        assert!(looked.gone.is_empty(), "{damaged:?}: {looked:?}");
    }
}

#[test]
fn nothing_is_noted_while_all_roots_are_in_use_or_more_than_once_a_day() {
    let used = ["uid-a", "uid-b"];
    assert_eq!(look(&Unused::default(), &used, NOW), None);
    let unused = noted(0..=1);
    assert_eq!(look(&unused, &["uid-b"], NOW + 2 * DAY - 1), None, "it is too early");
    let none = look(&unused, &used, NOW + 2 * DAY).expect("the note goes").unused;
    assert_eq!(look(&none, &used, NOW + 3 * DAY), None);
}

#[test]
fn what_is_no_root_stays_in_the_secret() {
    for key in ["ca.crt", "team..pem", "pem", "team.uid-a"] {
        assert_eq!(Unused::default().look([key].into_iter(), |_| false, NOW), None, "{key}");
    }
}

#[test]
fn the_leader_looks_each_hour_once_gateways_had_time_to_use_their_roots() {
    const HOUR: u64 = 3_600_000;
    let mut scene = Scene::new();
    let mut roots = UnusedRoots::new(ms(5));
    let mut looks =
        |scene: &Scene, at| matches!(roots.tick(&scene.cache.world, ms(at)), Some(Effect::RemoveUnusedRoots));
    scene.see(gateway(&json!({"tunnels": {}})));
    assert!(!looks(&scene, HOUR), "a term begins");
    assert!(looks(&scene, HOUR + 5) && !looks(&scene, HOUR + 6));
    assert!(looks(&scene, 2 * HOUR + 5));
    scene.see(gateway(&json!({})));
    assert!(!looks(&scene, 3 * HOUR + 5), "nobody needs a place");
}
