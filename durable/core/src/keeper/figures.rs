//! What a store counts.

use std::time::Duration;

use super::event::StoreEvents;

/// What a store has done since it was opened, and what it holds.
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
    /// Messages that a sync has named.
    pub synced: u64,
    /// Messages that a sync has failed for.
    pub not_synced: u64,
    /// Syncs of messages.
    pub syncs: u64,
    /// The time that they took.
    pub sync_time: Duration,
    /// Messages that were dropped.
    pub dropped: Drops,
    /// Messages that were not taken, as the log or the disk was full or failed, and whose senders hear so.
    pub refused: u64,
    /// Messages that were lost: damaged, or gone with their file.
    pub lost: u64,
    /// Bytes at the end of a log that are no whole message: cut off by a crash, or damaged since.
    pub cut_bytes: u64,
    /// How often the cursor was lost, so that messages come twice.
    pub cursors_lost: u64,
    /// Dead letters that were put aside.
    pub dead_letters: u64,
    /// Dead letters that gave way to later ones.
    pub dead_letters_dropped: u64,
    /// What fails, until a sync succeeds.
    pub failure: Option<String>,
    /// What happened to the log.
    pub events: StoreEvents,
}

impl Figures {
    /// Messages that are not acknowledged.
    pub const fn backlog(&self) -> u64 {
        self.next - self.cursor
    }

    /// The age of the oldest message that is not acknowledged.
    pub fn oldest_age(&self, unix_millis: u64) -> Option<Duration> {
        self.oldest_received_millis.map(|received| Duration::from_millis(unix_millis.saturating_sub(received)))
    }
}

/// Messages that were dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Too many waited for the log.
    pub queue: u64,
    /// The log or the disk was full.
    pub full: u64,
    /// They were too old.
    pub age: u64,
    /// The sink will never take them, and none are put aside, or none so long, or the disk is full.
    pub dead: u64,
    /// The disk failed.
    pub failed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_is_what_the_cursor_has_not_passed() {
        assert_eq!(Figures { next: 12, cursor: 5, ..Figures::default() }.backlog(), 7);
    }

    #[test]
    fn the_oldest_message_has_no_age_if_there_is_none_or_the_clock_was_set_back() {
        let received = |at| Figures { oldest_received_millis: at, ..Figures::default() };
        assert_eq!(received(None).oldest_age(5000), None);
        assert_eq!(received(Some(1000)).oldest_age(5000), Some(Duration::from_secs(4)));
        assert_eq!(received(Some(1000)).oldest_age(999), Some(Duration::ZERO));
    }
}
