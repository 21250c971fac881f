//! Two sessions and a link that is cut at any byte: what is read is what was written, and each stream
//! ends as its writer ended it.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod pair;

use std::time::Duration;

use pair::{Pair, Step};
use proptest::prelude::*;
use tunnel_core::Limits;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = any::<bool>();
    let stream = 0usize..6;
    let step = prop_oneof![
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
    ];
    proptest::collection::vec(step, 1..250)
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
