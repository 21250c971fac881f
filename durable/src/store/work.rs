//! What the thread does for its callers, and what it hears from the log.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use durable_core::{Error, Told, Why};

use super::command::Call;
use super::keeper::{Keeper, Pending};
use super::{Kept, ReadBound, ReadMessages, StoreError, StoreEvent};

/// A segment is given up when a message in it could not be read for so long, though the disk takes what is written.
const READ_WITHIN: Duration = Duration::from_secs(60);

impl Keeper {
    /// Answers a call. The caller may have gone.
    pub(super) fn answer(&mut self, call: Call) {
        match call {
            Call::Read { from, bound, reply } => {
                let _ = reply.send(self.read(from, bound));
            }
            Call::Acknowledge { next, reply } => {
                let before = self.log.cursor();
                self.log.acknowledge(next);
                if self.log.cursor() > before && self.commit_at.is_none() {
                    self.commit_at = Some(self.commit_due());
                }
                let _ = reply.send(());
            }
            Call::Dead { number, why, reply } => {
                let _ = reply.send(self.put_aside(number, &why));
            }
            Call::SkipSegment { from, reply } => {
                self.reader.seek(from);
                self.log.skip_segment(&mut self.world.outside(), &mut self.reader);
                self.hear();
                let _ = reply.send(self.reader.wanted());
            }
            Call::Drain(drained) => self.drains.push(drained),
            // The caller of this function has taken it.
            Call::Close(_) => {}
        }
    }

    fn read(&mut self, from: u64, bound: ReadBound) -> Result<ReadMessages, StoreError> {
        self.reader.seek(from);
        let mut messages = Vec::new();
        let mut bytes = 0;
        let mut failed = None;
        while messages.len() < bound.messages && bytes < bound.bytes {
            match self.log.read(&mut self.world.outside(), &mut self.reader) {
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
            self.fails(&error);
            // What was read before is delivered first. The next call starts at the failure.
            if messages.is_empty() && !self.gives_up() {
                return Err(error.into());
            }
        }
        Ok(ReadMessages { messages, next: self.reader.wanted() })
    }

    /// Puts one message into the dead letters. Returns whether it is there.
    fn put_aside(&mut self, number: u64, why: &str) -> Result<bool, StoreError> {
        self.aside.seek(number);
        let read = self.log.read(&mut self.world.outside(), &mut self.aside);
        let put = match read {
            Ok(Some(record)) if record.number == number => {
                let mut put = self.dead.put(&mut self.world.outside_with(&mut self.letters), &record, why);
                if put.as_ref().is_err_and(Error::is_no_space) {
                    // Segments that the cursor has passed are the space that it needs. A failure is that of the disk.
                    let _ = self.log.commit(&mut self.world.outside());
                    put = self.dead.put(&mut self.world.outside_with(&mut self.letters), &record, why);
                }
                if put.as_ref().is_err_and(Error::is_no_space) {
                    // It would hold up all behind it until somebody makes room.
                    let messages = number..number.saturating_add(1);
                    self.letters.push(Told::Dropped { messages, why: Why::Dead });
                    put = Ok(());
                }
                put.map(|()| true)
            }
            // It was dropped or is lost, and is told as such.
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        };
        self.hear_aside();
        let is_dropped = self.hear_letters();
        match put {
            Ok(is_put) => {
                let is_kept = is_put && !is_dropped;
                self.figures.dead_letters += u64::from(is_kept);
                Ok(is_kept)
            }
            Err(error) => {
                self.fails(&error);
                Err(error.into())
            }
        }
    }

    /// Gives up the segment of a message that could not be read for too long. Returns whether it did: a disk that does
    /// not take the cursor either is away, and its messages are not.
    fn gives_up(&mut self) -> bool {
        let (number, now) = (self.reader.wanted(), self.world.now().steady);
        let since = self.unread.filter(|unread| unread.0 == number).map_or(now, |unread| unread.1);
        self.unread = Some((number, since));
        if now.saturating_sub(since) < READ_WITHIN {
            return false;
        }
        let committed = self.log.commit_again(&mut self.world.outside());
        self.hear();
        if let Err(error) = committed
            && !error.is_no_space()
        {
            self.fails(&error);
            return false;
        }
        self.log.skip_segment(&mut self.world.outside(), &mut self.reader);
        self.hear();
        self.unread = None;
        true
    }

    /// Looks up when the oldest message that is not acknowledged was received.
    pub(super) fn find_oldest(&mut self) {
        let cursor = self.log.cursor();
        if self.oldest == Some(cursor) {
            return;
        }
        self.aside.seek(cursor);
        let read = self.log.read(&mut self.world.outside(), &mut self.aside);
        if let Ok(Some(record)) = read {
            self.figures.oldest_received_millis = Some(record.message.received_millis);
            self.oldest = Some(cursor);
        }
        self.hear_aside();
    }

    /// Tells a failure, once until a sync succeeds.
    pub(super) fn fails(&mut self, error: &Error) {
        if self.figures.failure.is_none() {
            self.figures.events.push(StoreEvent::Failed { error: error.to_string() });
        }
        self.figures.failure = Some(error.to_string());
    }

    /// As [`Self::hear`], after a message was read that the sink reads, too: what is lost is told then.
    fn hear_aside(&mut self) {
        self.world.told.retain(|told| !matches!(told, Told::Lost { .. }));
        self.hear();
    }

    /// Hears what the log has told.
    pub(super) fn hear(&mut self) {
        for told in self.world.told.drain(..) {
            match told {
                Told::Synced { messages } => {
                    self.figures.synced += count(&messages);
                    self.figures.failure = None;
                    settle(&mut self.pending, messages.end, &Ok(()));
                }
                Told::SyncFailed { messages, why } => {
                    self.figures.not_synced += count(&messages);
                    let failed = StoreError::NotSynced(why);
                    if self.figures.failure.is_none() {
                        self.figures.events.push(StoreEvent::Failed { error: failed.to_string() });
                    }
                    self.figures.failure = Some(failed.to_string());
                    settle(&mut self.pending, messages.end, &Err(failed));
                }
                Told::Dropped { messages, why } => {
                    let dropped = &mut self.figures.dropped;
                    let dropped = match why {
                        Why::Full => &mut dropped.full,
                        Why::Age => &mut dropped.age,
                        Why::Dead => &mut dropped.dead,
                    };
                    *dropped += count(&messages);
                }
                Told::Lost { messages } => {
                    // A sink that goes back is told of them again.
                    let messages = messages.start.max(self.lost_before)..messages.end;
                    if !messages.is_empty() {
                        self.lost_before = messages.end;
                        self.figures.lost += count(&messages);
                        self.figures.events.push(StoreEvent::Lost { messages });
                    }
                }
                Told::Cut { file, bytes } => {
                    self.figures.cut_bytes += bytes;
                    self.figures.events.push(StoreEvent::Cut { file, bytes });
                }
                Told::Quarantined { file } => self.figures.events.push(StoreEvent::Quarantined { file }),
                Told::CursorLost => {
                    self.figures.cursors_lost += 1;
                    self.figures.events.push(StoreEvent::CursorLost);
                }
            }
        }
    }

    /// Hears what the dead letters have told. Returns whether a message was dropped rather than put aside.
    pub(super) fn hear_letters(&mut self) -> bool {
        let mut is_dropped = false;
        for told in self.letters.drain(..) {
            match told {
                Told::Dropped { why: Why::Dead, .. } => {
                    is_dropped = true;
                    self.figures.dropped.dead += 1;
                }
                Told::Dropped { messages, .. } | Told::Lost { messages } => {
                    self.figures.dead_letters_dropped += count(&messages);
                }
                _ => {}
            }
        }
        is_dropped
    }
}

/// Answers everybody whose messages are before `end`.
fn settle(pending: &mut VecDeque<Pending>, end: u64, outcome: &Result<(), StoreError>) {
    while pending.front().is_some_and(|first| first.end <= end) {
        if let Some(settled) = pending.pop_front() {
            // The sender may not wait for it.
            let _ = settled.reply.send(outcome.clone());
        }
    }
}

fn count(messages: &Range<u64>) -> u64 {
    messages.end.saturating_sub(messages.start)
}

#[cfg(test)]
mod tests;
