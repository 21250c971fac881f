//! When a stream that a listener has left is waited for no longer.

/// Looks, one a second, after which it is not: what came since would wait for a server that may be gone for good.
const LOOKS: u32 = 60;

/// A stream whose messages are sent before those of the store that took its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostStream {
    /// Looks in a row at which it failed.
    failed: u32,
    /// The first message that its sink did not have at the last look.
    cursor: u64,
}

impl LostStream {
    /// Once a second: whether it is lost, now that it `fails` or does not, and the sink has all messages before `cursor`. A
    /// server that restarts is waited for, and so is one that takes no messages but still gives them.
    #[must_use]
    pub fn see(&mut self, fails: bool, cursor: u64) -> bool {
        let moves = std::mem::replace(&mut self.cursor, cursor) != cursor;
        self.failed = if fails && !moves { self.failed.saturating_add(1) } else { 0 };
        self.failed >= LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_lost_once_it_has_failed_for_a_minute_without_a_break() {
        let mut stream = LostStream::default();
        assert!((1..LOOKS).all(|_| !stream.see(true, 0)));
        assert!(!stream.see(false, 0), "it works again");
        assert!((1..LOOKS).all(|_| !stream.see(true, 0)));
        assert!(stream.see(true, 0));
        assert!((0..10 * LOOKS).all(|_| !stream.see(false, 0)), "one that works is waited for without an end");
    }

    #[test]
    fn a_stream_that_takes_no_messages_is_waited_for_while_its_sink_gets_those_that_it_has() {
        let mut stream = LostStream::default();
        assert!((0..10 * u64::from(LOOKS)).all(|cursor| !stream.see(true, cursor)));
    }
}
