//! The operations of the application, which owns the sockets.

use std::time::Duration;

use super::{NotOpened, Session, StreamId};
use crate::frame::MAX_DATAGRAM;
use crate::open::{Open, Refusal};
use crate::stream::{End, Phase, Stream};

impl Session {
    /// Asks the peer for a stream. Bytes may be written before the answer.
    pub fn open(&mut self, open: Open, now: Duration) -> Result<StreamId, NotOpened> {
        if self.lost.is_some() || self.peer_draining {
            return Err(NotOpened::Closed);
        }
        if self.streams.len() >= self.limits.streams {
            return Err(NotOpened::Streams);
        }
        if self.unanswered[0] >= self.limits.unanswered {
            return Err(NotOpened::Unanswered);
        }
        let window = self.first_window(open.target.protocol).ok_or(NotOpened::Memory)?;
        while self.streams.contains_key(&self.next_id) {
            self.next_id = self.following();
        }
        let id = self.next_id;
        self.next_id = self.following();
        self.add(id, Stream::ours(open, window, now));
        self.settle(id);
        Ok(StreamId(id))
    }

    /// The next stream id of this end. Id 0 is the session's.
    const fn following(&self) -> u32 {
        match self.next_id.wrapping_add(2) {
            0 => 2,
            id => id,
        }
    }

    /// The request for this stream, until it is answered.
    pub fn request(&self, id: StreamId) -> Option<&Open> {
        self.streams.get(&id.0)?.request()
    }

    /// Answers that the target is connected.
    pub fn accept(&mut self, id: StreamId) {
        self.with(id.0, |stream| {
            if stream.phase == Phase::Asked {
                stream.begin();
                stream.word_due = true;
            }
        });
    }

    /// Answers that the target is not connected. The stream no longer exists.
    pub fn refuse(&mut self, id: StreamId, refusal: Refusal) {
        let lost = self.lost.is_some();
        let mut dropped = 0;
        let unheard = self.with(id.0, |stream| {
            if stream.phase != Phase::Asked {
                return false;
            }
            stream.refuse(refusal);
            dropped = stream.drop_datagrams();
            stream.receive.stop();
            // A peer that has given the stream up also waits for an answer, until it has one.
            lost || (stream.receive.is_reset() && !stream.receive.is_untold_end())
        });
        self.counters.dropped_datagrams += dropped;
        if unheard == Some(true) {
            self.forget(id.0);
        }
    }

    /// Whether the peer has connected the target.
    pub fn is_open(&self, id: StreamId) -> bool {
        self.streams.get(&id.0).is_some_and(|stream| stream.phase == Phase::Open)
    }

    /// How many bytes [`Session::write`] would take; none for a flow. If it would take none for a stream,
    /// [`super::Notice::Changed`] comes when there is room.
    pub fn room(&mut self, id: StreamId) -> usize {
        let free = self.keepable();
        let Some(stream) = self.streams.get_mut(&id.0) else { return 0 };
        let room = if stream.is_flow() { 0 } else { stream.send.room() };
        if room > 0 && free == 0 && !stream.starved {
            stream.starved = true;
            self.starved.push_back(id.0);
        }
        usize::try_from(room.min(free)).unwrap_or(usize::MAX)
    }

    /// Takes bytes to send, as many as there is [`Session::room`] for.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> usize {
        let bytes = &bytes[..bytes.len().min(self.room(id))];
        self.with_blocks(id.0, |stream, free| stream.send.write(bytes, free)).unwrap_or_default()
    }

    /// Ends the bytes of this direction.
    pub fn finish(&mut self, id: StreamId) {
        self.with(id.0, |stream| stream.send.finish());
    }

    /// Gives the stream up in both directions. Bytes that were written before are still sent.
    pub fn reset(&mut self, id: StreamId) {
        self.with(id.0, |stream| {
            stream.drop_datagrams();
            stream.receive.stop();
            stream.send.reset();
        });
    }

    /// Received bytes that are not consumed yet, up to the first gap between blocks.
    pub fn readable(&self, id: StreamId) -> &[u8] {
        self.streams.get(&id.0).map_or(&[], |stream| stream.receive.readable())
    }

    /// All received bytes that are not consumed yet, block by block.
    pub fn pieces(&self, id: StreamId) -> impl Iterator<Item = &[u8]> {
        self.streams.get(&id.0).into_iter().flat_map(|stream| stream.receive.pieces())
    }

    /// Consumes the first `count` bytes of [`Session::pieces`].
    pub fn consume(&mut self, id: StreamId, count: usize, now: Duration) {
        let (room, rtt) = (self.window_room(), self.rtt);
        self.with_blocks(id.0, |stream, free| stream.receive.consume(count as u64, free, now, rtt, room));
    }

    /// How the bytes ended, once all were consumed. A stream that no longer exists counts as reset.
    pub fn end(&mut self, id: StreamId) -> Option<End> {
        let Some(stream) = self.streams.get(&id.0) else {
            return Some(End::Reset);
        };
        let end = stream.receive.end()?;
        self.with(id.0, |stream| stream.end_taken = true);
        Some(end)
    }

    /// Whether either end gave the stream up, so that bytes written from now on do not arrive. Bytes that arrived
    /// before may still be unread.
    pub fn is_reset(&self, id: StreamId) -> bool {
        self.streams.get(&id.0).is_none_or(|stream| stream.is_reset())
    }

    /// Sends a datagram of a flow, unless it becomes too old before the carrier takes it.
    pub fn send_datagram(&mut self, id: StreamId, datagram: &[u8], now: Duration) {
        let is_flow = self.streams.get(&id.0).is_some_and(|stream| stream.is_flow() && !stream.is_reset());
        if !is_flow || datagram.len() > MAX_DATAGRAM {
            self.counters.dropped_datagrams += 1;
            return;
        }
        self.counters.dropped_datagrams += self.lane.push(id.0, datagram, now);
    }

    /// The next datagram of a flow.
    pub fn take_datagram(&mut self, id: StreamId) -> Option<Vec<u8>> {
        self.with(id.0, Stream::take_datagram).flatten()
    }
}
