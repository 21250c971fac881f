//! How the roots of gateways affect each other.

use std::time::Duration;

use operator_core::enrolment::{Failing, NoPlace, ROOTS, RootAge, place, root_key};

#[test]
fn a_root_is_read_again_after_a_minute_signs_unread_for_two_days_and_may_count_for_a_week() {
    let (minute, day) = (60, 24 * 3600);
    let at = |seconds: u64| {
        let age = RootAge(Duration::from_secs(seconds));
        (age.is_fresh(), age.is_recent(), age.may_count())
    };
    assert_eq!((at(minute - 1), at(minute)), ((true, true, true), (false, true, true)));
    assert_eq!((at(2 * day - 1), at(2 * day)), ((false, true, true), (false, false, true)));
    assert_eq!((at(7 * day - 1), at(7 * day)), ((false, false, true), (false, false, false)));
}

#[test]
fn a_gateway_that_cannot_be_signed_for_is_said_once_and_hides_no_other_one() {
    let mut failing = Failing::default();
    assert!(failing.failed("uid-a"));
    assert!(failing.failed("uid-b"), "another gateway");
    assert!(!failing.failed("uid-a") && !failing.failed("uid-b"), "said already");
    assert!(failing.signed("uid-a") && !failing.signed("uid-a"), "the end is said once as well");
    assert!(!failing.failed("uid-b"), "it fails on");
    assert!(failing.failed("uid-a"), "it fails again");
}

#[test]
fn failures_of_gateways_that_are_gone_take_a_bounded_place() {
    let mut failing = Failing::default();
    for at in 0..=512 {
        assert!(failing.failed(&format!("uid-{at}")));
    }
    assert!(failing.failed("uid-0"), "it was forgotten, and is said once more");
    assert!(!failing.failed("uid-512"));
}

#[test]
fn a_namespace_has_its_share_of_the_roots_and_the_secret_has_an_end() {
    let mut keys: Vec<String> = (0..3).map(|at| root_key("team", &format!("uid-{at}"))).collect();
    let room = |keys: &[String], namespace: &str| place(keys.iter().map(String::as_str), namespace, 3);
    assert_eq!(room(&keys[..2], "team"), Ok(()));
    assert_eq!(room(&keys, "team"), Err(NoPlace::Namespace));
    assert_eq!(room(&keys, "tea"), Ok(()), "another namespace");
    assert_eq!(room(&keys, "team-b"), Ok(()), "another namespace");
    keys.extend((3..ROOTS).map(|at| root_key(&format!("n{at}"), "uid")));
    assert_eq!(room(&keys[1..], "other"), Ok(()));
    assert_eq!(room(&keys, "other"), Err(NoPlace::Secret));
}
