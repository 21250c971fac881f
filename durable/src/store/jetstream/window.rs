//! Messages of a stream that were read and are not acknowledged, in their order.

use std::collections::VecDeque;

use crate::{Kept, ReadBound, ReadMessages};

/// Some messages, from the cursor on. Each has a way `W` on which the server hears that it is acknowledged.
#[derive(Debug)]
pub(super) struct Window<W> {
    held: VecDeque<(Kept, W)>,
    /// Bytes of the held messages.
    bytes: usize,
    /// The first message that is not acknowledged.
    cursor: u64,
    /// The number after the last message that was read.
    end: u64,
}

/// What became of a message that the server gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Given<W> {
    /// It is held, and so many before it are missing: the server has dropped them.
    New {
        /// How many.
        missing: u64,
    },
    /// It is held already, and is acknowledged on the later way.
    Again,
    /// It is acknowledged, which the server has to hear once more.
    Acknowledged(W),
}

impl<W> Window<W> {
    pub(super) fn new(cursor: u64) -> Self {
        Self { held: VecDeque::new(), bytes: 0, cursor, end: cursor }
    }

    pub(super) const fn cursor(&self) -> u64 {
        self.cursor
    }

    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// How many messages are held, and bytes of them.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.held.len(), self.bytes)
    }

    /// When the oldest message was received.
    pub(super) fn oldest_received_millis(&self) -> Option<u64> {
        self.held.front().map(|(kept, _)| kept.received_millis)
    }

    /// Takes a message that the server gave.
    pub(super) fn give(&mut self, kept: Kept, way: W) -> Given<W> {
        if kept.number < self.cursor {
            return Given::Acknowledged(way);
        }
        if kept.number < self.end {
            let at = self.held.binary_search_by_key(&kept.number, |(held, _)| held.number);
            if let Some((_, earlier)) = at.ok().and_then(|at| self.held.get_mut(at)) {
                *earlier = way;
            }
            return Given::Again;
        }
        let missing = kept.number - self.end;
        self.end = kept.number + 1;
        self.bytes += kept.payload.len();
        self.held.push_back((kept, way));
        Given::New { missing }
    }

    /// Reads from this number on.
    pub(super) fn read(&self, from: u64, bound: ReadBound) -> ReadMessages {
        let mut read = ReadMessages { messages: Vec::new(), next: from };
        let mut bytes = 0;
        let start = self.held.partition_point(|(kept, _)| kept.number < from);
        for (kept, _) in self.held.iter().skip(start).take(bound.messages) {
            if bytes >= bound.bytes {
                break;
            }
            bytes += kept.payload.len();
            read.next = kept.number + 1;
            read.messages.push(kept.clone());
        }
        read
    }

    /// The message of this number, if it is held.
    pub(super) fn find(&self, number: u64) -> Option<&Kept> {
        let at = self.held.binary_search_by_key(&number, |(kept, _)| kept.number).ok()?;
        self.held.get(at).map(|(kept, _)| kept)
    }

    /// Lets go of each message before `next`. Returns the ways on which the server hears of it.
    pub(super) fn acknowledge(&mut self, next: u64) -> Vec<W> {
        self.cursor = self.cursor.max(next.min(self.end));
        let passed = self.held.partition_point(|(kept, _)| kept.number < self.cursor);
        let (kept, ways): (Vec<Kept>, Vec<W>) = self.held.drain(..passed).unzip();
        self.bytes -= kept.iter().map(|kept| kept.payload.len()).sum::<usize>();
        ways
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: ReadBound = ReadBound { messages: 100, bytes: 100 };

    fn kept(number: u64) -> Kept {
        Kept { number, source: Vec::new(), received_millis: 10 * number, payload: vec![0; 4] }
    }

    /// A window with messages 3, 4 and 7, whose ways are 30, 40 and 70.
    fn window() -> Window<u64> {
        let mut window = Window::new(3);
        for (number, missing) in [(3, 0), (4, 0), (7, 2)] {
            assert_eq!(window.give(kept(number), 10 * number), Given::New { missing });
        }
        window
    }

    fn numbers(read: &ReadMessages) -> Vec<u64> {
        read.messages.iter().map(|kept| kept.number).collect()
    }

    #[test]
    fn messages_are_read_in_order_from_any_number_and_stay_until_they_are_acknowledged() {
        let mut window = window();
        for (from, expected, next) in [(3, vec![3, 4, 7], 8), (5, vec![7], 8), (8, vec![], 8)] {
            let read = window.read(from, ALL);
            assert_eq!((numbers(&read), read.next), (expected, next), "{from}");
        }
        let two = window.read(3, ReadBound { messages: 2, bytes: 100 });
        assert_eq!((numbers(&two), two.next), (vec![3, 4], 5));
        let few_bytes = window.read(3, ReadBound { messages: 9, bytes: 1 });
        assert_eq!(numbers(&few_bytes), [3], "the one that reaches the bytes");
        assert_eq!(window.acknowledge(5), [30, 40]);
        assert_eq!((window.held(), window.cursor(), window.end()), ((1, 4), 5, 8));
        assert_eq!((window.oldest_received_millis(), window.find(7)), (Some(70), Some(&kept(7))));
        assert_eq!(window.acknowledge(4), [0_u64; 0], "the cursor does not go back");
        assert_eq!((window.acknowledge(8), window.oldest_received_millis(), window.find(7)), (vec![70], None, None));
    }

    #[test]
    fn a_message_that_comes_again_is_held_once_and_acknowledged_on_the_later_way() {
        let mut window = window();
        assert_eq!(window.give(kept(4), 41), Given::Again);
        assert_eq!(numbers(&window.read(3, ALL)), [3, 4, 7]);
        assert_eq!(window.acknowledge(5), [30, 41]);
        assert_eq!(window.give(kept(4), 42), Given::Acknowledged(42));
        assert_eq!((numbers(&window.read(0, ALL)), window.cursor()), (vec![7], 5));
    }
}
