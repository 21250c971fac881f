//! Durable listeners: their logs are opened before anything else changes, by a thread of their own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proxy_api::{ListenerId, Offer};

use super::Supervisor;
use crate::{
    commands::{Command, WorkerHandle, ask::Ask},
    core::changes::diff::Desired,
    keeping::{self, OPEN_WITHIN},
    shared::Shared,
};

/// How long a retry waits for logs. Logs that take longer are ready for the next retry.
const RETRY_WITHIN: Duration = Duration::from_millis(100);

/// Why durable listeners cannot run.
pub(super) type NoLogs = BTreeMap<ListenerId, String>;

impl Supervisor {
    /// Opens the logs of durable listeners. Listeners without a log are not supported for now.
    pub(super) async fn open_logs(&mut self, desired: &mut Desired) {
        self.no_logs = leave_out(self.workers.durable.as_ref(), desired).await;
    }

    /// Whether a log can now be opened that could not before, such as one whose folder another process had.
    pub(super) async fn has_log_now(&self) -> bool {
        let mut listeners = Vec::new();
        for id in self.no_logs.keys() {
            if let Some(Offer::Supported(spec)) = self.configuration.listeners.get(id) {
                listeners.push((id.clone(), spec.clone()));
            }
        }
        let count = listeners.len();
        // Without such logs, the thread need not be asked.
        count > 0 && keeping::open(self.workers.durable.as_ref(), listeners, RETRY_WITHIN).await.len() < count
    }

    /// Has the thread run the durable listeners of the running configuration, and no others.
    pub(super) async fn run_durable(&self) {
        let Some(thread) = &self.workers.durable else { return };
        let durable: Vec<Arc<Shared>> = self.listeners.durable().map(|(_, shared)| shared.clone()).collect();
        thread.send(Command::Keep(Ask::Run(durable))).await;
    }
}

/// Opens the logs of durable listeners. Listeners without a log are returned, and no longer desired.
async fn leave_out(thread: Option<&WorkerHandle>, desired: &mut Desired) -> NoLogs {
    let durable = desired.iter().filter_map(|(id, wanted)| {
        let spec = wanted.as_ref().filter(|spec| spec.durable.is_some())?;
        Some((id.clone(), spec.clone()))
    });
    let no_logs = keeping::open(thread, durable.collect(), OPEN_WITHIN).await;
    for id in no_logs.keys() {
        desired.insert(id.clone(), None);
    }
    no_logs
}

#[cfg(test)]
mod tests {
    use proxy_api::{Durable, Listener};

    use super::*;
    use crate::{
        fixtures::{durable, on_disk, stream},
        supervisor::fixtures::{id, listener},
    };

    /// A listener with these durable settings.
    fn with(durable: Durable) -> Arc<Listener> {
        Arc::new(Listener { durable: Some(Box::new(durable)), ..(*listener(1, "b")).clone() }.sealed())
    }

    #[tokio::test]
    async fn a_durable_listener_without_a_folder_is_left_out_and_others_are_not() {
        let mut desired = Desired::from([(id("a"), Some(with(on_disk()))), (id("b"), Some(listener(2, "b")))]);
        let no_logs = leave_out(None, &mut desired).await;
        assert_eq!(no_logs.keys().collect::<Vec<_>>(), [&id("a")]);
        assert!(desired[&id("a")].is_none() && desired[&id("b")].is_some());
    }

    #[test]
    fn a_proxy_that_only_drains_wants_listeners_with_a_folder_and_no_others() {
        let stream = with(durable(stream("nats://127.0.0.1:1")));
        let mut desired =
            Desired::from([(id("a"), Some(with(on_disk()))), (id("b"), Some(listener(2, "b"))), (id("c"), None)]);
        desired.insert(id("d"), Some(stream));
        crate::core::changes::diff::leave_durable(&mut desired);
        assert_eq!(desired.keys().collect::<Vec<_>>(), [&id("a")]);
    }
}
