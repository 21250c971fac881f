//! The log of a listener that is gone, while its sink still gets messages.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use durable::Store;
use tokio::{
    task::{JoinHandle, spawn_local},
    time::{Instant, timeout, timeout_at},
};

use super::generations;
use crate::lives::Guard;

/// Pause between two looks whether anybody still waits for the end of the process.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest wait for the reports of a task about stores that are closed.
const TELL: Duration = Duration::from_secs(1);

/// The log of a listener that is gone.
pub(super) struct Leaving {
    stores: Vec<Store>,
    /// Bytes on the disk of logs that were closed before, and of other files in their folder.
    past: u64,
    task: JoinHandle<()>,
}

impl Leaving {
    /// The log whose stores are drained by this task; `guard` reports a panic. Without the task, nobody would learn
    /// what stays in the log. Others in its folder have `past` bytes on the disk.
    pub(super) fn start(stores: Vec<Store>, past: u64, guard: Guard, task: impl Future<Output = ()> + 'static) -> Self {
        let task = async move {
            let _guard = guard;
            task.await;
        };
        Self { stores, past, task: spawn_local(task) }
    }

    /// Bytes of the log on the disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.stores.iter().map(Store::disk_bytes).fold(self.past, u64::saturating_add)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until the log is closed, or until this time, or until `stop` is set.
    pub(super) async fn wait(&mut self, until: Instant, stop: &AtomicBool) {
        while !self.has_ended() && Instant::now() < until && !stop.load(Relaxed) {
            // The loop checks whether the log is closed.
            let _ = timeout_at(until.min(Instant::now() + PAUSE), &mut self.task).await;
        }
    }

    /// Closes the log now, so that its folder is free.
    pub(super) async fn close(mut self) {
        if self.has_ended() {
            return;
        }
        generations::close(self.stores).await;
        if timeout(TELL, &mut self.task).await.is_err() {
            self.task.abort();
            // The task was aborted.
            let _ = self.task.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proxy_api::{ListenerId, Origin};
    use tempfile::tempdir;
    use tokio::task::LocalSet;

    use super::*;
    use crate::messages::{
        place::{PlaceOfLog, ServerFiles},
        tests::{disk, process_with},
    };

    #[tokio::test]
    async fn a_drain_that_panics_is_named_among_those_that_have_died_and_its_log_can_be_closed() {
        let (folder, process) = (tempdir().expect("a folder"), process_with(None));
        let id = ListenerId::new(Origin::port_forward("ns", "f"), "l");
        let place = PlaceOfLog::new(&id, folder.path(), ServerFiles::default());
        let test = async {
            let opened = place.open(&disk()).await.expect("a log");
            let stores: Vec<Store> = opened.present.stores().cloned().collect();
            let panics = poll_fn(|_| -> std::task::Poll<()> { panic!("as the test wants") });
            let mut leaving = Leaving::start(stores.clone(), 0, process.lives.guard("the drain of ns/f/l"), panics);
            leaving.wait(Instant::now() + Duration::from_secs(20), &AtomicBool::new(false)).await;
            assert!(leaving.has_ended());
            assert!(process.lives.died().contains("the drain of ns/f/l"));
            for store in stores {
                store.close().await.expect("it is open");
            }
        };
        LocalSet::new().run_until(test).await;
    }
}
