//! Leader election by a Lease, with a virtual clock.

use std::time::Duration;

use operator_core::schedule::election::{DURATION, Observed, Standing, Step};

use crate::scene::ms;

fn standing() -> Standing {
    Standing::new("a".to_owned())
}

/// The Lease in this version, held by this replica for twelve seconds.
fn lease(version: u64, holder: &str) -> Observed {
    Observed { version: Some(version.to_string()), holder: holder.to_owned(), duration: Some(DURATION) }
}

/// A replica that has created the Lease in version 10 with a try that began at `asked`.
fn leader(asked: Duration) -> Standing {
    let mut standing = standing();
    assert_eq!(standing.read(None, asked), Step::Create);
    assert!(standing.wrote(Some("10"), asked), "a term begins");
    standing
}

#[test]
fn whoever_creates_the_lease_leads_for_eight_seconds_from_the_time_of_the_request() {
    let mut standing = leader(ms(1000));
    assert!(standing.leads(ms(1000)) && standing.leads(ms(8999)));
    assert!(!standing.leads(ms(9000)));
    assert_eq!(standing.rest(ms(8999)), ms(1), "no pause outlasts the deadline");
    assert_eq!(standing.rest(ms(9000)), ms(2000));
    assert_eq!(standing.patience(ms(9000)), ms(4000), "the term is over: a try may take its time again");
    assert_eq!(standing.read(Some(&lease(10, "a")), ms(9500)), Step::Acquire, "the next term is another one");
}

#[test]
fn a_leader_renews_every_two_seconds_and_no_try_outlasts_its_deadline() {
    let mut standing = leader(ms(0));
    for turn in 1..20 {
        let now = ms(turn * 2000);
        assert_eq!(standing.rest(now), ms(2000));
        assert_eq!(standing.patience(now), ms(4000));
        assert_eq!(standing.read(Some(&lease(9 + turn, "a")), now), Step::Renew);
        assert!(!standing.wrote(Some(&(10 + turn).to_string()), now), "the term continues");
    }
    assert_eq!(standing.patience(ms(38_000 + 5000)), ms(3000));
    assert_eq!(standing.rest(ms(38_000 + 7000)), ms(1000));
}

#[test]
fn a_standby_waits_in_silence_while_the_lease_changes() {
    let mut standing = standing();
    for turn in 0..100 {
        let now = ms(turn * 2000);
        assert_eq!(standing.read(Some(&lease(10 + turn, "b")), now), Step::Wait);
        assert!(!standing.leads(now));
        assert_eq!(standing.rest(now), ms(2000));
    }
}

#[test]
fn a_lease_lapses_once_it_has_not_changed_for_its_duration() {
    let mut standing = standing();
    assert_eq!(standing.read(Some(&lease(10, "b")), ms(500)), Step::Wait);
    assert_eq!(standing.read(Some(&lease(11, "b")), ms(2500)), Step::Wait, "its holder is alive");
    assert_eq!(standing.read(Some(&lease(11, "b")), ms(14_500)), Step::Wait);
    assert_eq!(standing.read(Some(&lease(11, "b")), ms(14_501)), Step::Acquire);
    assert!(standing.wrote(Some("12"), ms(14_501)));
}

#[test]
fn the_holder_of_a_lease_says_how_long_it_is_valid_within_reason() {
    let wait = |duration: Option<Duration>| {
        let mut standing = standing();
        let lease = Observed { duration, ..lease(10, "b") };
        let lapsed = |at: &u64| {
            let step = standing.read(Some(&lease), ms(*at * 1000));
            step == Step::Acquire
        };
        (0..100).find(lapsed)
    };
    assert_eq!(wait(Some(ms(1000))), Some(2));
    assert_eq!(wait(None), Some(13));
    assert_eq!(wait(Some(Duration::from_secs(1_000_000))), Some(49), "no Lease is for ever");
}

#[test]
fn a_lease_that_was_released_or_is_missing_is_taken_at_once() {
    let mut standing = standing();
    assert_eq!(standing.read(Some(&lease(10, "b")), ms(0)), Step::Wait);
    assert_eq!(standing.read(Some(&lease(11, "")), ms(1)), Step::Acquire);
    assert_eq!(standing.read(None, ms(2)), Step::Create);
}

#[test]
fn a_leader_whose_lease_was_taken_or_deleted_leads_no_longer() {
    let mut taken = leader(ms(0));
    assert_eq!(taken.read(Some(&lease(11, "b")), ms(2000)), Step::Wait);
    assert!(!taken.leads(ms(2000)));
    let mut deleted = leader(ms(0));
    assert_eq!(deleted.read(None, ms(2000)), Step::Create);
    assert!(!deleted.leads(ms(2000)));
    assert!(deleted.wrote(Some("12"), ms(2000)), "another term begins");
}

#[test]
fn a_write_that_another_replica_came_before_changes_nothing_until_the_deadline() {
    let mut standing = leader(ms(0));
    // The API server answers 409, and the replica reads again.
    assert_eq!(standing.read(Some(&lease(10, "a")), ms(2000)), Step::Renew);
    assert_eq!(standing.rest(ms(2010)), ms(2000));
    assert!(standing.leads(ms(7999)));
    assert!(!standing.leads(ms(8000)));
}

#[test]
fn an_older_lease_than_before_means_that_the_store_was_set_back() {
    let mut standing = leader(ms(0));
    assert_eq!(standing.read(Some(&lease(9, "a")), ms(2000)), Step::SetBack);
    assert!(!standing.leads(ms(2000)));
    let mut standby = self::standing();
    assert_eq!(standby.read(Some(&lease(20, "b")), ms(0)), Step::Wait);
    assert_eq!(standby.read(Some(&lease(20, "b")), ms(1)), Step::Wait);
    assert_eq!(standby.read(Some(&lease(19, "b")), ms(2)), Step::SetBack);
    let mut opaque = self::standing();
    let unnumbered = |version: &str| Observed { version: Some(version.to_owned()), ..lease(0, "b") };
    assert_eq!(opaque.read(Some(&unnumbered("x9")), ms(0)), Step::Wait);
    assert_eq!(opaque.read(Some(&unnumbered("x8")), ms(1)), Step::Wait, "versions that are no numbers have no order");
}
