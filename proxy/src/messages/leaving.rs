//! The log of a listener that is gone, while its sink still gets messages.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use durable::Store;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use super::CLOSE_WITHIN;

/// Pause between two looks whether anybody still waits for the end of the process.
const PAUSE: Duration = Duration::from_millis(100);

/// The log of a listener that is gone.
pub(super) struct Leaving {
    store: Store,
    task: JoinHandle<()>,
}

impl Leaving {
    /// The log whose store is drained by this task.
    pub(super) const fn new(store: Store, task: JoinHandle<()>) -> Self {
        Self { store, task }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until it is closed; closes it at this time if it is not, or once `stop` is set.
    pub(super) async fn finish(mut self, until: Instant, stop: &AtomicBool) {
        while Instant::now() < until && !stop.load(Relaxed) {
            if timeout_at(until.min(Instant::now() + PAUSE), &mut self.task).await.is_ok() {
                return;
            }
        }
        self.end(CLOSE_WITHIN).await;
    }

    /// Closes it now, so that its folder is free. What the disk does not take in this time may be lost.
    pub(super) async fn end(self, within: Duration) {
        let _ = timeout(within, self.close()).await;
    }

    /// Closes it now, so that its folder is free.
    pub(super) async fn close(self) {
        let _ = self.store.close().await;
        self.task.abort();
        // It was aborted.
        let _ = self.task.await;
    }
}
