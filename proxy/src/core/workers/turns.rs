//! Turns of the streams of one worker. Between two polls of the reactor, where new connections and small messages wait,
//! streams move a bounded number of bytes together ([ADR 0113](../../../docs/adr/0113-bulk-streams-take-turns.md)).

use std::{collections::VecDeque, num::NonZeroU64};

/// Bytes that the streams of a worker move together between two polls of the reactor. A stream exceeds its part by the
/// copy that it had begun.
pub const TURN_BYTES: usize = 512 * 1024;

/// Which streams may move bytes, and which wait for the next turn, first come first served. `W` wakes a stream.
///
/// A stream waits once at a time, so the queue is as long as the worker has streams. Those that have ended are called
/// like others.
#[derive(Debug)]
pub struct Turns<W> {
    left: usize,
    /// Number of streams called since the start.
    called: u64,
    waiting: VecDeque<W>,
}

/// A place in the queue: how many streams are called up to this one, since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(NonZeroU64);

impl<W> Default for Turns<W> {
    fn default() -> Self {
        Self { left: TURN_BYTES, called: 0, waiting: VecDeque::new() }
    }
}

impl<W> Turns<W> {
    /// Whether the turn has bytes left.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.left > 0
    }

    /// Counts bytes that a stream has moved.
    pub fn moved(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// Puts a stream at the end of the queue.
    pub fn wait(&mut self, waiter: W) -> Place {
        let before = self.called + self.waiting.len() as u64;
        self.waiting.push_back(waiter);
        Place(NonZeroU64::MIN.saturating_add(before))
    }

    /// The stream that waits at this place. `None`: the stream was called, and may move bytes whatever is left.
    pub fn waiter(&mut self, place: Place) -> Option<&mut W> {
        let at = (place.0.get() - 1).checked_sub(self.called)?;
        self.waiting.get_mut(usize::try_from(at).ok()?)
    }

    /// Begins the next turn, after a poll of the reactor. Returns the one stream that is called: a pipe of 1 MiB moves
    /// more than a turn at once, and compared to copying 256 KiB a poll costs little.
    #[must_use]
    pub fn renew(&mut self) -> Option<W> {
        self.left = TURN_BYTES;
        let called = self.waiting.pop_front();
        self.called += u64::from(called.is_some());
        called
    }

    /// Whether no stream waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn streams_share_the_bytes_of_a_turn() {
        let mut turns = Turns::<()>::default();
        turns.moved(TURN_BYTES - 1);
        assert!(turns.has_room());
        turns.moved(TURN_BYTES);
        assert!(!turns.has_room(), "what a stream had begun counts, and is not owed");
        assert_eq!(turns.renew(), None);
        assert!(turns.has_room());
    }

    #[test]
    fn who_came_first_is_called_first() {
        let mut turns = Turns::default();
        let places: Vec<_> = (0..3).map(|stream| turns.wait(stream)).collect();
        assert_eq!(turns.renew(), Some(0));
        assert!(turns.waiter(places[0]).is_none());
        assert_eq!(turns.waiter(places[1]), Some(&mut 1));
        let again = turns.wait(0);
        assert_eq!(turns.renew(), Some(1));
        assert_eq!(turns.waiter(again), Some(&mut 0));
        assert_eq!([turns.renew(), turns.renew()], [Some(2), Some(0)]);
        assert!(turns.waiter(again).is_none() && turns.is_idle());
        assert_eq!(turns.renew(), None);
    }

    #[test]
    fn a_stream_that_came_in_between_does_not_move_others_back() {
        let mut turns = Turns::default();
        let first = turns.wait("first");
        turns.moved(TURN_BYTES);
        turns.wait("second");
        assert_eq!(turns.renew(), Some("first"));
        assert!(turns.waiter(first).is_none());
        turns.moved(TURN_BYTES);
        assert!(!turns.has_room(), "a task that was called need not ask");
        assert_eq!(turns.renew(), Some("second"));
    }

    proptest! {
        /// Streams wait, move bytes and end in any order. Each call is for the one that has waited longest, so that a
        /// stream behind `n` others is called after `n` calls, whoever comes later.
        #[test]
        fn one_stream_is_called_at_a_time_and_none_starves(
            steps in prop::collection::vec((0..5_u8, 0..6_usize, 0..=TURN_BYTES), 0..200),
        ) {
            let mut turns = Turns::<u64>::default();
            // The place of each waiting stream, and how many had waited before it.
            let mut places = [None::<(Place, u64)>; 6];
            let (mut waited, mut called, mut left) = (0_u64, 0_u64, TURN_BYTES);
            for (step, stream, bytes) in steps {
                match step {
                    // The stream ends. The queue is not told, and calls it like others.
                    0 => places[stream] = None,
                    1 => {
                        let next = (called < waited).then_some(called);
                        prop_assert_eq!(turns.renew(), next);
                        called += u64::from(next.is_some());
                        left = TURN_BYTES;
                    }
                    _ => {
                        let may_move = if let Some((place, before)) = places[stream] {
                            let found = turns.waiter(place).copied();
                            prop_assert_eq!(found, (before >= called).then_some(before));
                            found.is_none()
                        } else {
                            turns.has_room()
                        };
                        if may_move {
                            places[stream] = None;
                            turns.moved(bytes);
                            left = left.saturating_sub(bytes);
                        } else if places[stream].is_none() {
                            places[stream] = Some((turns.wait(waited), waited));
                            waited += 1;
                        }
                    }
                }
                prop_assert_eq!(turns.has_room(), left > 0);
                prop_assert_eq!(turns.is_idle(), called == waited);
            }
            let rest: Vec<u64> = std::iter::from_fn(|| turns.renew()).collect();
            prop_assert!(rest.into_iter().eq(called..waited), "all that wait are called, and then nobody");
        }
    }
}
