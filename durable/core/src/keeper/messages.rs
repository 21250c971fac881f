//! Messages on their way into a log, and out of it.

use std::sync::Arc;

use crate::Message;

/// The bytes that a message counts beside its payload and its source, so that the queue has a bound in messages, too.
const MESSAGE_COST: usize = 64;
/// The fewest bytes that a message takes in a stream: a byte and its end, or the length of an empty one.
const LEAST_IN_STREAM: usize = 2;

/// A message on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The sender.
    pub source: Arc<[u8]>,
    /// The time of receipt, in milliseconds since 1970.
    pub received_millis: u64,
    /// The bytes of the message.
    pub payload: Vec<u8>,
}

impl Incoming {
    /// The message in the form that the log takes.
    pub fn message(&self) -> Message<'_> {
        Message { source: &self.source, received_millis: self.received_millis, payload: &self.payload }
    }

    /// The bytes that the message counts in the queue.
    pub fn cost(&self) -> usize {
        MESSAGE_COST + self.source.len() + self.payload.len()
    }

    /// The most that messages of this source count if they begin within `bytes` bytes of a stream.
    #[must_use]
    pub const fn most_cost(bytes: usize, source: &[u8]) -> usize {
        bytes.div_ceil(LEAST_IN_STREAM) * (MESSAGE_COST + source.len()) + bytes
    }
}

/// A message that the log keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The number of the message.
    pub number: u64,
    /// The sender.
    pub source: Vec<u8>,
    /// The time of receipt, in milliseconds since 1970.
    pub received_millis: u64,
    /// The bytes of the message.
    pub payload: Vec<u8>,
}

/// The bounds of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadBound {
    /// The most messages.
    pub messages: usize,
    /// No message is read after the one that reaches this many bytes.
    pub bytes: usize,
}

/// The result of a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadMessages {
    /// The messages. Numbers that are missing are lost or dropped.
    pub messages: Vec<Kept>,
    /// The number to read next, and the one to acknowledge once these messages are delivered.
    pub next: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Incoming {
        Incoming { source: Arc::from(&b"192.0.2.1"[..]), received_millis: 0, payload: vec![0; bytes] }
    }

    #[test]
    fn a_message_counts_its_bytes_its_source_and_64_more() {
        assert_eq!([0, 5].map(|bytes| message(bytes).cost()), [73, 78]);
    }

    #[test]
    fn what_comes_in_some_bytes_of_a_stream_counts_no_more_than_is_reserved_for_it() {
        let most = |bytes| Incoming::most_cost(bytes, b"192.0.2.1");
        assert_eq!([0, 1, 2, 3].map(most), [0, 74, 75, 149], "a message begins with every other byte");
        // Messages of one length, each with its end, and the last one cut off.
        for bytes in 1..100 {
            for length in 1..10 {
                let (whole, rest) = (bytes / (length + 1), bytes % (length + 1));
                let last = if rest > 0 { message(rest).cost() } else { 0 };
                let cost = whole * message(length).cost() + last;
                assert!(cost <= most(bytes), "{bytes} bytes of messages of {length}");
            }
        }
    }
}
