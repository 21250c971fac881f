//! Streams of one session share its memory: those that were first leave room to those that come later.

#![allow(clippy::expect_used, reason = "tests")]

mod wire;

use std::time::Duration;

use tunnel_core::{Kind, Limits, Session, StreamId};
use wire::{EPOCH, exchange, frame, give, ms, pair, stream, take, tcp};

const MIB: u64 = 1024 * 1024;
const ROUND_TRIP: u64 = 100;
/// Round trips in which any window reaches its size.
const LONG: usize = 40;

/// Two ends a round trip of [`ROUND_TRIP`] apart. Bytes go from the first to the second.
struct Far {
    ends: [Session; 2],
    now: Duration,
}

impl Far {
    fn new(limits: &Limits) -> Self {
        let mut ends = pair(limits);
        take(&mut ends[1], EPOCH, Duration::ZERO);
        give(&mut ends[1], EPOCH, &frame(Kind::Pong, 0, 0, 0, &[]), ms(ROUND_TRIP));
        assert_eq!(ends[1].round_trip(), ms(ROUND_TRIP));
        Self { ends, now: ms(ROUND_TRIP) }
    }

    fn stream(&mut self) -> StreamId {
        stream(&mut self.ends, tcp(), self.now)
    }

    /// The writer of each stream sends all that it may, and the bytes stand at the other end a round trip later.
    fn fill(&mut self, ids: &[StreamId]) {
        for id in ids {
            let room = self.ends[0].room(*id);
            assert_eq!(self.ends[0].write(*id, &vec![1; room]), room);
        }
        self.now += ms(ROUND_TRIP);
        exchange(&mut self.ends, EPOCH, self.now);
    }

    /// The reader takes all that stands, at once, so that the next fill is a whole window.
    fn read(&mut self, id: StreamId) -> u64 {
        let count = self.ends[1].pieces(id).map(<[u8]>::len).sum();
        self.ends[1].consume(id, count, self.now);
        count as u64
    }

    /// Bytes of each stream that are read in the last of [`LONG`] round trips.
    fn moved(&mut self, ids: &[StreamId]) -> Vec<u64> {
        let mut moved = Vec::new();
        for _ in 0..LONG {
            self.fill(ids);
            moved = ids.iter().map(|id| self.read(*id)).collect();
            exchange(&mut self.ends, EPOCH, self.now);
        }
        moved
    }
}

#[test]
fn beside_four_quick_readers_that_have_stopped_a_fifth_is_as_quick_as_alone() {
    let limits = Limits::default();
    let mut far = Far::new(&limits);
    let id = far.stream();
    let alone = far.moved(&[id])[0];
    assert_eq!(alone, limits.window);
    let mut far = Far::new(&limits);
    let first: Vec<StreamId> = (0..4).map(|_| far.stream()).collect();
    assert_eq!(far.moved(&first), [alone; 4]);
    // Two of them have all of their bytes unread, and two have all of their credit unused.
    far.fill(&first[..2]);
    let fifth = far.stream();
    let beside = far.moved(&[fifth])[0];
    assert!(beside * 100 >= alone * 95, "{beside} of {alone}");
}

#[test]
fn each_further_reader_finds_half_of_what_is_left_by_those_that_have_stopped() {
    let limits = Limits { memory: 16 * MIB, ..Limits::default() };
    let mut far = Far::new(&limits);
    let mut left = limits.memory / 2;
    for _ in 0..6 {
        let id = far.stream();
        let moved = far.moved(&[id])[0];
        assert_eq!(moved, left / 2);
        far.fill(&[id]);
        left -= moved;
    }
    assert!(far.ends[1].memory().0 <= limits.memory / 2);
}

#[test]
fn a_window_that_is_used_shrinks_until_a_newcomer_has_as_much() {
    let mut far = Far::new(&Limits { memory: 8 * MIB, ..Limits::default() });
    let first = far.stream();
    let alone = far.moved(&[first])[0];
    assert_eq!(alone, 2 * MIB, "as much as is free");
    let second = far.stream();
    let moved = far.moved(&[first, second]);
    // Each has a third of the half that windows share, as much as is free.
    assert!(moved.iter().all(|moved| moved.abs_diff(4 * MIB / 3) < MIB / 16), "{moved:?}");
    assert!(far.ends[1].memory().0 <= 4 * MIB);
}
