//! What two ends tell each other on a new carrier.

use super::{Notice, Session, StreamId, Violation};
use crate::frame::{FINAL, Kind, MAX_PAYLOAD, Malformed, Reader, put};
use crate::limits::EARLY_CREDIT;
use crate::open::{Reason, Refusal};
use crate::stream::Phase;

/// Stream, flags, received, credit.
const ENTRY: usize = 4 + 1 + 8 + 8;
const ANSWERED: u8 = 1;

impl Session {
    /// Names each stream with what has come of it.
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
            // An answer stands in the entry; whether a request is due, the peer's entries tell.
            stream.word_due = matches!(stream.phase, Phase::Refusing(_));
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

    /// Takes what the peer has. Entries of streams that are gone here are of no use.
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
                    stream.phase = Phase::Open;
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

    /// The peer has named all of its streams: from now on streams send, and what it did not name is
    /// lost, or over, or has not reached it.
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
                // The request was lost, or the answer that refused it.
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

    /// Both ends were through; the bytes and the end that came may still have to be read.
    fn finish_without_peer(&mut self, id: u32) {
        self.with(id, |stream| {
            stream.send.stop();
            stream.receive.tell();
        });
        self.notice(id);
    }

    /// What came of the stream can be read, and then it ends by a reset. One that this end refused is
    /// gone.
    pub(super) fn break_off(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(|stream| matches!(stream.phase, Phase::Refusing(_))) {
            self.forget(id);
            return;
        }
        // Before the change, after which a stream whose end was taken is gone: its writer is told, too.
        self.notice(id);
        self.with(id, |stream| {
            stream.word_due = false;
            stream.send.stop();
            stream.receive.break_off();
            if stream.phase == Phase::Opening {
                stream.phase = Phase::Open;
            }
        });
    }
}
