//! What the connections of one socket share.

use std::net::IpAddr;

use proxy_api::partials::{Partial, PartialShare};
use tokio::sync::{Mutex, MutexGuard};

#[derive(Debug)]
pub(super) struct Room {
    /// Short messages take many times their bytes until the store has them: one connection reads at a time.
    turn: Mutex<()>,
    share: PartialShare,
}

impl Room {
    pub(super) fn new(share: PartialShare) -> Self {
        Self { turn: Mutex::new(()), share }
    }

    /// Waits for the turn to read, which ends once the store has what was read.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// What a connection of this source has of a message that has not ended.
    pub(super) fn partial(&self, source: IpAddr) -> Partial {
        self.share.partial(source)
    }
}
