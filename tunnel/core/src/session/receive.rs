//! Frames from the peer.

use std::time::Duration;

use super::{Notice, Session, StreamId, Violation};
use crate::frame::{FINAL, Header, Kind, Malformed, Reader, split};
use crate::limits::{EARLY_CREDIT, Limits};
use crate::open::{Open, Protocol, Reason, Refusal};
use crate::stream::{Phase, Stream};

impl Session {
    /// Takes the complete frames at the front of `bytes`, and returns their length; the caller calls again with the
    /// rest. After an error the carrier must be closed.
    pub fn receive(&mut self, epoch: u64, bytes: &[u8], now: Duration) -> Result<usize, Violation> {
        let carrier = self.carrier_of(epoch)?;
        if !bytes.is_empty() {
            carrier.heard_at = now;
            carrier.suspect = false;
        }
        let mut rest = bytes;
        while let Some((header, payload)) = split(rest)? {
            self.frame(epoch, header, payload, now)?;
            rest = &rest[crate::frame::HEADER + header.length..];
        }
        Ok(bytes.len() - rest.len())
    }

    fn frame(&mut self, epoch: u64, header: Header, payload: &[u8], now: Duration) -> Result<(), Violation> {
        let kind = header.kind;
        let resumed = self.carrier_of(epoch)?.resumed;
        if resumed == (kind == Kind::Resume) && kind != Kind::Ignored {
            return Err(Violation::OutOfTurn(kind));
        }
        match kind {
            Kind::Resume => {
                let last = header.flags & FINAL != 0;
                self.resumed(payload)?;
                if last {
                    self.carrier_of(epoch)?.resumed = true;
                    self.settle_all();
                }
            }
            Kind::Open => self.asked(header, payload, now)?,
            Kind::Refused => self.refused(header.stream, payload)?,
            Kind::Opened | Kind::Data | Kind::Ack | Kind::Reset => self.stream_frame(header, payload, now)?,
            Kind::Datagram => self.datagram(header.stream, payload),
            Kind::Ping => self.pinged(header.offset),
            Kind::Pong => self.ponged(header.offset, now),
            Kind::GoAway => self.told_to_go(),
            Kind::Peers => self.told_of_peers(payload)?,
            Kind::Ignored => {}
            Kind::Hello | Kind::Welcome | Kind::Enrol | Kind::Certificate => {
                return Err(Violation::OutOfTurn(kind));
            }
        }
        Ok(())
    }

    fn asked(&mut self, header: Header, payload: &[u8], now: Duration) -> Result<(), Violation> {
        let id = header.stream;
        if id == 0 || self.is_ours(id) || self.streams.contains_key(&id) {
            return Err(Violation::Id(id));
        }
        let open = Open::decode(payload).ok_or(Malformed::Payload(Kind::Open))?;
        let (window, refusal) = match self.place(open.target.protocol) {
            Ok(window) => (window, None),
            Err(refusal) => (EARLY_CREDIT, Some(refusal)),
        };
        let mut stream = Stream::theirs(open, window, now);
        let agreed = stream.send.acknowledge(0, header.offset, &mut self.free);
        debug_assert!(agreed, "nothing is always received");
        let Some(refusal) = refusal else {
            self.add(id, stream);
            self.notices.push_back(Notice::Asked(StreamId(id)));
            return Ok(());
        };
        self.counters.refused_streams += 1;
        self.refuse_for_a_bound(id, stream, refusal);
        Ok(())
    }

    /// Returns the window of a stream that the peer requests, or why there is no room for the stream.
    fn place(&self, protocol: Protocol) -> Result<u64, Refusal> {
        let full = |detail| Refusal { reason: Reason::Full, detail };
        let Limits { streams, unanswered, .. } = self.limits;
        if self.draining {
            let detail = "the other end is shutting down, and accepts no new streams".to_owned();
            return Err(Refusal { reason: Reason::Draining, detail });
        }
        if self.streams.len() >= streams {
            return Err(full(format!("the session has {streams} streams, which is the limit")));
        }
        if self.unanswered[1] >= unanswered {
            return Err(full(format!("{unanswered} requests wait for their targets, which is the limit")));
        }
        let none = || full("the memory for windows is reserved for other streams".to_owned());
        self.first_window(protocol).ok_or_else(none)
    }

    /// Keeps a stream without room until its refusal is sent. The stream takes no frames. A peer that stays within the
    /// bound on unanswered requests gets every refusal; any other peer may wait in vain.
    fn refuse_for_a_bound(&mut self, id: u32, mut stream: Stream, refusal: Refusal) {
        if self.streams.len() >= self.limits.streams + self.limits.unanswered {
            return;
        }
        stream.refuse(refusal);
        stream.receive.stop();
        self.add(id, stream);
        self.settle(id);
    }

    fn refused(&mut self, id: u32, payload: &[u8]) -> Result<(), Violation> {
        let refusal = Refusal::decode(payload).ok_or(Malformed::Payload(Kind::Refused))?;
        match self.streams.get(&id) {
            Some(stream) if stream.phase == Phase::Opening && self.is_ours(id) => {
                let given_up = stream.send.is_reset();
                self.forget(id);
                if !given_up {
                    self.notices.push_back(Notice::Refused(StreamId(id), refusal));
                }
            }
            Some(_) => return Err(Violation::Id(id)),
            None => self.counters.stray_frames += 1,
        }
        Ok(())
    }

    fn stream_frame(&mut self, header: Header, payload: &[u8], now: Duration) -> Result<(), Violation> {
        let Header { stream: id, offset, .. } = header;
        let ours = self.is_ours(id);
        let right = self.with_blocks(id, |stream, free| match header.kind {
            Kind::Opened => {
                let expected = ours && stream.phase == Phase::Opening;
                if expected {
                    stream.begin();
                    stream.send.acknowledge(0, offset, free);
                }
                expected
            }
            Kind::Data => stream.receive.data(offset, payload, header.flags & FINAL != 0, free),
            Kind::Ack => match Reader(payload).u64() {
                Some(credit) => stream.send.acknowledge(offset, credit, free),
                None => false,
            },
            _ => {
                let expected = stream.receive.reset(offset);
                if expected {
                    stream.send.stop();
                }
                expected
            }
        });
        match right {
            Some(true) => self.notice(id),
            Some(false) => return Err(Violation::Position(id)),
            None => self.counters.stray_frames += 1,
        }
        if let Some(due) = self.untold.first().map(|_| now + crate::limits::ACK_DELAY) {
            self.acks_due.get_or_insert(due);
        }
        Ok(())
    }

    fn datagram(&mut self, id: u32, payload: &[u8]) {
        let spare = self.datagram_room();
        let kept = self.with(id, |stream| {
            let takes = stream.is_flow() && !stream.receive.is_done() && !stream.receive.has_end();
            takes.then(|| stream.keep_datagram(payload, spare))
        });
        match kept {
            Some(Some(dropped)) => {
                self.counters.dropped_datagrams += dropped;
                self.notice(id);
            }
            Some(None) => self.counters.dropped_datagrams += 1,
            None => self.counters.stray_frames += 1,
        }
    }
}
