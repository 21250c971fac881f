//! The memory of the connections of one socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, MutexGuard};

/// Bytes of messages that have not ended, of all connections of a socket together. A connection with less than its
/// equal part of them is never closed for others, so they are twice as many at most. Any one message has room.
pub const PARTIAL_BYTES: usize = 16 << 20;

/// What the connections share.
#[derive(Debug)]
pub(super) struct Room {
    /// Short messages take many times their bytes until the store has them: one connection reads at a time.
    turn: Mutex<()>,
    partial: AtomicUsize,
    /// The equal part of a connection.
    share: usize,
}

impl Room {
    pub(super) fn new(connections: usize) -> Self {
        Self { turn: Mutex::new(()), partial: AtomicUsize::new(0), share: PARTIAL_BYTES / connections.max(1) }
    }

    /// Waits for the turn to read, which ends once the store has what was read.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

/// What one connection holds of a message that has not ended.
#[derive(Debug)]
pub(super) struct Partial {
    room: Arc<Room>,
    bytes: usize,
}

impl Partial {
    pub(super) fn new(room: Arc<Room>) -> Self {
        Self { room, bytes: 0 }
    }

    /// Says how much is held now. Returns whether there is room for it.
    pub(super) fn holds(&mut self, bytes: usize) -> bool {
        self.room.partial.fetch_add(bytes, Ordering::Relaxed);
        let before = self.room.partial.fetch_sub(self.bytes, Ordering::Relaxed);
        let all = before.saturating_sub(self.bytes);
        self.bytes = bytes;
        bytes <= self.room.share || all <= PARTIAL_BYTES
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.room.partial.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_that_grows_beyond_the_bound_has_no_room_and_small_ones_always_have() {
        let room = Arc::new(Room::new(4));
        let of = || Partial::new(room.clone());
        let (mut first, mut second, mut third, mut small) = (of(), of(), of(), of());
        assert!(first.holds(PARTIAL_BYTES / 2));
        assert!(second.holds(PARTIAL_BYTES / 2));
        assert!(!third.holds(PARTIAL_BYTES / 4 + 1), "there is no room beside the two");
        assert!(small.holds(PARTIAL_BYTES / 4), "it has its part");
        drop((third, small));
        assert!(!second.holds(PARTIAL_BYTES / 2 + 1));
        drop(first);
        assert!(second.holds(PARTIAL_BYTES), "the first one has ended");
        assert!(second.holds(0));
    }
}
