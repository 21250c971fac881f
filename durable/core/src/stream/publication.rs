//! Messages on their way into a stream.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use super::PAUSE;
use crate::keeper::Figures;

/// Messages of a batch. A server takes up to 1000, unless its configuration says otherwise.
pub const BATCH: usize = 256;
/// The pause before a stream that had no room is asked again.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// The outcome of a batch, of which the stream stores all messages or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The stream has the messages.
    Stored,
    /// The stream has no room for the messages.
    Full,
    /// The stream has none of the messages, and never takes one of them, which is too long.
    TooLong,
    /// The stream has none of the messages, as it did not take one of them. The server does not say why: that message
    /// may be too long.
    Incomplete,
    /// It is not known whether the stream has the messages.
    Broken,
}

impl Outcome {
    /// Whether the way into the stream works. A stream without room says so, and the listener counts as full, not as one
    /// whose store fails.
    pub const fn is_answer(self) -> bool {
        !matches!(self, Self::Broken)
    }
}

/// Messages that are sent in their order, some at a time, until the stream has all of them, or has no room for the
/// rest. Messages that are too long for it are given up, and those behind them continue.
#[derive(Debug)]
pub struct Publication {
    messages: usize,
    /// Whether messages wait for room.
    blocks: bool,
    /// How many messages, from the first on, are in the stream or were given up.
    passed: usize,
    /// The places of messages that were given up, in order.
    too_long: Vec<usize>,
    /// How many messages were sent last.
    sent: usize,
    /// How many messages are sent at once: fewer while one that is too long is searched for.
    at_once: usize,
    /// The ends of batches for which it is not known whether the stream has them. No later batch goes beyond such an
    /// end: the server rejects a batch with old and new messages because of the old ones, and stores none.
    ends: BTreeSet<usize>,
    is_refused: bool,
    is_given_up: bool,
}

impl Publication {
    /// A publication of this many messages, none of which was sent.
    pub const fn new(messages: usize, blocks: bool) -> Self {
        Self {
            messages,
            blocks,
            passed: 0,
            too_long: Vec::new(),
            sent: 0,
            at_once: BATCH,
            ends: BTreeSet::new(),
            is_refused: false,
            is_given_up: false,
        }
    }

    /// The messages to send next; `None`: there are none. After a break they are the same ones, so that the server
    /// recognizes them. A message that may be too long, as `fits` is false for it, is sent alone: its batch would be
    /// refused with it.
    pub fn wanted(&mut self, fits: impl Fn(usize) -> bool) -> Option<Range<usize>> {
        let start = self.passed;
        if self.is_refused || self.is_given_up || start >= self.messages {
            return None;
        }
        let most = self.messages.min(start + self.at_once);
        let most = self.ends.range(start + 1..).next().map_or(most, |end| most.min(*end));
        self.sent = (start..most).take_while(|at| fits(*at)).count().max(1);
        Some(start..start + self.sent)
    }

    /// Takes the outcome of the wanted messages. Returns the pause before the next ones are sent.
    pub fn hears(&mut self, outcome: Outcome) -> Duration {
        match outcome {
            Outcome::Stored => {
                self.passed += self.sent;
                self.at_once = BATCH.min(self.at_once * 2);
                Duration::ZERO
            }
            Outcome::Full if self.blocks => FULL_PAUSE,
            Outcome::Full => {
                self.is_refused = true;
                Duration::ZERO
            }
            Outcome::TooLong | Outcome::Incomplete if self.sent > 1 => {
                self.at_once = self.sent / 2;
                Duration::ZERO
            }
            Outcome::TooLong => {
                self.too_long.push(self.passed);
                self.passed += 1;
                Duration::ZERO
            }
            Outcome::Incomplete | Outcome::Broken => {
                self.ends.insert(self.passed + self.sent);
                PAUSE
            }
        }
    }

    /// Gives up the rest, as the stream is closed. It is not known whether the stream has messages that were sent last
    /// and have no answer.
    pub const fn give_up(&mut self) {
        self.is_given_up = true;
    }

    /// The messages that were given up, as they are too long.
    pub fn too_long(&self) -> &[usize] {
        &self.too_long
    }

    /// The outcome of each append, in order. `counts` has the number of messages in each.
    pub fn shares(&self, counts: impl IntoIterator<Item = usize>) -> impl Iterator<Item = Share> {
        let mut start = 0;
        let given_up_before = |at: usize| self.too_long.partition_point(|given_up| *given_up < at);
        counts.into_iter().map(move |count| {
            let end = start + count;
            let passed = count.min(self.passed.saturating_sub(start));
            let too_long = given_up_before(end) - given_up_before(start);
            start = end;
            let left = (count - passed) as u64;
            let (refused, unpublished) = if self.is_given_up { (0, left) } else { (left, 0) };
            Share { kept: (passed - too_long) as u64, refused, too_long: too_long as u64, unpublished }
        })
    }
}

/// The outcome of messages that were appended together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Messages that the stream has.
    pub kept: u64,
    /// Messages that the stream has no room for.
    pub refused: u64,
    /// Messages that are too long for the stream.
    pub too_long: u64,
    /// Messages that the stream did not have when it was closed, as far as is known.
    pub unpublished: u64,
}

impl Share {
    /// Whether the stream has all of them.
    pub const fn is_kept(&self) -> bool {
        self.refused == 0 && self.too_long == 0 && self.unpublished == 0
    }

    /// Counts the messages. A sender that `waits` learns of those that the stream does not have, and sends them again.
    pub const fn count(self, waits: bool, figures: &mut Figures) {
        figures.appended += self.kept;
        figures.synced += self.kept;
        if waits {
            figures.refused += self.refused + self.too_long + self.unpublished;
            figures.refused_full += self.refused;
        } else {
            figures.dropped.full += self.refused;
            figures.dropped.too_long += self.too_long;
            figures.dropped.unpublished += self.unpublished;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::Drops;

    const fn all_fit(_at: usize) -> bool {
        true
    }

    /// What a stream is sent that does not take messages for which `is_long` is true, and what it has at last.
    fn publish(publication: &mut Publication, is_long: impl Fn(usize) -> bool) -> (usize, Vec<usize>) {
        let (mut sent, mut has) = (0, Vec::new());
        while let Some(wanted) = publication.wanted(all_fit) {
            sent += 1;
            assert!(sent < 10_000, "it ends");
            let outcome = match (wanted.clone().any(&is_long), wanted.len()) {
                (false, _) => Outcome::Stored,
                (true, 1) => Outcome::TooLong,
                (true, _) => Outcome::Incomplete,
            };
            if outcome == Outcome::Stored {
                has.extend(wanted);
            }
            assert_eq!(publication.hears(outcome), Duration::ZERO);
        }
        (sent, has)
    }

    #[test]
    fn messages_are_sent_in_batches_in_their_order_without_a_pause() {
        let mut publication = Publication::new(600, false);
        let mut sent = Vec::new();
        while let Some(wanted) = publication.wanted(all_fit) {
            sent.push(wanted);
            assert_eq!(publication.hears(Outcome::Stored), Duration::ZERO);
        }
        assert_eq!(sent, [0..256, 256..512, 512..600]);
        assert_eq!(Publication::new(0, true).wanted(all_fit), None);
    }

    #[test]
    fn after_a_break_the_same_messages_are_sent_until_the_stream_has_them() {
        let mut publication = Publication::new(257, false);
        assert_eq!(publication.wanted(all_fit), Some(0..256));
        assert_eq!(publication.hears(Outcome::Stored), Duration::ZERO);
        for _ in 0..1000 {
            assert_eq!(publication.wanted(all_fit), Some(256..257));
            assert_eq!(publication.hears(Outcome::Broken), Duration::from_millis(100));
        }
        assert_eq!(publication.wanted(all_fit), Some(256..257));
        assert_eq!((publication.hears(Outcome::Stored), publication.wanted(all_fit)), (Duration::ZERO, None));
    }

    #[test]
    fn a_stream_without_room_is_no_failure_of_the_way_into_it() {
        let outcomes = [Outcome::Stored, Outcome::Full, Outcome::TooLong, Outcome::Incomplete, Outcome::Broken];
        assert_eq!(outcomes.map(Outcome::is_answer), [true, true, true, true, false]);
    }

    #[test]
    fn messages_that_the_stream_has_no_room_for_wait_or_are_refused() {
        let mut waits = Publication::new(3, true);
        assert_eq!(waits.wanted(all_fit), Some(0..3));
        assert_eq!((waits.hears(Outcome::Full), waits.wanted(all_fit)), (Duration::from_secs(1), Some(0..3)));
        let mut refuses = Publication::new(3, false);
        assert_eq!(refuses.wanted(all_fit), Some(0..3));
        assert_eq!((refuses.hears(Outcome::Full), refuses.wanted(all_fit)), (Duration::ZERO, None));
    }

    #[test]
    fn messages_that_are_too_long_are_found_and_given_up_and_the_stream_has_all_others_in_their_order() {
        let cases: [&[usize]; 5] = [&[], &[0], &[299], &[7, 8, 200, 256], &[0, 1, 2, 3, 4, 5]];
        for long in cases {
            let mut publication = Publication::new(300, true);
            let (sent, has) = publish(&mut publication, |at| long.contains(&at));
            let others: Vec<usize> = (0..300).filter(|at| !long.contains(at)).collect();
            assert_eq!((publication.too_long(), has), (long, others));
            assert!(sent <= 2 + 18 * long.len(), "{sent} batches for {long:?}");
        }
        let mut publication = Publication::new(300, true);
        let (sent, has) = publish(&mut publication, |_| true);
        assert_eq!((publication.too_long().len(), has.len()), (300, 0));
        assert!(sent <= 300 + 8, "the search begins once: {sent}");
    }

    #[test]
    fn a_message_that_may_be_too_long_is_sent_alone() {
        let mut publication = Publication::new(6, false);
        let fits = |at| at != 2 && at != 3;
        let mut sent = Vec::new();
        while let Some(wanted) = publication.wanted(fits) {
            let outcome = if wanted == (3..4) { Outcome::TooLong } else { Outcome::Stored };
            sent.push(wanted);
            publication.hears(outcome);
        }
        assert_eq!(sent, [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(publication.too_long(), [3]);
    }

    #[test]
    fn a_message_that_is_alone_is_not_given_up_unless_it_is_known_to_be_too_long() {
        let mut publication = Publication::new(1, false);
        assert_eq!(publication.wanted(all_fit), Some(0..1));
        assert_eq!(publication.hears(Outcome::Incomplete), Duration::from_millis(100));
        assert_eq!(publication.wanted(all_fit), Some(0..1));
    }

    #[test]
    fn no_batch_has_messages_that_the_stream_may_have_and_new_ones() {
        let mut publication = Publication::new(1000, false);
        // The stream may have this one.
        assert_eq!(publication.wanted(all_fit), Some(0..256));
        publication.hears(Outcome::Broken);
        assert_eq!(publication.wanted(|at| at != 10), Some(0..10));
        // And this one.
        publication.hears(Outcome::Broken);
        let mut sent = Vec::new();
        while let Some(wanted) = publication.wanted(all_fit) {
            sent.push(wanted);
            publication.hears(Outcome::Stored);
        }
        assert_eq!(sent, [0..10, 10..256, 256..512, 512..768, 768..1000]);
    }

    #[test]
    fn who_appended_messages_hears_how_many_of_them_the_stream_has() {
        let mut publication = Publication::new(258, false);
        for outcome in [Outcome::Stored, Outcome::Full] {
            assert!(publication.wanted(all_fit).is_some());
            publication.hears(outcome);
        }
        let shares: Vec<(u64, u64)> =
            publication.shares([255, 0, 2, 1]).map(|share| (share.kept, share.refused)).collect();
        assert_eq!(shares, [(255, 0), (0, 0), (1, 1), (0, 1)]);
    }

    #[test]
    fn who_appended_messages_hears_how_many_of_them_are_too_long() {
        let mut publication = Publication::new(7, false);
        publish(&mut publication, |at| at == 0 || at == 3 || at == 4);
        let shares: Vec<Share> = publication.shares([1, 2, 0, 3, 1]).collect();
        let share = |kept, too_long| Share { kept, refused: 0, too_long, unpublished: 0 };
        assert_eq!(shares, [share(0, 1), share(2, 0), share(0, 0), share(1, 2), share(1, 0)]);
        let kept: Vec<bool> = shares.iter().map(Share::is_kept).collect();
        assert_eq!(kept, [false, true, true, false, true]);
    }

    #[test]
    fn what_a_stream_does_not_have_when_it_is_closed_is_told_apart_from_what_it_has_no_room_for() {
        let mut publication = Publication::new(300, true);
        for outcome in [Outcome::Stored, Outcome::Broken] {
            assert!(publication.wanted(all_fit).is_some());
            publication.hears(outcome);
        }
        publication.give_up();
        assert_eq!(publication.wanted(all_fit), None);
        let shares: Vec<Share> = publication.shares([255, 5, 40]).collect();
        let share = |kept, unpublished| Share { kept, refused: 0, too_long: 0, unpublished };
        assert_eq!(shares, [share(255, 0), share(1, 4), share(0, 40)]);
        assert_eq!([255, 256].map(|kept| share(kept, 0).is_kept()), [true, true]);
        assert!(!share(1, 4).is_kept());
    }

    #[test]
    fn refused_messages_are_dropped_unless_their_sender_sends_them_again() {
        let mut figures = Figures::default();
        let share = Share { kept: 3, refused: 2, too_long: 5, unpublished: 1 };
        share.count(true, &mut figures);
        share.count(false, &mut figures);
        share.count(false, &mut figures);
        let dropped = Drops { full: 4, too_long: 10, unpublished: 2, ..Drops::default() };
        let expected = Figures { refused: 8, refused_full: 2, dropped, ..Figures::default() };
        assert_eq!(figures, Figures { appended: 9, synced: 9, ..expected });
    }
}
