//! Messages on their way into a stream.

use std::ops::Range;
use std::time::Duration;

use super::PAUSE;
use crate::keeper::Figures;

/// Messages of a batch. A server takes up to 1000, unless its configuration says otherwise.
pub const BATCH: usize = 256;
/// The pause before a stream that had no room is asked again.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// What became of messages that were sent, of which the stream has all or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has them.
    Stored,
    /// It has no room for them.
    Full,
    /// Nobody knows whether it has them.
    Broken,
}

impl Outcome {
    /// Whether the way into the stream works. A stream without room says so, and the listener counts as full, not as one
    /// whose store fails.
    pub const fn is_answer(self) -> bool {
        !matches!(self, Self::Broken)
    }
}

/// Messages that are sent in their order, some at a time, until the stream has all of them, or has no room for the rest.
#[derive(Debug)]
pub struct Publication {
    messages: usize,
    /// Whether messages wait for room.
    blocks: bool,
    /// The first ones, which the stream has.
    stored: usize,
    is_refused: bool,
}

impl Publication {
    /// So many messages, none of which was sent.
    pub const fn new(messages: usize, blocks: bool) -> Self {
        Self { messages, blocks, stored: 0, is_refused: false }
    }

    /// Which messages are to be sent. After a break they are the same ones, so that the server knows them again. `None`:
    /// none are.
    pub fn wanted(&self) -> Option<Range<usize>> {
        let is_over = self.is_refused || self.stored >= self.messages;
        (!is_over).then(|| self.stored..self.messages.min(self.stored + BATCH))
    }

    /// What became of the wanted messages. Returns the pause before others are sent.
    pub fn hears(&mut self, outcome: Outcome) -> Duration {
        match outcome {
            Outcome::Stored => {
                self.stored = self.messages.min(self.stored + BATCH);
                Duration::ZERO
            }
            Outcome::Full if self.blocks => FULL_PAUSE,
            Outcome::Full => {
                self.is_refused = true;
                Duration::ZERO
            }
            Outcome::Broken => PAUSE,
        }
    }

    /// What became of messages that were appended together, `counts` of them, in their order.
    pub fn shares(&self, counts: impl IntoIterator<Item = usize>) -> impl Iterator<Item = Share> {
        let mut left = self.stored;
        counts.into_iter().map(move |count| {
            let kept = count.min(left);
            left -= kept;
            Share { kept: kept as u64, refused: (count - kept) as u64 }
        })
    }
}

/// What became of messages that were appended together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The stream has so many.
    pub kept: u64,
    /// It has no room for so many.
    pub refused: u64,
}

impl Share {
    /// Counts them. A sender that `waits` hears of those that are refused, and sends them again.
    pub const fn count(self, waits: bool, figures: &mut Figures) {
        figures.appended += self.kept;
        figures.synced += self.kept;
        let refused = if waits { &mut figures.refused } else { &mut figures.dropped.full };
        *refused += self.refused;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::Drops;

    #[test]
    fn messages_are_sent_in_batches_in_their_order_without_a_pause() {
        let mut publication = Publication::new(600, false);
        let mut sent = Vec::new();
        while let Some(wanted) = publication.wanted() {
            sent.push(wanted);
            assert_eq!(publication.hears(Outcome::Stored), Duration::ZERO);
        }
        assert_eq!(sent, [0..256, 256..512, 512..600]);
        assert_eq!(Publication::new(0, true).wanted(), None);
    }

    #[test]
    fn after_a_break_the_same_messages_are_sent_until_the_stream_has_them() {
        let mut publication = Publication::new(257, false);
        assert_eq!(publication.hears(Outcome::Stored), Duration::ZERO);
        for _ in 0..1000 {
            assert_eq!(publication.hears(Outcome::Broken), Duration::from_millis(100));
            assert_eq!(publication.wanted(), Some(256..257));
        }
        assert_eq!((publication.hears(Outcome::Stored), publication.wanted()), (Duration::ZERO, None));
    }

    #[test]
    fn a_stream_without_room_is_no_failure_of_the_way_into_it() {
        let is_answer = [Outcome::Stored, Outcome::Full, Outcome::Broken].map(Outcome::is_answer);
        assert_eq!(is_answer, [true, true, false]);
    }

    #[test]
    fn messages_that_the_stream_has_no_room_for_wait_or_are_refused() {
        let mut waits = Publication::new(3, true);
        assert_eq!((waits.hears(Outcome::Full), waits.wanted()), (Duration::from_secs(1), Some(0..3)));
        let mut refuses = Publication::new(3, false);
        assert_eq!((refuses.hears(Outcome::Full), refuses.wanted()), (Duration::ZERO, None));
    }

    #[test]
    fn who_appended_messages_hears_how_many_of_them_the_stream_has() {
        let mut publication = Publication::new(258, false);
        publication.hears(Outcome::Stored);
        publication.hears(Outcome::Full);
        let shares: Vec<(u64, u64)> =
            publication.shares([255, 0, 2, 1]).map(|share| (share.kept, share.refused)).collect();
        assert_eq!(shares, [(255, 0), (0, 0), (1, 1), (0, 1)]);
    }

    #[test]
    fn refused_messages_are_dropped_unless_their_sender_sends_them_again() {
        let mut figures = Figures::default();
        let share = Share { kept: 3, refused: 2 };
        share.count(true, &mut figures);
        share.count(false, &mut figures);
        share.count(false, &mut figures);
        let dropped = Drops { full: 4, ..Drops::default() };
        assert_eq!(figures, Figures { appended: 9, synced: 9, refused: 2, dropped, ..Figures::default() });
    }
}
