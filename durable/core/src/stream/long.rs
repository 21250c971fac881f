//! Messages that the server never takes, as they are too long.

use std::mem::take;
use std::time::Duration;

use crate::keeper::StoreEvent;

/// The least time between two log lines about such messages, as each message of a client may be one.
const EVERY: Duration = Duration::from_secs(10);

/// Messages that are too long, for the log lines about them. They are counted elsewhere.
#[derive(Debug, Default)]
pub struct LongMessages {
    /// Messages that were not logged.
    unreported: u64,
    /// The length of the longest message among those that came last.
    bytes: usize,
    why: String,
    reported: Option<Duration>,
}

impl LongMessages {
    /// Takes messages that were given up, the longest of which has `bytes` bytes. `why` says what the server takes.
    pub fn come(&mut self, messages: u64, bytes: usize, why: String) {
        self.unreported += messages;
        (self.bytes, self.why) = (bytes, why);
    }

    /// The event to log at `now` of a steady clock, if any. Ask again later, so that the last messages are logged, too.
    pub fn due(&mut self, now: Duration) -> Option<StoreEvent> {
        if self.unreported == 0 || self.reported.is_some_and(|reported| now < reported + EVERY) {
            return None;
        }
        self.reported = Some(now);
        Some(StoreEvent::TooLong { messages: take(&mut self.unreported), bytes: self.bytes, why: self.why.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_are_too_long_are_told_at_once_and_then_once_in_a_while_and_each_one_in_one_line() {
        let mut long = LongMessages::default();
        let due = |long: &mut LongMessages, millis| long.due(Duration::from_millis(millis));
        let reported = |messages, bytes, why: &str| Some(StoreEvent::TooLong { messages, bytes, why: why.to_owned() });
        assert_eq!(due(&mut long, 0), None);
        long.come(2, 70, "first".to_owned());
        assert_eq!((due(&mut long, 1), due(&mut long, 2)), (reported(2, 70, "first"), None));
        long.come(3, 90, "second".to_owned());
        long.come(4, 80, "third".to_owned());
        assert_eq!((due(&mut long, 10_000), due(&mut long, 10_001)), (None, reported(7, 80, "third")));
        assert_eq!(due(&mut long, 30_000), None);
        long.come(1, 60, "fourth".to_owned());
        assert_eq!(due(&mut long, 30_001), reported(1, 60, "fourth"));
    }
}
