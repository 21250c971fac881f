//! Reading the messages of a log.

use super::window::Window;
use super::{Log, SEGMENT_HEAD, Segment, failed};
use crate::record::{HEAD_BYTES, Head};
use crate::{Error, FileError, Message, Outside, Record, Reported};

/// A position in a log. It keeps one window of one segment in memory: 64 KiB, or one message if that is
/// longer.
#[derive(Debug)]
pub struct Reader {
    /// The number of the next message.
    wanted: u64,
    /// The index of a segment, and an offset in it. Records before it are passed.
    place: Option<(u64, u64)>,
    window: Window,
}

impl Reader {
    /// Reads from this message on, for example from the first one that a sink did not acknowledge
    /// before its connection broke.
    pub fn seek(&mut self, number: u64) {
        if number < self.wanted {
            self.place = None;
        }
        self.wanted = number;
    }

    /// The number of the message that is read next, unless it is lost.
    pub const fn wanted(&self) -> u64 {
        self.wanted
    }
}

/// The result of one step through a segment.
enum Step {
    /// The wanted message, with its body at this offset.
    Found(Head, u64),
    /// An earlier message.
    Earlier,
    /// The next message that may be readable. All before it are lost.
    Lost(u64),
}

impl Log {
    /// A reader that starts at the cursor.
    pub fn reader(&self) -> Reader {
        Reader { wanted: self.cursor, place: None, window: Window::default() }
    }

    /// Reads the next message. `None`: all that were appended are read. Messages that cannot be read are reported and
    /// skipped: only the message itself if its body is damaged, and the rest of its segment if its head is damaged. An
    /// error of the folder may be temporary; [`Log::skip_segment`] is for a permanent one.
    ///
    /// A caller that has acknowledged all that was read acknowledges [`Reader::wanted`]: lost messages at the
    /// end would otherwise count as backlog until later ones are acknowledged.
    pub fn read<'r>(&mut self, outside: &mut Outside<'_>, reader: &'r mut Reader) -> Result<Option<Record<'r>>, Error> {
        loop {
            if reader.wanted >= self.next {
                return Ok(None);
            }
            let Some(at) = self.holder(reader.wanted) else {
                let oldest = self.segments.front().map_or(self.next, |oldest| oldest.first);
                // Messages that the cursor has passed were delivered or dropped.
                Self::lost(outside, reader.wanted.max(self.cursor)..oldest);
                reader.wanted = oldest;
                continue;
            };
            match self.step(outside, reader, at)? {
                Step::Found(head, offset) => {
                    reader.wanted += 1;
                    let body = reader.window.held(offset, head.body());
                    let (source, payload) = body.split_at(head.source.min(body.len()));
                    let message = Message { source, received_millis: head.received_millis, payload };
                    return Ok(Some(Record { number: head.number, message }));
                }
                Step::Earlier => {}
                Step::Lost(next) => self.pass(outside, reader, at, next),
            }
        }
    }

    /// Gives up the rest of the segment that `reader` is in, whose messages are reported as lost.
    pub fn skip_segment(&mut self, outside: &mut Outside<'_>, reader: &mut Reader) {
        if let Some(at) = self.holder(reader.wanted).filter(|_| reader.wanted < self.next) {
            let limit = self.limit(at);
            self.pass(outside, reader, at, limit);
        }
    }

    /// The place of the segment that has this message.
    fn holder(&self, number: u64) -> Option<usize> {
        self.segments.partition_point(|segment| segment.first <= number).checked_sub(1)
    }

    /// Passes over the lost messages before `next`.
    fn pass(&mut self, outside: &mut Outside<'_>, reader: &mut Reader, at: usize, next: u64) {
        Self::lost(outside, reader.wanted..next);
        reader.wanted = next;
        if let Some(segment) = self.segments.get_mut(at) {
            segment.damaged = true;
        }
        // A later sync would report the lost messages as synced, though their senders may still have them.
        if let Some(waiting) = self.unsynced.take_if(|waiting| next > waiting.first) {
            let why = FileError::Other("a message was lost before it was synced".to_owned());
            outside.reported.push(Reported::SyncFailed { messages: waiting.first..self.next, why });
            self.active = false;
        }
        // Messages behind the damage could not be found, so new ones need another segment.
        if at + 1 == self.segments.len() && next == self.next {
            self.end(outside);
        }
    }

    /// One step through the segment at a place, which has the wanted message.
    fn step(&self, outside: &mut Outside<'_>, reader: &mut Reader, at: usize) -> Result<Step, Error> {
        let limit = self.limit(at);
        let Some(&Segment { index, bytes: end, .. }) = self.segments.get(at) else {
            return Ok(Step::Lost(limit));
        };
        let name = self.segment_name(index);
        let offset = reader.place.filter(|place| place.0 == index).map_or(SEGMENT_HEAD, |place| place.1);
        let bytes = reader.window.get(outside.files, (index, &name), offset, HEAD_BYTES, end);
        let head = Head::decode(bytes.map_err(failed("read", &name))?);
        let Some(head) = head.filter(|head| offset + head.total() <= end && head.number < limit) else {
            return Ok(Step::Lost(limit));
        };
        if head.number > reader.wanted {
            return Ok(Step::Lost(head.number));
        }
        let body = offset + HEAD_BYTES as u64;
        let mut step = Step::Earlier;
        if head.number == reader.wanted {
            let bytes = reader.window.get(outside.files, (index, &name), body, head.body(), end);
            let bytes = bytes.map_err(failed("read", &name))?;
            let whole = bytes.len() == head.body() && crc32fast::hash(bytes) == head.checksum;
            step = if whole { Step::Found(head, body) } else { Step::Lost(head.number + 1) };
        }
        reader.place = Some((index, offset + head.total()));
        Ok(step)
    }
}
