//! The bounds of a log.

use std::time::Duration;

use crate::Error;
use crate::record::{HEAD_BYTES, MAX_MESSAGE_BYTES, MAX_SOURCE_BYTES, SEGMENT_HEAD_BYTES};

/// The largest segment.
const MAX_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Segments that a full log has at least, so that dropping the oldest one drops a small part.
const SEGMENTS: u64 = 8;

/// The bounds of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of all files of the log, except its cursor and the two files with notes of it, of 4 KiB each.
    pub max_bytes: u64,
    /// The longest message.
    pub max_message_bytes: usize,
    /// Messages that are older are dropped, a whole segment at a time, so up to an eighth of this later.
    pub max_age: Option<Duration>,
    /// Which messages give way when `max_bytes` are used, or the disk is full.
    pub when_full: WhenFull,
    /// A sync is due this long after the first message that waits for it; zero: after each append.
    pub sync_after: Duration,
    /// A sync is due when this many bytes wait for it.
    pub sync_bytes: u64,
}

/// Which messages give way in a full log, or on a full disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The new message: [`Error::Full`], or [`FileError::NoSpace`](crate::FileError::NoSpace).
    Refuse,
    /// The oldest segment: [`Reported::Dropped`](crate::Reported::Dropped).
    DropOldest,
}

impl Settings {
    /// The size at which a segment ends.
    pub const fn segment_bytes(&self) -> u64 {
        let share = self.max_bytes / SEGMENTS;
        if share < MAX_SEGMENT_BYTES { share } else { MAX_SEGMENT_BYTES }
    }

    /// Refuses bounds that contradict each other.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let heads = (SEGMENT_HEAD_BYTES + HEAD_BYTES + MAX_SOURCE_BYTES) as u64;
        let longest = heads.saturating_add(self.max_message_bytes as u64);
        if self.max_message_bytes > MAX_MESSAGE_BYTES || longest > self.segment_bytes() {
            return Err(Error::Settings {
                message: self.max_message_bytes,
                max: self.max_bytes,
                least: longest.saturating_mul(SEGMENTS),
            });
        }
        Ok(())
    }
}
