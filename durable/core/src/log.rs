//! The log: appends and syncs.

use std::collections::VecDeque;
use std::mem::take;
use std::ops::Range;
use std::time::Duration;

use self::notes::Notes;
use crate::record::{SEGMENT_HEAD_BYTES, SourceSum, encode, segment_head};
use crate::{Error, FileError, Message, Now, Outside, Reported, Settings, Why};

mod notes;
mod open;
mod read;
mod space;
mod window;

pub use read::Reader;

/// Bytes of the head of a segment.
const SEGMENT_HEAD: u64 = SEGMENT_HEAD_BYTES as u64;

/// A log of messages in the files of one folder whose names start with its prefix. In memory it
/// keeps some 64 bytes for each segment, and room for the largest batch.
///
/// Messages have numbers without gaps, from 0. The cursor is the first one that the sink has not
/// acknowledged.
#[derive(Debug)]
pub struct Log {
    prefix: String,
    settings: Settings,
    /// Segments in order of their indices, which is the order of their messages. The last one stays, unless its space
    /// is needed.
    segments: VecDeque<Segment>,
    /// Whether the last segment takes more messages.
    active: bool,
    /// The number of the next message.
    next: u64,
    /// The index of the next segment.
    index: u64,
    /// The first message that is not acknowledged.
    cursor: u64,
    /// The cursor on disk.
    saved: u64,
    notes: Notes,
    /// Records that wait for a sync, all of them in the last segment.
    unsynced: Option<Unsynced>,
    /// Whether a name in the folder may not be on disk.
    folder_unsynced: bool,
    /// Bytes of all segments, and of the damaged one that is kept.
    bytes: u64,
    /// A damaged segment that is kept, and its bytes.
    quarantined: Option<(String, u64)>,
    /// The records of a batch while they are written.
    batch: Vec<u8>,
}

/// One file of messages.
#[derive(Debug)]
struct Segment {
    index: u64,
    /// The number of the segment's first message. Its messages end where the next segment starts.
    first: u64,
    /// The length of the file; after a failed write, an upper bound.
    bytes: u64,
    /// The age of the segment at `seen`.
    age: Duration,
    seen: Duration,
    /// Whether messages of the segment were lost.
    damaged: bool,
}

impl Segment {
    fn age(&self, now: Now) -> Duration {
        self.age.saturating_add(now.steady.saturating_sub(self.seen))
    }
}

#[derive(Debug)]
struct Unsynced {
    first: u64,
    since: Duration,
    bytes: u64,
}

impl Log {
    /// Appends all `messages`, or none, with one write, and returns their numbers. A batch is at most
    /// a segment long. Their senders may get an answer when [`Reported::Synced`] names them, not before.
    pub fn append(&mut self, outside: &mut Outside<'_>, messages: &[Message<'_>]) -> Result<Range<u64>, Error> {
        let mut batch = take(&mut self.batch);
        batch.clear();
        let appended = self
            .encode(&mut batch, messages)
            .and_then(|()| if batch.is_empty() { Ok(()) } else { self.append_bytes(outside, &batch) });
        let bytes = batch.len() as u64;
        self.batch = batch;
        appended?;
        let first = self.next;
        self.next += messages.len() as u64;
        if bytes > 0 {
            let since = outside.now.steady;
            self.unsynced.get_or_insert(Unsynced { first, since, bytes: 0 }).bytes += bytes;
        }
        Ok(first..self.next)
    }

    /// The number of the next message.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// The first message that is not acknowledged.
    pub const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Messages that are not acknowledged.
    pub const fn backlog(&self) -> u64 {
        self.next - self.cursor
    }

    /// Bytes of the log's files.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the next sync is due, on the steady clock. `None`: nothing waits for one.
    pub fn sync_at(&self) -> Option<Duration> {
        let waiting = self.unsynced.as_ref()?;
        let full = waiting.bytes >= self.settings.sync_bytes;
        Some(if full { waiting.since } else { waiting.since.saturating_add(self.settings.sync_after) })
    }

    /// Syncs the records that wait for it, due or not, and reports which messages are synced, or are not. A segment
    /// whose sync failed gets no more messages and is not synced again: the system may have discarded the data that it
    /// could not write.
    pub fn sync(&mut self, outside: &mut Outside<'_>) -> Result<(), FileError> {
        let Some((waiting, last)) = self.unsynced.take().zip(self.segments.back()) else {
            return Ok(());
        };
        let messages = waiting.first..self.next;
        let name = self.segment_name(last.index);
        let folder = self.folder_unsynced;
        let done = outside.files.sync(&name).and_then(|()| if folder { outside.files.sync_folder() } else { Ok(()) });
        match done {
            Ok(()) => {
                self.folder_unsynced = false;
                outside.reported.push(Reported::Synced { messages });
                Ok(())
            }
            Err(why) => {
                self.active = false;
                outside.reported.push(Reported::SyncFailed { messages, why: why.clone() });
                Err(why)
            }
        }
    }

    /// Does the work that is due: a sync, the removal of segments that are older than the greatest age, and the end of
    /// one that is an eighth of it old.
    pub fn tend(&mut self, outside: &mut Outside<'_>) -> Result<(), Error> {
        if self.sync_at().is_some_and(|at| at <= outside.now.steady) {
            // `sync` reports a failure, which does not concern later messages.
            let _ = self.sync(outside);
        }
        self.expire(outside)
    }

    fn encode(&self, batch: &mut Vec<u8>, messages: &[Message<'_>]) -> Result<(), Error> {
        let (max, mut last) = (self.settings.max_message_bytes, SourceSum::default());
        for (number, message) in (self.next..).zip(messages) {
            let fits = message.payload.len() <= max && encode(batch, number, message, &mut last).is_some();
            if !fits {
                let (bytes, source_bytes) = (message.payload.len(), message.source.len());
                return Err(Error::TooLong { bytes, source_bytes, max });
            }
        }
        Ok(())
    }

    /// Writes a batch, and frees space for it if need be.
    fn append_bytes(&mut self, outside: &mut Outside<'_>, batch: &[u8]) -> Result<(), Error> {
        let bytes = batch.len() as u64;
        let max = self.settings.segment_bytes() - SEGMENT_HEAD;
        if bytes > max {
            return Err(Error::Batch { bytes, max });
        }
        self.make_room(outside, bytes)?;
        match self.write(outside, batch) {
            // Space is freed only once: on a disk that others fill, the whole log would be dropped otherwise.
            Err(full) if full.is_no_space() => {
                if self.free_one(outside, Why::NoSpace).is_err() {
                    return Err(full);
                }
                self.make_room(outside, bytes)?;
                self.write(outside, batch)
            }
            written => written,
        }
    }

    fn write(&mut self, outside: &mut Outside<'_>, batch: &[u8]) -> Result<(), Error> {
        let bytes = batch.len() as u64;
        let most = self.settings.segment_bytes();
        if self.active && self.segments.back().is_some_and(|last| last.bytes + bytes > most) {
            self.end(outside);
        }
        if !self.active {
            self.begin(outside)?;
        }
        let name = self.segments.back().map(|last| self.segment_name(last.index)).unwrap_or_default();
        let written = outside.files.append(&name, batch);
        // A failed write may have written any part of the batch, so the whole batch counts.
        self.bytes += bytes;
        if let Some(last) = self.segments.back_mut() {
            last.bytes += bytes;
        }
        written.map_err(|why| {
            self.abandon(outside);
            Error::File { doing: "append to", file: name, why }
        })
    }

    /// Ends the active segment. The next message goes to a new one.
    fn end(&mut self, outside: &mut Outside<'_>) {
        // `sync` reports a failure itself.
        let _ = self.sync(outside);
        self.active = false;
    }

    /// Ends a segment that may end with an incomplete record, and removes it if it has no complete one.
    fn abandon(&mut self, outside: &mut Outside<'_>) {
        self.end(outside);
        let empty = self.segments.back().is_some_and(|last| last.first == self.next);
        if empty && let Some(last) = self.segments.pop_back() {
            if outside.files.remove(&self.segment_name(last.index)).is_ok() {
                self.bytes -= last.bytes;
            } else {
                self.segments.push_back(last);
            }
        }
    }

    /// Begins a new segment.
    fn begin(&mut self, outside: &mut Outside<'_>) -> Result<(), Error> {
        let index = self.index;
        self.index += 1;
        let name = self.segment_name(index);
        self.folder_unsynced = true;
        let head = segment_head(self.next, outside.now.unix_millis);
        let begun = outside.files.create(&name).and_then(|()| outside.files.append(&name, &head));
        if let Err(why) = begun {
            // The rest of the file holds no message. If it cannot be removed now, the next start removes it.
            let _ = outside.files.remove(&name);
            return Err(Error::File { doing: "begin", file: name, why });
        }
        let seen = outside.now.steady;
        self.segments.push_back(Segment {
            index,
            first: self.next,
            bytes: SEGMENT_HEAD,
            age: Duration::ZERO,
            seen,
            damaged: false,
        });
        self.bytes += SEGMENT_HEAD;
        self.active = true;
        Ok(())
    }

    fn segment_name(&self, index: u64) -> String {
        format!("{}{index:016x}.log", self.prefix)
    }

    /// The number after the last message of the segment at this place.
    fn limit(&self, at: usize) -> u64 {
        self.segments.get(at + 1).map_or(self.next, |later| later.first)
    }
}

/// An error of a call to the folder.
fn failed(doing: &'static str, file: &str) -> impl FnOnce(FileError) -> Error {
    move |why| Error::File { doing, file: file.to_owned(), why }
}
