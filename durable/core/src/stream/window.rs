//! Messages of a stream that were read and are not acknowledged, in their order.

use std::collections::VecDeque;

use crate::keeper::{Figures, Kept, ReadBound, ReadMessages};

/// Messages that are held for the sink: no fewer than the longest batch over HTTP has.
pub const HELD: usize = 10_000;
/// No more messages are requested while this many bytes of them are held.
const HELD_BYTES: usize = 16 << 20;
/// Bytes that are requested at once, or those of the longest message if that may have more.
const ASKED_BYTES: usize = 2 << 20;

/// The held messages, from the cursor on. Each has a way `W` on which its acknowledgement goes to the server.
///
/// Messages have numbers of this process, which always go up, whatever happens to the stream and to its consumer: a
/// sender that waits for a number never waits in vain.
#[derive(Debug)]
pub struct Window<W> {
    held: VecDeque<(Kept, W)>,
    /// Bytes of the held messages.
    bytes: usize,
    /// The first message that is not acknowledged.
    cursor: u64,
    /// The number after the last message that was read.
    end: u64,
    /// The difference from sequences to numbers, modulo 2^64; `None`: the next message gets the number `end`.
    shift: Option<u64>,
}

/// The result for a message that the server gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Given<W> {
    /// The message is held. Messages before it may be missing: the server has dropped them.
    New {
        /// How many messages are missing.
        missing: u64,
    },
    /// The message was held already, and will be acknowledged on the later way.
    Again,
    /// The message was acknowledged already, which the server has to be told once more.
    Acknowledged(W),
}

/// The treatment of a message that the sink will never take.
#[derive(Debug, PartialEq, Eq)]
pub enum Poison {
    /// The message is put aside.
    PutAside(Kept),
    /// The message is dropped, as no dead letters are kept.
    Dropped,
    /// The message was let go meanwhile. It is still in the stream, and the process that gets it next sends it.
    LetGo,
}

impl<W> Default for Window<W> {
    fn default() -> Self {
        Self { held: VecDeque::new(), bytes: 0, cursor: 0, end: 0, shift: None }
    }
}

impl<W> Window<W> {
    /// Lets go of all messages: they come again, to this process or another one. The next message has a higher number
    /// than all before.
    pub fn let_go(&mut self) {
        self.held.clear();
        self.bytes = 0;
        self.cursor = self.end;
        self.shift = None;
    }

    /// The sequence of the last message that was read, since messages were let go.
    fn last_sequence(&self) -> Option<u64> {
        self.shift.map(|shift| self.end.wrapping_sub(1).wrapping_sub(shift))
    }

    /// Whether messages were read that come after this one, the last of the stream. A server that has lost messages
    /// gives their sequences to others.
    pub fn is_past(&self, last_sequence: u64) -> bool {
        self.last_sequence().is_some_and(|read| read > last_sequence)
    }

    /// How many messages are missing between the last one that was read and this one, the first of the stream.
    pub fn missing(&self, first_sequence: u64) -> u64 {
        self.last_sequence().map_or(0, |read| first_sequence.saturating_sub(read.saturating_add(1)))
    }

    /// Passes over the missing messages, which the server has dropped for want of room or for their age, and counts
    /// them: no later message counts them again.
    pub fn begins_at(&mut self, first_sequence: u64, figures: &mut Figures) {
        let missing = self.missing(first_sequence);
        // Missing messages get no numbers, as nobody would ever have them.
        self.shift = self.shift.map(|shift| shift.wrapping_sub(missing));
        figures.dropped.full += missing;
    }

    /// How many messages to request next, and bytes of them, if the longest message may have `longest` bytes. `None`:
    /// there is no room for more.
    pub fn room(&self, longest: usize) -> Option<(usize, usize)> {
        let (messages, bytes) = self.held();
        let has_room = messages < HELD && bytes < HELD_BYTES;
        has_room.then(|| (HELD - messages, longest.clamp(ASKED_BYTES, HELD_BYTES)))
    }

    /// The first message that is not acknowledged.
    pub const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The number after the last message that was read.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// How many messages are held, and bytes of them.
    pub fn held(&self) -> (usize, usize) {
        (self.held.len(), self.bytes)
    }

    /// When the oldest message was received.
    pub fn oldest_received_millis(&self) -> Option<u64> {
        self.held.front().map(|(kept, _)| kept.received_millis)
    }

    /// Takes a message that the server gave, whose number is its sequence in the stream.
    pub fn give(&mut self, mut kept: Kept, way: W) -> Given<W> {
        let end = self.end;
        let shift = *self.shift.get_or_insert_with(|| end.wrapping_sub(kept.number));
        kept.number = kept.number.wrapping_add(shift);
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

    /// Reads messages from this number on. Messages before the cursor never come, and a reader that waited for them
    /// would ask again at once.
    pub fn read(&self, from: u64, bound: ReadBound) -> ReadMessages {
        let mut read = ReadMessages { messages: Vec::new(), next: from.max(self.cursor) };
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
    pub fn find(&self, number: u64) -> Option<&Kept> {
        let at = self.held.binary_search_by_key(&number, |(kept, _)| kept.number).ok()?;
        self.held.get(at).map(|(kept, _)| kept)
    }

    /// The treatment of the message of this number, which the sink will never take.
    pub fn poison(&self, number: u64, keeps_letters: bool) -> Poison {
        match self.find(number) {
            None => Poison::LetGo,
            Some(kept) if keeps_letters => Poison::PutAside(kept.clone()),
            Some(_) => Poison::Dropped,
        }
    }

    /// Lets go of each message before `next`. Returns the ways on which the server is notified.
    pub fn acknowledge(&mut self, next: u64) -> Vec<W> {
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
    use crate::keeper::Drops;

    const ALL: ReadBound = ReadBound { messages: 100, bytes: 100 };

    fn kept(number: u64) -> Kept {
        Kept { number, source: Vec::new(), received_millis: 10 * number, payload: vec![0; 4] }
    }

    /// A window with messages 0, 1 and 4, of the sequences 3, 4 and 7, whose ways are 30, 40 and 70.
    fn window() -> Window<u64> {
        let mut window = Window::default();
        for (sequence, missing) in [(3, 0), (4, 0), (7, 2)] {
            assert_eq!(window.give(kept(sequence), 10 * sequence), Given::New { missing });
        }
        window
    }

    fn numbers(read: &ReadMessages) -> Vec<u64> {
        read.messages.iter().map(|kept| kept.number).collect()
    }

    #[test]
    fn messages_are_read_in_order_from_any_number_and_stay_until_they_are_acknowledged() {
        let mut window = window();
        for (from, expected, next) in [(0, vec![0, 1, 4], 5), (2, vec![4], 5), (5, vec![], 5)] {
            let read = window.read(from, ALL);
            assert_eq!((numbers(&read), read.next), (expected, next), "{from}");
        }
        let two = window.read(0, ReadBound { messages: 2, bytes: 100 });
        assert_eq!((numbers(&two), two.next), (vec![0, 1], 2));
        let few_bytes = window.read(0, ReadBound { messages: 9, bytes: 1 });
        assert_eq!(numbers(&few_bytes), [0], "the one that reaches the bytes");
        assert_eq!(window.acknowledge(2), [30, 40]);
        assert_eq!((window.held(), window.cursor(), window.end()), ((1, 4), 2, 5));
        assert_eq!((window.oldest_received_millis(), window.find(4).map(|kept| kept.number)), (Some(70), Some(4)));
        assert_eq!(window.acknowledge(1), [0_u64; 0], "the cursor does not go back");
        assert_eq!((window.acknowledge(5), window.oldest_received_millis(), window.find(4)), (vec![70], None, None));
    }

    #[test]
    fn a_message_that_comes_again_is_held_once_and_acknowledged_on_the_later_way() {
        let mut window = window();
        assert_eq!(window.give(kept(4), 41), Given::Again);
        assert_eq!(numbers(&window.read(0, ALL)), [0, 1, 4]);
        assert_eq!(window.acknowledge(2), [30, 41]);
        assert_eq!(window.give(kept(4), 42), Given::Acknowledged(42));
        assert_eq!((numbers(&window.read(0, ALL)), window.cursor()), (vec![4], 2));
        assert_eq!(window.acknowledge(4), [0_u64; 0], "those between are missing");
        assert_eq!(window.give(kept(7), 71), Given::Again, "the first one that is not acknowledged");
        assert_eq!(window.acknowledge(5), [71]);
    }

    #[test]
    fn messages_that_come_after_all_were_let_go_have_later_numbers_whatever_their_sequences_are() {
        let mut window = window();
        assert_eq!(window.last_sequence(), Some(7));
        window.let_go();
        assert_eq!((window.held(), window.cursor(), window.end()), ((0, 0), 5, 5));
        assert_eq!(window.last_sequence(), None);
        let read = window.read(1, ALL);
        assert_eq!((numbers(&read), read.next), (vec![], 5), "nobody waits for what was let go");
        assert_eq!(window.give(kept(4), 43), Given::New { missing: 0 }, "nobody knows what came between");
        assert_eq!(window.give(kept(5), 50), Given::New { missing: 0 });
        assert_eq!((numbers(&window.read(0, ALL)), window.last_sequence()), (vec![5, 6], Some(5)));
        assert_eq!(window.acknowledge(7), [43, 50]);
    }

    #[test]
    fn messages_that_the_server_drops_before_they_are_read_are_counted_once_whether_others_come_or_not() {
        let mut window = window();
        assert_eq!([0, 3, 7, 8, 11].map(|first| window.missing(first)), [0, 0, 0, 0, 3]);
        let counted = |window: &mut Window<u64>, first| {
            let mut figures = Figures::default();
            window.begins_at(first, &mut figures);
            figures
        };
        let full = |full| Figures { dropped: Drops { full, ..Drops::default() }, ..Figures::default() };
        let begins = [7, 11, 11, 9, 13].map(|first| counted(&mut window, first));
        assert_eq!(begins, [0, 3, 0, 0, 2].map(full), "with the reason that they have in metrics");
        assert_eq!((window.held().0, window.end(), window.last_sequence()), (3, 5, Some(12)), "what was read stays");
        assert_eq!(window.give(kept(13), 130), Given::New { missing: 0 });
        assert_eq!(window.give(kept(15), 150), Given::New { missing: 1 }, "the server dropped it since");
        assert_eq!(numbers(&window.read(0, ALL)), [0, 1, 4, 5, 7]);
        window.let_go();
        assert_eq!(counted(&mut window, 90), full(0), "nobody knows what others have read");
    }

    #[test]
    fn a_message_that_was_let_go_is_neither_put_aside_nor_dropped() {
        let mut window = window();
        assert!(matches!(window.poison(1, true), Poison::PutAside(kept) if kept.number == 1));
        assert_eq!(window.poison(1, false), Poison::Dropped);
        window.let_go();
        assert_eq!([true, false].map(|keeps| window.poison(1, keeps)), [Poison::LetGo, Poison::LetGo]);
    }

    #[test]
    fn a_stream_that_ends_before_the_last_message_that_was_read_has_lost_it() {
        let window = window();
        assert_eq!([6, 7, 8].map(|last| window.is_past(last)), [true, false, false]);
        assert!(!Window::<u64>::default().is_past(0), "nothing was read");
    }

    #[test]
    fn messages_are_asked_for_until_ten_thousand_or_16_mebibytes_of_them_are_held() {
        let mut window = Window::default();
        assert_eq!(window.room(0), Some((10_000, 2 << 20)));
        for sequence in 1..10_000 {
            window.give(kept(sequence), sequence);
        }
        assert_eq!(window.room(0), Some((1, 2 << 20)));
        window.give(kept(10_000), 0);
        assert_eq!(window.room(0), None);
        window.acknowledge(4);
        assert_eq!(window.room(0), Some((4, 2 << 20)), "what the sink has leaves room");

        let mut window = Window::default();
        window.give(Kept { payload: vec![0; (16 << 20) - 1], ..kept(1) }, 0);
        assert_eq!(window.room(0), Some((9_999, 2 << 20)));
        window.give(Kept { payload: vec![0], ..kept(2) }, 0);
        assert_eq!(window.room(0), None);
    }

    #[test]
    fn so_many_bytes_are_asked_for_that_the_longest_message_comes() {
        let asked = |longest| Window::<u64>::default().room(longest).map(|(_, bytes)| bytes);
        assert_eq!(asked((2 << 20) + 1), Some((2 << 20) + 1));
        assert_eq!(asked(17 << 20), Some(16 << 20), "the window has room for no more");
    }
}
