//! The figures of a store.

use std::time::Duration;

use super::event::StoreEvents;

/// A disk that has not answered for this long counts as hung.
const HANGS_AFTER: Duration = Duration::from_secs(20);

/// The counts of a store since it was opened, and its present state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The number of the next message.
    pub next: u64,
    /// The first message that is not acknowledged.
    pub cursor: u64,
    /// Bytes of the log's files.
    pub bytes: u64,
    /// Bytes of the dead letters' files.
    pub dead_bytes: u64,
    /// When the oldest message that is not acknowledged was received, in milliseconds since 1970; up to a second late.
    /// `None`: all are acknowledged.
    pub oldest_received_millis: Option<u64>,
    /// Messages that were appended.
    pub appended: u64,
    /// Messages that were synced.
    pub synced: u64,
    /// Messages whose sync failed.
    pub not_synced: u64,
    /// Syncs of messages.
    pub syncs: u64,
    /// The time that the syncs took.
    pub sync_time: Duration,
    /// Messages that were dropped.
    pub dropped: Drops,
    /// Messages that were refused, as the log or the disk was full or failed, or as they are too long for the server.
    /// Their senders learn of it.
    pub refused: u64,
    /// Refused messages for which the log was full.
    pub refused_full: u64,
    /// How often the disk was full when something had to be written.
    pub no_space: u64,
    /// Messages that were lost: damaged, or gone with their file.
    pub lost: u64,
    /// Bytes at the end of a log that are an incomplete message: cut off by a crash, or damaged since.
    pub cut_bytes: u64,
    /// How often the cursor was lost, so that messages may be delivered twice.
    pub cursors_lost: u64,
    /// Dead letters that were put aside.
    pub dead_letters: u64,
    /// Dead letters that gave way to later ones.
    pub dead_letters_dropped: u64,
    /// The longest message that is accepted, if that is less than in the settings: a server may have a lower bound.
    pub longest: Option<usize>,
    /// The present failure, until a sync succeeds.
    pub failure: Option<String>,
    /// The events of the log.
    pub events: StoreEvents,
}

impl Figures {
    /// Messages that are not acknowledged.
    pub const fn backlog(&self) -> u64 {
        self.next - self.cursor
    }

    /// Adds the figures of another store of the same listener: the oldest message is the oldest of both, and the
    /// failure is that of either. Events are not added, as each store counts its own.
    pub fn add(&mut self, other: &Self) {
        self.next += other.next;
        self.cursor += other.cursor;
        self.bytes += other.bytes;
        self.dead_bytes += other.dead_bytes;
        let oldest = self.oldest_received_millis.into_iter().chain(other.oldest_received_millis).min();
        self.oldest_received_millis = oldest;
        self.appended += other.appended;
        self.synced += other.synced;
        self.not_synced += other.not_synced;
        self.syncs += other.syncs;
        self.sync_time += other.sync_time;
        self.dropped.add(other.dropped);
        self.refused += other.refused;
        self.refused_full += other.refused_full;
        self.no_space += other.no_space;
        self.lost += other.lost;
        self.cut_bytes += other.cut_bytes;
        self.cursors_lost += other.cursors_lost;
        self.dead_letters += other.dead_letters;
        self.dead_letters_dropped += other.dead_letters_dropped;
        self.longest = self.longest.into_iter().chain(other.longest).min();
        if self.failure.is_none() {
            self.failure.clone_from(&other.failure);
        }
    }

    /// Takes the time that the present turn has taken, if there is one. If that is too long, the disk hangs, which is a
    /// failure until it answers.
    pub fn take_turn(&mut self, so_far: Option<Duration>) {
        if so_far.is_some_and(|so_far| so_far >= HANGS_AFTER) {
            let hangs = || format!("the disk has not answered for {} s; check it", HANGS_AFTER.as_secs());
            self.failure.get_or_insert_with(hangs);
        }
    }

    /// The age of the oldest message that is not acknowledged.
    pub fn oldest_age(&self, unix_millis: u64) -> Option<Duration> {
        self.oldest_received_millis.map(|received| Duration::from_millis(unix_millis.saturating_sub(received)))
    }
}

/// Messages that were dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Too many messages waited for the log.
    pub queue: u64,
    /// The log was full.
    pub full: u64,
    /// The messages are too long for the server.
    pub too_long: u64,
    /// The messages were too old.
    pub age: u64,
    /// The sink will never take the messages, and no dead letters are kept, or none of this length, or the disk is
    /// full.
    pub dead: u64,
    /// The disk failed, or was full.
    pub failed: u64,
    /// The stream was closed before it had the messages, as far as is known.
    pub unpublished: u64,
}

impl Drops {
    fn add(&mut self, other: Self) {
        let Self { queue, full, too_long, age, dead, failed, unpublished } = other;
        self.queue += queue;
        self.full += full;
        self.too_long += too_long;
        self.age += age;
        self.dead += dead;
        self.failed += failed;
        self.unpublished += unpublished;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_is_what_the_cursor_has_not_passed() {
        assert_eq!(Figures { next: 12, cursor: 5, ..Figures::default() }.backlog(), 7);
    }

    #[test]
    fn a_disk_that_does_not_answer_for_20_s_fails_and_what_failed_before_is_still_told() {
        let after = |seconds: Option<u64>, before: Option<&str>| {
            let mut figures = Figures { failure: before.map(str::to_owned), ..Figures::default() };
            figures.take_turn(seconds.map(Duration::from_secs));
            figures.failure
        };
        assert_eq!((after(None, None), after(Some(19), None)), (None, None));
        assert_eq!(after(Some(20), None).as_deref(), Some("the disk has not answered for 20 s; check it"));
        assert_eq!(after(Some(20), Some("no disk")).as_deref(), Some("no disk"));
    }

    #[test]
    fn two_stores_have_the_sum_of_both_the_oldest_message_of_either_and_what_fails_in_either() {
        let one = Figures {
            next: 12,
            cursor: 5,
            bytes: 7,
            dead_bytes: 3,
            oldest_received_millis: Some(40),
            appended: 11,
            synced: 10,
            not_synced: 1,
            syncs: 4,
            sync_time: Duration::from_secs(1),
            dropped: Drops { queue: 1, full: 5, too_long: 6, age: 3, dead: 4, failed: 7, unpublished: 9 },
            refused: 6,
            refused_full: 2,
            no_space: 15,
            lost: 8,
            cut_bytes: 9,
            cursors_lost: 13,
            dead_letters: 14,
            dead_letters_dropped: 15,
            longest: Some(70),
            failure: Some("no disk".to_owned()),
            events: StoreEvents::default(),
        };
        let both = Figures {
            next: 24,
            cursor: 10,
            bytes: 14,
            dead_bytes: 6,
            appended: 22,
            synced: 20,
            not_synced: 2,
            syncs: 8,
            sync_time: Duration::from_secs(2),
            dropped: Drops { queue: 2, full: 10, too_long: 12, age: 6, dead: 8, failed: 14, unpublished: 18 },
            refused: 12,
            refused_full: 4,
            no_space: 30,
            lost: 16,
            cut_bytes: 18,
            cursors_lost: 26,
            dead_letters: 28,
            dead_letters_dropped: 30,
            ..one.clone()
        };
        let mut all = Figures { oldest_received_millis: None, longest: None, failure: None, ..one.clone() };
        all.add(&one);
        assert_eq!(all, both);
        let (oldest_received_millis, longest) = (Some(30), Some(60));
        let later = Some("later".to_owned());
        all.add(&Figures { oldest_received_millis, longest, failure: later, ..Figures::default() });
        assert_eq!(all, Figures { oldest_received_millis, longest, ..both });
    }

    #[test]
    fn the_oldest_message_has_no_age_if_there_is_none_or_the_clock_was_set_back() {
        let received = |at| Figures { oldest_received_millis: at, ..Figures::default() };
        assert_eq!(received(None).oldest_age(5000), None);
        assert_eq!(received(Some(1000)).oldest_age(5000), Some(Duration::from_secs(4)));
        assert_eq!(received(Some(1000)).oldest_age(999), Some(Duration::ZERO));
    }
}
