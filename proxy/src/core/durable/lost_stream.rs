//! When to stop waiting for a stream that a listener has left.

/// Observations, one a second, until a stream is lost: newer messages would wait for a server that may never return.
const LOOKS: u32 = 60;

/// A stream whose messages are sent before those of the store that took its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostStream {
    /// Consecutive observations at which the stream failed.
    failed: u32,
    /// The first message that its sink did not have at the last observation.
    cursor: u64,
}

impl LostStream {
    /// Observes the stream once a second, and returns whether it is lost. It `fails` or not, and the sink has all
    /// messages before `cursor`. A server that restarts is waited for, as is one that only delivers messages.
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
