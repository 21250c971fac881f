//! Which logs of a removed listener send next.

/// The remainder of logs whose drain has ended: their sink has all messages, or the time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Messages that the sink does not have.
    pub backlog: u64,
    /// Messages that their stream did not have when it was closed.
    pub unpublished: u64,
}

impl Drained {
    /// Whether the next logs send now. They would overtake messages that wait. A stream that lacks messages was closed
    /// as the time was over, and these are reported only while it is among the logs.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        self.backlog == 0 && self.unpublished == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_logs_send_once_the_sink_has_all() {
        assert!(Drained::default().is_complete());
        assert!(!Drained { backlog: 1, unpublished: 0 }.is_complete());
    }

    #[test]
    fn a_stream_that_was_closed_before_it_had_all_is_not_passed_though_the_sink_has_all_that_it_has() {
        assert!(!Drained { backlog: 0, unpublished: 1 }.is_complete());
        assert!(!Drained { backlog: 1, unpublished: 1 }.is_complete());
    }
}
