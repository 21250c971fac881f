//! Messages on their way into the log, and what they cost meanwhile.

use std::sync::Arc;

use durable_core::Message;

/// What a message counts beside its bytes and its source. So the queue has a bound in messages, too.
const MESSAGE_COST: usize = 64;
/// The fewest bytes that a message takes in a stream: a byte and its end, or the length of an empty one.
const LEAST_IN_STREAM: usize = 2;

/// A message on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Who sent it.
    pub source: Arc<[u8]>,
    /// When it came, in milliseconds since 1970.
    pub received_millis: u64,
    /// Its bytes.
    pub payload: Vec<u8>,
}

impl Incoming {
    pub(super) fn message(&self) -> Message<'_> {
        Message { source: &self.source, received_millis: self.received_millis, payload: &self.payload }
    }

    /// What it counts, in bytes.
    pub(crate) fn cost(&self) -> usize {
        MESSAGE_COST + self.source.len() + self.payload.len()
    }

    /// What messages of this source count at most that come in so many bytes of a stream, and begin in them.
    pub(crate) const fn most_cost(bytes: usize, source: &[u8]) -> usize {
        bytes.div_ceil(LEAST_IN_STREAM) * (MESSAGE_COST + source.len()) + bytes
    }
}
