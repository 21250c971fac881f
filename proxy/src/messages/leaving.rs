//! The log of a listener that is gone, while its sink still gets messages.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use durable::Store;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};

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

    /// Waits until it is closed, or until this time, or until `stop` is set.
    pub(super) async fn wait(&mut self, until: Instant, stop: &AtomicBool) {
        while !self.has_ended() && Instant::now() < until && !stop.load(Relaxed) {
            // Whether it is closed is asked again.
            let _ = timeout_at(until.min(Instant::now() + PAUSE), &mut self.task).await;
        }
    }

    /// Closes it now, so that its folder is free.
    pub(super) async fn close(self) {
        if self.has_ended() {
            return;
        }
        let _ = self.store.close().await;
        self.task.abort();
        // It was aborted.
        let _ = self.task.await;
    }
}
