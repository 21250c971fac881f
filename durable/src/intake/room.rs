//! The memory that connections of one socket and lane share.

use std::net::IpAddr;

use proxy_api::partials::{Partial, PartialShare};
use tokio::sync::{Mutex, MutexGuard};

#[derive(Debug)]
pub(super) struct Room {
    /// Short messages take many times their bytes until the store has them: one connection reads at a time.
    turn: Mutex<()>,
    share: PartialShare,
    /// Bytes that a connection reads although there is no memory.
    pub(super) least_read: usize,
}

impl Room {
    pub(super) fn new(share: PartialShare, least_read: usize) -> Self {
        Self { turn: Mutex::new(()), share, least_read }
    }

    /// Waits for the turn to read, which ends once the store has what was read.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The memory for an incomplete message of a connection from this source.
    pub(super) fn partial(&self, source: IpAddr) -> Partial {
        self.share.partial(source)
    }
}
