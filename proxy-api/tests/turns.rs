//! The rate of each source.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::Range,
    time::Duration,
};

use proxy_api::doors::{Rate, Turns};

fn ip(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits((10 << 24) + number))
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_source_that_asks_too_often_is_refused_and_others_are_not() {
    let mut turns = Turns::new(Rate::per_second(10, 3));
    assert_eq!((0..5).filter(|_| turns.take(ip(1), ms(0))).count(), 3);
    assert!(turns.take(ip(2), ms(0)));
    assert!(!turns.take(ip(1), ms(99)) && turns.take(ip(1), ms(100)) && !turns.take(ip(1), ms(100)));
}

#[test]
fn requests_beyond_the_rate_wait_for_their_turn_in_order() {
    let mut turns = Turns::new(Rate::per_second(10, 2));
    let waits: Vec<Duration> = (0..5).map(|_| turns.wait(ip(1), ms(0))).collect();
    assert_eq!(waits, [ms(0), ms(0), ms(100), ms(200), ms(300)]);
    assert_eq!(turns.wait(ip(2), ms(0)), ms(0), "another source waits for nobody");
    assert_eq!(turns.wait(ip(1), ms(10_000)), ms(0));
}

#[test]
fn sources_are_forgotten_and_a_flood_of_them_keeps_no_newcomer_out() {
    let mut turns = Turns::new(Rate::per_second(1, 1));
    for number in 0..50_000 {
        assert!(turns.take(ip(number), ms(0)));
    }
    assert!(turns.sources() <= 16_384, "{}", turns.sources());
    assert!(!turns.take(ip(0), ms(0)), "those that are remembered stay bounded");
    assert!(turns.take(ip(60_000), ms(999)));
    assert_eq!(turns.sources(), 16_384, "nobody looks for sources to forget yet");
    assert!(turns.take(ip(60_000), ms(1_000)));
    assert_eq!(turns.sources(), 1);
}

#[test]
fn sources_to_forget_are_looked_for_once_the_number_of_all_has_doubled() {
    let mut turns = Turns::new(Rate::per_second(1, 1));
    let mut come = |numbers: Range<u32>, now: Duration| {
        for number in numbers {
            assert!(turns.take(ip(number), now));
        }
        turns.sources()
    };
    assert_eq!(come(0..65, ms(0)), 65, "all have asked a moment ago");
    assert_eq!(come(65..128, ms(10_000)), 128, "nobody looks yet");
    assert_eq!(come(128..129, ms(10_000)), 64, "those that asked long ago are forgotten");
}
