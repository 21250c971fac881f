//! The sending half of a stream.

use crate::backlog::{Backlog, FreeBlocks};
use crate::frame::MAX_PAYLOAD;

/// Bytes, until the peer has acknowledged them. The end of the bytes counts as one more position and a reset as
/// another, so that one number describes everything that has arrived.
#[derive(Debug)]
pub(crate) struct SendHalf {
    bytes: Backlog,
    /// The position to send next.
    next: u64,
    /// The highest position that was ever sent.
    sent: u64,
    /// The peer has acknowledged everything before this position.
    received: u64,
    /// The peer takes bytes up to this position.
    credit: u64,
    finished: bool,
    reset: bool,
    /// Whether nothing more is sent, because the peer gave the stream up.
    stopped: bool,
}

/// A frame from [`SendHalf::piece`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Bytes from a position on, and whether the stream finishes after them.
    Bytes(u64, &'a [u8], bool),
    /// A reset at a position.
    Reset(u64),
}

impl SendHalf {
    pub(crate) const fn new(credit: u64) -> Self {
        Self {
            bytes: Backlog::new(),
            next: 0,
            sent: 0,
            received: 0,
            credit,
            finished: false,
            reset: false,
            stopped: false,
        }
    }

    /// How many bytes [`SendHalf::write`] would take.
    pub(crate) const fn room(&self) -> u64 {
        if self.finished || self.reset || self.stopped {
            return 0;
        }
        self.credit.saturating_sub(self.bytes.end())
    }

    pub(crate) fn write(&mut self, bytes: &[u8], free: &mut FreeBlocks) -> usize {
        let room = usize::try_from(self.room()).unwrap_or(usize::MAX);
        let taken = bytes.len().min(room);
        self.bytes.push(&bytes[..taken], free);
        taken
    }

    /// Bytes that the peer has not acknowledged.
    pub(crate) fn kept(&self) -> u64 {
        self.bytes.len()
    }

    /// Ends the bytes of this direction.
    pub(crate) const fn finish(&mut self) {
        self.finished = self.finished || !self.reset;
    }

    /// Gives the stream up in both directions.
    pub(crate) const fn reset(&mut self) {
        self.reset = true;
    }

    pub(crate) const fn is_reset(&self) -> bool {
        self.reset
    }

    /// Stops sending, as the peer gave the stream up.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        self.bytes.clear();
    }

    /// Whether the direction has ended and the peer has acknowledged it.
    pub(crate) const fn is_done(&self) -> bool {
        self.stopped || ((self.finished || self.reset) && self.received == self.total())
    }

    /// Whether the peer has all bytes and their end.
    pub(crate) const fn finish_is_heard(&self) -> bool {
        self.finished && self.received > self.bytes.end()
    }

    /// Whether the end of the direction was sent on any carrier.
    pub(crate) const fn end_sent(&self) -> bool {
        self.sent > self.bytes.end()
    }

    /// The highest position that was ever sent.
    pub(crate) const fn sent(&self) -> u64 {
        self.sent
    }

    const fn total(&self) -> u64 {
        self.bytes.end() + self.finished as u64 + self.reset as u64
    }

    pub(crate) const fn has_piece(&self) -> bool {
        !self.stopped && self.next < self.total()
    }

    /// The next frame, which then counts as sent.
    pub(crate) fn piece(&mut self) -> Option<Piece<'_>> {
        if !self.has_piece() {
            return None;
        }
        let (at, last) = (self.next, self.bytes.end());
        if at >= last && !(self.finished && at == last) {
            self.advance(at + 1);
            return Some(Piece::Reset(at));
        }
        let length = self.bytes.at(at).len().min(MAX_PAYLOAD);
        let after = at + length as u64;
        let finish = self.finished && after == last;
        self.advance(after + u64::from(finish));
        Some(Piece::Bytes(at, &self.bytes.at(at)[..length], finish))
    }

    fn advance(&mut self, next: u64) {
        self.next = next;
        self.sent = self.sent.max(next);
    }

    /// Notes that the peer has everything before `received`, and takes bytes up to `credit`. Returns `false` if that
    /// much was not sent on this carrier.
    pub(crate) fn acknowledge(&mut self, received: u64, credit: u64, free: &mut FreeBlocks) -> bool {
        if received > self.next {
            return false;
        }
        self.hear(received, credit, free);
        true
    }

    fn hear(&mut self, received: u64, credit: u64, free: &mut FreeBlocks) {
        self.bytes.release(received, free);
        self.received = self.received.max(received);
        self.credit = self.credit.max(credit);
    }

    /// Resumes on a new carrier: bytes that the peer has not received are resent.
    pub(crate) fn resume(&mut self, received: u64, credit: u64, free: &mut FreeBlocks) -> bool {
        // Acknowledged bytes were released, so a peer that has fewer has lost them.
        if received < self.received || received > self.sent {
            return false;
        }
        self.hear(received, credit, free);
        self.next = received;
        true
    }

    /// Restarts on a new carrier with a peer that does not know the stream, with the credit of a new stream. Returns
    /// `false` if the peer once knew it, and took or granted more than that.
    pub(crate) const fn restart(&mut self, credit: u64) -> bool {
        self.next = 0;
        self.credit = credit;
        self.received == 0 && self.bytes.end() <= credit
    }
}
