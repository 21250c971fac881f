//! The bytes that a client has sent before its pod answered, kept for another pod.

/// The most bytes that are kept. A client that sends more before the first answer stays with its pod.
pub const KEPT: usize = 64 << 10;

/// Bytes that no pod is known to have read.
#[derive(Debug, Default)]
pub struct Replay {
    bytes: Vec<u8>,
}

impl Replay {
    /// Stores bytes that the client has sent.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes to send to the next pod.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of further bytes that can be kept.
    pub fn room(&self) -> usize {
        KEPT.saturating_sub(self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_kept_in_order_and_the_room_ends() {
        let mut replay = Replay::default();
        replay.keep(b"ab");
        replay.keep(b"c");
        assert_eq!((replay.bytes(), replay.room()), (&b"abc"[..], KEPT - 3));
        replay.keep("x".repeat(KEPT).as_bytes());
        assert_eq!(replay.room(), 0);
    }
}
