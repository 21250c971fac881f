//! Asks: questions to a proxy about its live sessions, in the queue of its stream.

use proxy_api::{LiveSessions, Selection};
use tokio::sync::{mpsc, oneshot};

/// The most asks in the queue of one stream.
const WAITING: usize = 4;

/// A question to a proxy about its live sessions.
#[derive(Debug)]
pub struct Ask {
    /// The sessions to list, in a box: a queue has room for 32 asks from the start, and nearly all queues stay empty.
    pub selection: Box<Selection>,
    /// Receives the answer. A stream that cannot pass on the question drops the sender.
    pub reply: oneshot::Sender<LiveSessions>,
}

/// The queue of a stream.
pub(super) fn queue() -> (mpsc::Sender<Ask>, mpsc::Receiver<Ask>) {
    mpsc::channel(WAITING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_queue_of_a_stream_is_small() {
        assert_eq!(size_of::<Ask>(), 2 * size_of::<usize>());
    }
}
