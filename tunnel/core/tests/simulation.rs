//! Two sessions and a link that is cut at any byte, for both ends or for one: what is read is what was written, and each
//! stream ends as its writer ended it.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod pair;

use std::time::Duration;

use pair::{Pair, Step};
use proptest::collection::vec;
use proptest::prelude::*;
use tunnel_core::Limits;

fn step() -> impl Strategy<Value = Step> {
    let end = any::<bool>();
    let stream = 0usize..6;
    prop_oneof![
        2 => end.prop_map(Step::Open),
        6 => (end, stream.clone(), 1usize..40_000).prop_map(|(end, stream, count)| Step::Write(end, stream, count)),
        1 => (end, stream.clone()).prop_map(|(end, stream)| Step::Finish(end, stream)),
        1 => (end, stream.clone()).prop_map(|(end, stream)| Step::Reset(end, stream)),
        6 => (end, stream, 1usize..40_000).prop_map(|(end, stream, count)| Step::Read(end, stream, count)),
        2 => end.prop_map(Step::Answer),
        1 => end.prop_map(Step::Refuse),
        10 => (end, 1usize..50_000).prop_map(|(end, count)| Step::Move(end, count)),
        1 => Just(Step::Cut),
        2 => Just(Step::Connect),
        3 => (1u64..400).prop_map(Step::Wait),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..250)
}

/// Steps of which some concern the carrier of one end only.
fn one_sided_steps() -> impl Strategy<Value = Vec<Step>> {
    let end = any::<bool>();
    let step = prop_oneof![20 => step(), 3 => end.prop_map(Step::Attach), 1 => end.prop_map(Step::Lose)];
    vec(step, 1..250)
}

fn limits() -> impl Strategy<Value = Limits> {
    (4usize..64, 1usize..32, 64u64..2048).prop_map(|(streams, unanswered, kibibytes)| Limits {
        streams,
        unanswered,
        memory: kibibytes * 1024,
        window: 256 * 1024,
        grace: Duration::from_secs(3600),
        ..Limits::default()
    })
}

proptest! {
    #[test]
    fn bytes_and_ends_arrive_whatever_is_cut(steps in steps(), limits in limits()) {
        let mut pair = Pair::new(&limits);
        for step in steps {
            pair.step(step);
        }
        pair.drain();
    }

    #[test]
    fn bytes_and_ends_arrive_whichever_end_loses_or_replaces_its_carrier_alone(
        steps in one_sided_steps(),
        limits in limits(),
    ) {
        let mut pair = Pair::new(&limits);
        for step in steps {
            pair.step(step);
        }
        pair.drain();
    }
}

/// An end writes and sends, and both ends read what they have.
fn exchange(pair: &mut Pair) {
    for end in [false, true] {
        pair.step(Step::Write(end, 0, 10_000));
        pair.step(Step::Move(end, 8000));
        pair.step(Step::Answer(!end));
    }
    for end in [false, true] {
        pair.step(Step::Read(end, 0, 40_000));
    }
}

#[test]
fn a_carrier_that_one_end_has_alone_is_one_more_that_was_lost() {
    for first in [false, true] {
        let mut pair = Pair::new(&Limits::default());
        pair.step(Step::Connect);
        pair.step(Step::Open(true));
        for _ in 0..3 {
            exchange(&mut pair);
        }
        assert_eq!(pair.refused(), 0);
        // The other end still has the carrier before.
        pair.step(Step::Attach(first));
        exchange(&mut pair);
        let refused = pair.refused();
        assert!(refused > 0, "what comes over the carrier before is refused");
        // It attaches a carrier that this end has lost again.
        pair.step(Step::Lose(first));
        pair.step(Step::Attach(!first));
        exchange(&mut pair);
        assert!(pair.refused() > refused, "what comes over the lost carrier is refused");
        pair.drain();
    }
}

#[test]
fn a_carrier_may_be_cut_at_every_byte() {
    for cut in 0.. {
        let mut pair = Pair::new(&Limits::default());
        pair.step(Step::Connect);
        for end in [false, true] {
            pair.step(Step::Open(end));
            pair.step(Step::Write(end, 0, 200));
            pair.step(Step::Finish(end, 0));
        }
        let moved = pair.move_until(cut);
        pair.step(Step::Cut);
        pair.drain();
        if !moved {
            assert!(cut > 500, "both streams were cut at each of their bytes");
            return;
        }
    }
}
