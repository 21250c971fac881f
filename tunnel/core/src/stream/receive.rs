//! The receiving half of a stream.

use std::time::Duration;

use super::End;
use crate::backlog::{Backlog, FreeBlocks};
use crate::limits::QUICK;

/// The memory of a session for the windows of its streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowRoom {
    /// Bytes granted to no stream yet, of those into which windows grow.
    pub(crate) free: u64,
    /// The largest window.
    pub(crate) largest: u64,
    /// The window down to which a larger one shrinks.
    pub(crate) least: u64,
}

/// Received bytes, until the application has consumed them.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "what has come, and what is due, are independent")]
pub(crate) struct ReceiveHalf {
    bytes: Backlog,
    /// The peer may send bytes up to this position.
    granted: u64,
    window: u64,
    /// In nanoseconds: a `Duration` takes twice the space.
    granted_at: u64,
    finished: bool,
    reset: bool,
    /// Whether the application has taken the end, or reads nothing more.
    done: bool,
    /// Whether the peer has not been told of all granted bytes.
    is_credit_due: bool,
    /// Positions received since the last acknowledgement: at most those granted, far less than 4 GiB.
    unheard: u32,
}

impl ReceiveHalf {
    pub(crate) fn new(window: u64, promised: u64, now: Duration) -> Self {
        Self {
            bytes: Backlog::new(),
            granted: window,
            window,
            granted_at: nanos(now),
            finished: false,
            reset: false,
            done: false,
            is_credit_due: window > promised,
            unheard: 0,
        }
    }

    /// Number of positions received: bytes, and one each for their end and a reset.
    pub(crate) const fn received(&self) -> u64 {
        self.bytes.end() + self.finished as u64 + self.reset as u64
    }

    /// Memory that this half has promised: a whole window, including the consumed part that is not granted again yet. A
    /// window that has shrunk still counts with its earlier grants.
    pub(crate) fn promised(&self) -> u64 {
        if self.done || self.has_end() {
            return self.bytes.len();
        }
        self.window.max(self.granted - self.bytes.start())
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
        let count = u32::try_from(payload.len()).unwrap_or(u32::MAX).saturating_add(u32::from(finish));
        self.unheard = self.unheard.saturating_add(count);
        true
    }

    /// Takes a reset by the peer at the position `offset`.
    pub(crate) const fn reset(&mut self, offset: u64) -> bool {
        if offset != self.received() || self.reset {
            return false;
        }
        self.reset = true;
        self.unheard = self.unheard.saturating_add(1);
        true
    }

    /// Ends the stream with a reset, as the peer is gone. The bytes that arrived stay readable before it.
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

    /// Notes that the application reads nothing more.
    pub(crate) fn stop(&mut self) {
        self.done = true;
        self.bytes.clear();
    }

    /// Consumes `count` bytes, whose blocks go to `free`. If half of the window was used within two round trips, or
    /// [`QUICK`], the window held the peer back, and may grow.
    pub(crate) fn consume(
        &mut self,
        count: u64,
        free: &mut FreeBlocks,
        now: Duration,
        rtt: Duration,
        room: WindowRoom,
    ) {
        self.bytes.release(self.bytes.start().saturating_add(count), free);
        let wanted = self.bytes.start() + self.window;
        if self.has_end() || wanted.saturating_sub(self.granted) < self.window / 2 {
            return;
        }
        let now = nanos(now);
        let since = Duration::from_nanos(now.saturating_sub(self.granted_at));
        let is_quick = !rtt.is_zero() && since < QUICK.max(rtt * 2);
        self.window = next_window(self.window, is_quick, room);
        let granted = self.bytes.start() + self.window;
        if granted > self.granted {
            self.granted = granted;
            self.is_credit_due = true;
        }
        self.granted_at = now;
    }

    /// Whether an acknowledgement is urgent: the peer could run out of credit, or waits for the end.
    pub(crate) const fn is_urgent(&self) -> bool {
        let unheard = self.unheard as u64;
        self.is_credit_due || self.is_untold_end() || (unheard > 0 && unheard >= self.window / 4)
    }

    /// Whether an acknowledgement is due at some time.
    pub(crate) const fn is_untold(&self) -> bool {
        self.is_credit_due || self.unheard > 0
    }

    /// Whether the peer does not know yet that its end has arrived.
    pub(crate) const fn is_untold_end(&self) -> bool {
        self.has_end() && self.unheard > 0
    }

    /// The content of an acknowledgement, which counts as sent.
    pub(crate) fn tell(&mut self) -> (u64, u64) {
        self.unheard = 0;
        (self.received(), self.tell_credit())
    }

    /// The credit in a request or an answer, which counts as sent.
    pub(crate) fn tell_credit(&mut self) -> u64 {
        self.is_credit_due = false;
        self.granted
    }
}

fn nanos(now: Duration) -> u64 {
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// The window that follows a window of which half was used. It leaves as many bytes free as it has itself, so that
/// streams whose readers have stopped leave room to others: a window that held its peer back doubles within that, and a
/// larger one shrinks halfway to it.
fn next_window(window: u64, is_quick: bool, room: WindowRoom) -> u64 {
    let WindowRoom { free, largest, least } = room;
    if window > free {
        let less = window - (window - free) / 2;
        return less.max(least.min(window));
    }
    if !is_quick {
        return window;
    }
    window + window.min((free - window) / 2).min(largest.saturating_sub(window))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: WindowRoom = WindowRoom { free: 1000, largest: 500, least: 64 };

    #[test]
    fn a_window_grows_as_far_as_it_leaves_as_much_as_it_has() {
        let next = |window| next_window(window, true, ROOM);
        assert_eq!(next(100), 200, "it doubles");
        assert_eq!(next(400), 500, "up to the largest");
        let wide = WindowRoom { largest: u64::MAX, ..ROOM };
        assert_eq!(next_window(400, true, wide), 700, "and leaves 700 of 1,400");
        assert_eq!(next_window(1000, true, wide), 1000);
        assert_eq!(next_window(100, false, ROOM), 100, "it did not hold its peer back");
    }

    #[test]
    fn a_window_that_has_more_than_it_leaves_shrinks_halfway_and_not_below_the_least() {
        for is_quick in [true, false] {
            let next = |window, free| next_window(window, is_quick, WindowRoom { free, ..ROOM });
            assert_eq!(next(400, 200), 300);
            assert_eq!(next(400, 0), 200);
            assert_eq!(next(100, 0), 64);
            assert_eq!(next(32, 0), 32, "a smaller window stays");
        }
    }

    #[test]
    fn what_was_granted_before_a_window_shrank_counts_until_it_is_used() {
        let (mut half, mut free) = (ReceiveHalf::new(400, 400, Duration::ZERO), FreeBlocks::default());
        let none = WindowRoom { free: 0, ..ROOM };
        let mut use_up = |half: &mut ReceiveHalf, from, count: usize| {
            assert!(half.data(from, &vec![1; count], false, &mut free));
            half.consume(count as u64, &mut free, Duration::ZERO, Duration::ZERO, none);
            half.promised()
        };
        assert_eq!(use_up(&mut half, 0, 199), 400, "less than half was used");
        assert_eq!(use_up(&mut half, 199, 1), 200, "half was used, and the rest is the window");
        assert!(!half.is_untold_end() && !half.is_credit_due && half.granted == 400, "nothing more is granted");
        assert_eq!(use_up(&mut half, 200, 100), 100);
        assert_eq!(use_up(&mut half, 300, 100), 64);
        assert_eq!(half.granted, 464, "a peer without credit gets some");
    }

    fn half(window: u64) -> (ReceiveHalf, FreeBlocks) {
        (ReceiveHalf::new(window, window, Duration::ZERO), FreeBlocks::default())
    }

    fn consume(half: &mut ReceiveHalf, count: u64, free: &mut FreeBlocks) {
        half.consume(count, free, Duration::ZERO, Duration::ZERO, ROOM);
    }

    #[test]
    fn bytes_are_taken_in_order_up_to_what_is_granted_and_none_behind_their_end() {
        let (mut half, mut free) = half(10);
        assert!(!half.data(1, b"a", false, &mut free), "a gap");
        assert!(!half.data(0, &[7; 11], false, &mut free), "more than is granted");
        assert!(half.data(0, b"hello", false, &mut free) && half.data(5, b"world", false, &mut free));
        assert!(!half.data(5, b"", false, &mut free), "these came before");
        assert_eq!(
            (half.readable(), half.pieces().collect::<Vec<_>>().concat()),
            (&b"helloworld"[..], b"helloworld".to_vec())
        );
        assert!(half.data(10, b"", true, &mut free) && half.has_end());
        assert!(!half.data(10, b"", true, &mut free), "the end came before");
    }

    #[test]
    fn the_end_and_a_reset_are_positions_and_a_reset_comes_once() {
        let (mut half, mut free) = half(10);
        assert!(half.data(0, b"hello", false, &mut free));
        assert!(!half.reset(4) && !half.reset(6) && !half.is_reset(), "bytes are missing before it");
        assert!(half.data(5, b"", true, &mut free));
        assert_eq!(half.received(), 6);
        assert!(half.reset(6) && half.is_reset());
        assert_eq!(half.received(), 7);
        assert!(!half.reset(7), "it came before");
    }

    #[test]
    fn the_end_is_there_once_all_bytes_before_it_are_consumed() {
        let (mut open, mut free) = half(10);
        assert_eq!(open.end(), None);
        assert!(open.data(0, b"hello", true, &mut free));
        assert_eq!(open.end(), None, "bytes are not read");
        consume(&mut open, 5, &mut free);
        assert_eq!(open.end(), Some(End::Finished));
        assert!(open.reset(6));
        assert_eq!(open.end(), Some(End::Reset));
        let (mut reset, mut free) = half(10);
        assert!(reset.data(0, b"hello", false, &mut free) && reset.reset(5));
        assert_eq!(reset.end(), None, "bytes are not read");
        consume(&mut reset, 5, &mut free);
        assert_eq!(reset.end(), Some(End::Reset));
    }

    #[test]
    fn a_half_that_has_ended_promises_what_is_not_consumed_and_grants_nothing_more() {
        let (mut half, mut free) = half(400);
        assert!(half.data(0, &[7; 300], true, &mut free));
        assert_eq!(half.promised(), 300);
        consume(&mut half, 250, &mut free);
        assert_eq!((half.promised(), half.tell(), half.is_urgent()), (50, (301, 400), false));
    }

    #[test]
    fn an_application_that_wants_nothing_more_promises_nothing_and_gets_nothing() {
        let (mut half, mut free) = half(400);
        assert!(half.data(0, &[7; 300], false, &mut free) && !half.is_done());
        half.stop();
        assert!(half.is_done() && !half.has_end());
        assert!(half.data(300, &[7; 100], false, &mut free), "the peer does not know yet");
        assert_eq!((half.promised(), half.received(), half.readable()), (0, 400, &b""[..]));
    }

    #[test]
    fn a_half_whose_peer_is_gone_is_reset_and_has_nothing_to_tell() {
        let (mut half, mut free) = half(400);
        assert!(half.data(0, b"hello", false, &mut free) && half.is_untold());
        half.break_off();
        assert!(half.is_reset() && !half.is_untold() && !half.is_untold_end());
        assert_eq!(half.readable(), b"hello");
    }

    #[test]
    fn a_quarter_of_the_window_new_credit_and_an_end_are_urgent_until_they_are_told() {
        let (mut half, mut free) = half(400);
        let state = |half: &ReceiveHalf| (half.is_urgent(), half.is_untold(), half.is_untold_end());
        assert_eq!(state(&half), (false, false, false));
        for from in [0, 100] {
            assert!(half.data(from, &[7; 99], false, &mut free));
            assert_eq!(state(&half), (false, true, false), "less than a quarter");
            assert!(half.data(from + 99, &[7; 1], false, &mut free));
            assert_eq!(state(&half), (true, true, false));
            assert_eq!(half.tell(), (from + 100, 400));
            assert_eq!(state(&half), (false, false, false));
        }
        consume(&mut half, 200, &mut free);
        assert_eq!(state(&half), (true, true, false), "half of the window is granted again");
        assert_eq!(half.tell_credit(), 600);
        assert_eq!(state(&half), (false, false, false));
        assert!(half.data(200, b"", true, &mut free));
        assert_eq!(state(&half), (true, true, true));
        assert_eq!(half.tell(), (201, 600));
        assert_eq!(state(&half), (false, false, false));
    }

    #[test]
    fn credit_that_the_peer_does_not_know_is_urgent_and_a_tiny_window_without_bytes_is_not() {
        let half = |window, promised| ReceiveHalf::new(window, promised, Duration::ZERO);
        assert!(half(400, 300).is_urgent() && half(400, 300).is_untold());
        assert!(!half(3, 3).is_urgent());
    }
}
