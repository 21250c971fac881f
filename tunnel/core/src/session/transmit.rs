//! Frames to the peer.

use std::time::Duration;

use super::{Session, Violation};
use crate::frame::{FINAL, Kind, put};
use crate::stream::send::Piece;
use crate::stream::{Phase, Stream, Word};

impl Session {
    /// Appends frames until `out` has `limit` bytes or nothing is left to send. Streams take turns of one data frame,
    /// and every other turn is for datagrams.
    pub fn transmit(&mut self, epoch: u64, out: &mut Vec<u8>, limit: usize, now: Duration) -> Result<(), Violation> {
        let carrier = self.carrier_of(epoch)?;
        // Taken with its capacity: a resumption has 21 bytes for each stream, and a heartbeat 16.
        out.append(&mut std::mem::take(&mut carrier.words));
        if let Some(offset) = carrier.pong.take() {
            put(out, Kind::Pong, 0, 0, offset, &[]);
        }
        let resumed = carrier.resumed;
        self.put_peers(out);
        if !resumed {
            return Ok(());
        }
        while out.len() < limit {
            let datagram = self.datagram_turn(out, now);
            let stream = self.stream_turn(out);
            if !datagram && !stream {
                break;
            }
        }
        Ok(())
    }

    /// Whether [`Session::transmit`] would append anything.
    pub fn has_output(&self) -> bool {
        let Some(carrier) = &self.carrier else { return false };
        let words = !carrier.words.is_empty() || carrier.pong.is_some() || self.peers_due.is_some();
        words || (carrier.resumed && (!self.ready.is_empty() || !self.lane.is_empty()))
    }

    fn datagram_turn(&mut self, out: &mut Vec<u8>, now: Duration) -> bool {
        let (next, old) = self.lane.next(now);
        self.counters.dropped_datagrams += old;
        let Some((flow, datagram)) = next else { return false };
        // The peer refuses datagrams of a flow that it has no request for.
        let ours = self.is_ours(flow);
        let Some(stream) = self.streams.get_mut(&flow) else {
            self.counters.dropped_datagrams += 1;
            return true;
        };
        if matches!(stream.phase, Phase::Opening | Phase::Open) {
            word(flow, ours, stream, out);
        }
        put(out, Kind::Datagram, 0, flow, 0, &datagram);
        true
    }

    fn stream_turn(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(id) = self.ready.pop_front() else { return false };
        let ours = self.is_ours(id);
        let refused = self.with(id, |stream| {
            stream.queued = false;
            if word(id, ours, stream, out) {
                return true;
            }
            if std::mem::take(&mut stream.ack_due) && stream.receive.is_untold() {
                let (received, credit) = stream.receive.tell();
                put(out, Kind::Ack, 0, id, received, &credit.to_be_bytes());
            }
            match stream.send.piece() {
                Some(Piece::Bytes(at, bytes, last)) => {
                    put(out, Kind::Data, if last { FINAL } else { 0 }, id, at, bytes);
                }
                Some(Piece::Reset(at)) => put(out, Kind::Reset, 0, id, at, &[]),
                None => {}
            }
            false
        });
        if refused == Some(true) {
            self.forget(id);
        }
        true
    }
}

/// Sends the request or the answer that is due. Returns whether it was a refusal, after which the stream no longer
/// exists.
fn word(id: u32, ours: bool, stream: &mut Stream, out: &mut Vec<u8>) -> bool {
    if !std::mem::take(&mut stream.word_due) {
        return false;
    }
    match (stream.phase, stream.word.as_deref()) {
        (Phase::Opening, Some(Word::Request(open))) if ours => {
            put(out, Kind::Open, 0, id, stream.receive.tell_credit(), &open.encode());
            stream.asked = true;
        }
        (Phase::Open, _) => {
            put(out, Kind::Opened, 0, id, stream.receive.tell_credit(), &[]);
        }
        (Phase::Refusing, Some(Word::Refusal(refusal))) => {
            put(out, Kind::Refused, 0, id, 0, &refusal.encode());
            return true;
        }
        _ => {}
    }
    false
}
