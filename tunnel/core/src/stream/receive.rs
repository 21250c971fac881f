//! The receiving half of a stream.

use std::time::Duration;

use super::End;
use crate::backlog::{Backlog, FreeBlocks};
use crate::limits::QUICK;

/// Received bytes, until the application has consumed them.
#[derive(Debug)]
pub(crate) struct ReceiveHalf {
    bytes: Backlog,
    /// The peer may send bytes up to this position.
    granted: u64,
    window: u64,
    granted_at: Duration,
    finished: bool,
    reset: bool,
    /// Whether the application has taken the end, or wants nothing more.
    done: bool,
    /// The position in the last acknowledgement.
    told: u64,
    told_credit: u64,
}

impl ReceiveHalf {
    pub(crate) const fn new(window: u64, promised: u64, now: Duration) -> Self {
        Self {
            bytes: Backlog::new(),
            granted: window,
            window,
            granted_at: now,
            finished: false,
            reset: false,
            done: false,
            told: 0,
            told_credit: promised,
        }
    }

    /// Number of positions received: bytes, and one each for their end and a reset.
    pub(crate) const fn received(&self) -> u64 {
        self.bytes.end() + self.finished as u64 + self.reset as u64
    }

    /// Memory that this half has promised: a whole window, including the consumed part that is not granted again yet.
    pub(crate) const fn promised(&self) -> u64 {
        if self.done || self.has_end() {
            return self.bytes.len();
        }
        self.window
    }

    /// Takes bytes from `offset` on. Returns `false` if they are not the next ones, or were not granted.
    pub(crate) fn data(&mut self, offset: u64, payload: &[u8], finish: bool, free: &mut FreeBlocks) -> bool {
        let next = offset == self.bytes.end() && !self.has_end();
        if !next || offset.saturating_add(payload.len() as u64) > self.granted {
            return false;
        }
        self.bytes.push(payload, free);
        if self.done {
            self.bytes.clear();
        }
        self.finished = finish;
        true
    }

    /// The peer gave the stream up, at the position `offset`.
    pub(crate) const fn reset(&mut self, offset: u64) -> bool {
        if offset != self.received() || self.reset {
            return false;
        }
        self.reset = true;
        true
    }

    /// The peer is gone. The bytes that arrived stay readable, and then the stream ends with a reset.
    pub(crate) fn break_off(&mut self) {
        self.reset = true;
        self.tell();
    }

    pub(crate) fn readable(&self) -> &[u8] {
        self.bytes.at(self.bytes.start())
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.pieces()
    }

    /// The end, once every byte before it was consumed.
    pub(crate) const fn end(&self) -> Option<End> {
        match (self.bytes.is_empty(), self.reset, self.finished) {
            (true, true, _) => Some(End::Reset),
            (true, false, true) => Some(End::Finished),
            _ => None,
        }
    }

    /// Whether no more bytes will come.
    pub(crate) const fn has_end(&self) -> bool {
        self.finished || self.reset
    }

    pub(crate) const fn is_reset(&self) -> bool {
        self.reset
    }

    pub(crate) const fn is_done(&self) -> bool {
        self.done
    }

    /// The application wants nothing more.
    pub(crate) fn stop(&mut self) {
        self.done = true;
        self.bytes.clear();
    }

    /// The application has consumed `count` bytes, whose blocks go to `free`. If half of the window was used within two
    /// round trips, or [`QUICK`], the window held the peer back: then it doubles, by at most `spare` bytes and up to
    /// `largest`.
    pub(crate) fn consume(
        &mut self,
        count: u64,
        free: &mut FreeBlocks,
        now: Duration,
        rtt: Duration,
        (spare, largest): (u64, u64),
    ) {
        self.bytes.release(self.bytes.start().saturating_add(count), free);
        let wanted = self.bytes.start() + self.window;
        if self.has_end() || wanted.saturating_sub(self.granted) < self.window / 2 {
            return;
        }
        if !rtt.is_zero() && now.saturating_sub(self.granted_at) < QUICK.max(rtt * 2) {
            self.window += self.window.min(spare).min(largest.saturating_sub(self.window));
        }
        self.granted = self.granted.max(self.bytes.start() + self.window);
        self.granted_at = now;
    }

    /// Whether an acknowledgement is urgent: the peer could run out of credit, or waits for the end.
    pub(crate) const fn is_urgent(&self) -> bool {
        let unheard = self.received() - self.told;
        self.granted > self.told_credit || self.is_untold_end() || (unheard > 0 && unheard >= self.window / 4)
    }

    /// Whether an acknowledgement is due at some time.
    pub(crate) const fn is_untold(&self) -> bool {
        self.granted > self.told_credit || self.received() > self.told
    }

    /// Whether the peer does not know yet that its end has arrived.
    pub(crate) const fn is_untold_end(&self) -> bool {
        self.has_end() && self.told < self.received()
    }

    /// The content of an acknowledgement, which counts as sent.
    pub(crate) fn tell(&mut self) -> (u64, u64) {
        self.told = self.received();
        (self.told, self.tell_credit())
    }

    /// The credit in a request or an answer, which counts as sent.
    pub(crate) fn tell_credit(&mut self) -> u64 {
        self.told_credit = self.granted;
        self.told_credit
    }
}
