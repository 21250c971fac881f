//! The calls of a keeper that take effect at once, not in a turn.

use std::time::Duration;

use super::{COMMIT_AFTER, Incoming, Keeper, Kept, ReadBound, ReadMessages, World, outside};
use crate::{Error, Reported, Why};

/// A segment is given up if a message in it cannot be read for this long, though the disk takes writes.
const READ_WITHIN: Duration = Duration::from_secs(60);

impl<M: AsRef<[Incoming]>, R> Keeper<M, R> {
    /// Reads messages from this number on; none if there are none yet. An error may be temporary. If it lasts for a
    /// minute and the disk takes the cursor, the segment is given up: then no message is returned, and the next number
    /// is the one behind the segment.
    pub fn read(&mut self, world: &mut dyn World, from: u64, bound: ReadBound) -> Result<ReadMessages, Error> {
        self.reader.seek(from);
        let mut messages = Vec::new();
        let mut bytes = 0;
        let mut failed = None;
        while messages.len() < bound.messages && bytes < bound.bytes {
            match self.log.read(&mut outside(world, &mut self.reported), &mut self.reader) {
                Ok(Some(record)) => {
                    let message = record.message;
                    bytes += message.payload.len();
                    messages.push(Kept {
                        number: record.number,
                        source: message.source.to_vec(),
                        received_millis: message.received_millis,
                        payload: message.payload.to_vec(),
                    });
                }
                Ok(None) => break,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        self.hear();
        if self.unread.is_some_and(|(number, _)| number < self.reader.wanted()) {
            self.unread = None;
        }
        if let Some(error) = failed {
            self.ledger.fails(error.to_string());
            // Messages that were read before the failure are delivered first. The next call starts at the failure.
            if messages.is_empty() && !self.gives_up(world) {
                return Err(error);
            }
        }
        Ok(ReadMessages { messages, next: self.reader.wanted() })
    }

    /// Changes the bound of the log, as [`Log::bound`](crate::Log::bound) does.
    pub fn bound(&mut self, max_bytes: u64) {
        self.settings.log.max_bytes = self.log.bound(max_bytes);
    }

    /// Moves the cursor to `next`, as the sink has acknowledged every message before it. When this returns, the cursor
    /// outlives the process: a caller that sends nothing before then resends, after a kill, only messages that had no
    /// answer. The cursor is saved, so that it also outlives a crash of the machine, a while after it moves, not each
    /// time.
    pub fn acknowledge(&mut self, world: &mut dyn World, next: u64) {
        let before = self.log.cursor();
        self.log.acknowledge(next);
        if self.log.cursor() == before {
            return;
        }
        // A disk that does not take the note is reported when the cursor is saved. Until then, a kill causes more
        // resends.
        let _ = self.log.note(&mut outside(world, &mut self.reported));
        if self.commit_at.is_none() {
            // The cursor may stay unsaved for as long as messages may stay unsynced: a crash of the machine affects
            // both alike.
            self.commit_at = Some(world.now().steady + self.settings.log.sync_after.max(COMMIT_AFTER));
        }
    }

    /// Puts one message into the dead letters. Returns whether it is kept there.
    pub fn put_aside(&mut self, world: &mut dyn World, number: u64, why: &str) -> Result<bool, Error> {
        self.aside.seek(number);
        let read = self.log.read(&mut outside(world, &mut self.reported), &mut self.aside);
        let put = match read {
            Ok(Some(record)) if record.number == number => {
                let mut put = self.dead.put(&mut outside(world, &mut self.letters), &record, why);
                if put.as_ref().is_err_and(Error::is_no_space) {
                    // Segments that the cursor has passed may free the space for the letter. The second attempt shows
                    // whether they did.
                    let _ = self.log.commit(&mut outside(world, &mut self.reported));
                    put = self.dead.put(&mut outside(world, &mut self.letters), &record, why);
                }
                if put.as_ref().is_err_and(Error::is_no_space) {
                    // The message would block all behind it until somebody makes room, so it is dropped.
                    let messages = number..number.saturating_add(1);
                    self.letters.push(Reported::Dropped { messages, why: Why::Dead });
                    put = Ok(());
                }
                put.map(|()| true)
            }
            // The message was dropped or is lost, and is reported as such.
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        };
        self.hear_aside();
        let is_dropped = self.hear_letters();
        match put {
            Ok(is_put) => {
                let is_kept = is_put && !is_dropped;
                self.ledger.figures.dead_letters += u64::from(is_kept);
                Ok(is_kept)
            }
            Err(error) => {
                self.ledger.fails(error.to_string());
                Err(error)
            }
        }
    }

    /// Gives up the rest of the segment that has this message. Returns the number to read next.
    pub fn skip_segment(&mut self, world: &mut dyn World, from: u64) -> u64 {
        self.reader.seek(from);
        self.log.skip_segment(&mut outside(world, &mut self.reported), &mut self.reader);
        self.hear();
        self.reader.wanted()
    }

    /// Gives up the segment of a message that could not be read for too long. Returns whether it did: a disk that does
    /// not take the cursor either is unavailable, and its messages are not lost.
    fn gives_up(&mut self, world: &mut dyn World) -> bool {
        let (number, now) = (self.reader.wanted(), world.now().steady);
        let since = self.unread.filter(|unread| unread.0 == number).map_or(now, |unread| unread.1);
        self.unread = Some((number, since));
        if now.saturating_sub(since) < READ_WITHIN {
            return false;
        }
        let committed = self.log.commit_again(&mut outside(world, &mut self.reported));
        self.hear();
        if let Err(error) = committed
            && !error.is_no_space()
        {
            self.ledger.fails(error.to_string());
            return false;
        }
        self.log.skip_segment(&mut outside(world, &mut self.reported), &mut self.reader);
        self.hear();
        self.unread = None;
        true
    }

    /// Looks up when the oldest message that is not acknowledged was received.
    pub(super) fn find_oldest(&mut self, world: &mut dyn World) {
        let cursor = self.log.cursor();
        if self.oldest == Some(cursor) {
            return;
        }
        self.aside.seek(cursor);
        let read = self.log.read(&mut outside(world, &mut self.reported), &mut self.aside);
        if let Ok(Some(record)) = read {
            self.ledger.figures.oldest_received_millis = Some(record.message.received_millis);
            self.oldest = Some(cursor);
        }
        self.hear_aside();
    }

    /// Like [`Self::hear`], after a read beside the sink's: lost messages are reported when the sink reads them.
    fn hear_aside(&mut self) {
        self.reported.retain(|reported| !matches!(reported, Reported::Lost { .. }));
        self.hear();
    }
}
