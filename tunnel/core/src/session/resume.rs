//! How two ends resume their streams on a new carrier.

use super::{Notice, Session, StreamId, Violation};
use crate::frame::{FINAL, Kind, MAX_PAYLOAD, Malformed, Reader, put};
use crate::limits::EARLY_CREDIT;
use crate::open::{Reason, Refusal};
use crate::stream::Phase;

/// Stream, flags, received, credit.
const ENTRY: usize = 4 + 1 + 8 + 8;
const ANSWERED: u8 = 1;

impl Session {
    /// Lists each stream with its received positions.
    pub(super) fn resume_frames(&mut self) -> Vec<u8> {
        let mut entries = Vec::with_capacity(self.streams.len() * ENTRY);
        #[cfg(test)]
        {
            self.looks += self.streams.len();
        }
        for (id, stream) in &mut self.streams {
            stream.listed = false;
            stream.queued = false;
            stream.untold = false;
            stream.ack_due = false;
            // The entry carries an answer. Whether a request is due follows from the peer's entries.
            stream.word_due = stream.phase == Phase::Refusing;
            let (received, credit) = stream.receive.tell();
            entries.extend_from_slice(&id.to_be_bytes());
            entries.push(if stream.phase == Phase::Open { ANSWERED } else { 0 });
            entries.extend_from_slice(&received.to_be_bytes());
            entries.extend_from_slice(&credit.to_be_bytes());
        }
        let mut out = Vec::new();
        let mut rest = entries.as_slice();
        loop {
            let (now, later) = rest.split_at(rest.len().min(MAX_PAYLOAD / ENTRY * ENTRY));
            let last = if later.is_empty() { FINAL } else { 0 };
            put(&mut out, Kind::Resume, last, 0, 0, now);
            rest = later;
            if rest.is_empty() {
                return out;
            }
        }
    }

    /// Takes the list of the peer. Entries of streams that no longer exist here are ignored.
    pub(super) fn resumed(&mut self, payload: &[u8]) -> Result<(), Violation> {
        let (entries, []) = payload.as_chunks::<ENTRY>() else {
            return Err(Malformed::Payload(Kind::Resume).into());
        };
        for entry in entries {
            let mut reader = Reader(entry);
            let (Some(id), Some(flags), Some(received), Some(credit)) =
                (reader.u32(), reader.u8(), reader.u64(), reader.u64())
            else {
                continue;
            };
            let sent_before = self.streams.get(&id).map_or(0, |stream| stream.send.sent());
            let agreed = self.with_blocks(id, |stream, free| {
                stream.listed = true;
                if flags & ANSWERED != 0 && stream.phase == Phase::Opening {
                    stream.begin();
                }
                stream.word_due &= stream.phase != Phase::Opening;
                stream.send.resume(received, credit, free)
            });
            match agreed {
                Some(true) => self.counters.resent_bytes += sent_before - received,
                Some(false) => return Err(Violation::Position(id)),
                None => {}
            }
            self.notice(id);
        }
        Ok(())
    }

    /// The peer has listed all of its streams. From now on streams send. A stream that the peer did not list is lost,
    /// or complete, or never reached the peer.
    pub(super) fn settle_all(&mut self) {
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        #[cfg(test)]
        {
            self.looks += ids.len();
        }
        for id in ids {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            if stream.listed {
                self.settle(id);
            } else if stream.phase == Phase::Opening && !stream.is_reset() {
                // The request was lost, or the refusal of it.
                stream.word_due = true;
                if stream.receive.received() == 0 && stream.send.restart(EARLY_CREDIT) {
                    self.settle(id);
                } else {
                    self.forget(id);
                    let detail = "the answer was lost with a connection".to_owned();
                    let refusal = Refusal { reason: Reason::Other, detail };
                    self.notices.push_back(Notice::Refused(StreamId(id), refusal));
                }
            } else if stream.is_complete_without_peer() {
                self.finish_without_peer(id);
            } else {
                self.break_off(id);
            }
        }
    }

    /// Both ends were done with the stream. Bytes and an end that arrived may still be unread.
    fn finish_without_peer(&mut self, id: u32) {
        self.with(id, |stream| {
            stream.send.stop();
            stream.receive.tell();
        });
        self.notice(id);
    }

    /// The bytes that arrived stay readable, and then the stream ends with a reset. A stream that this end refused is
    /// removed.
    pub(super) fn break_off(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(|stream| stream.phase == Phase::Refusing) {
            self.forget(id);
            return;
        }
        // Before the change: a stream whose end was taken is removed by it, and its writer must be woken, too.
        self.notice(id);
        self.with(id, |stream| {
            stream.word_due = false;
            stream.send.stop();
            stream.receive.break_off();
            if stream.phase == Phase::Opening {
                stream.begin();
            }
        });
    }
}
