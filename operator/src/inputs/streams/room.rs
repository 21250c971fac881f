//! Room for what proxies send, over all streams: a stream waits while there is none.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of revisions that proxies hold, while the operator compares them with its own.
const HELD: usize = 64 << 20;
/// Bytes of reports that wait for the driver.
const REPORTS: usize = 64 << 20;

/// Room of one kind.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes >> 10)))
    }

    /// Waits for room for so many bytes. Absent: the operator is shutting down.
    pub(super) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        self.0.clone().acquire_many_owned(kib).await.ok()
    }
}

/// All rooms.
#[derive(Clone, Debug)]
pub(super) struct Rooms {
    pub(super) held: Room,
    pub(super) reports: Room,
}

impl Default for Rooms {
    fn default() -> Self {
        Self { held: Room::new(HELD), reports: Room::new(REPORTS) }
    }
}
