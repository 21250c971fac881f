//! What the roots of gateways have to do with each other.

use operator_core::enrolment::Failing;

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
