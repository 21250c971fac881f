//! Writing status: one write at a time per object, few at once, none that says what stands there already.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use crds::{ForwardGateway, PortForward};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};

use operator_core::{names::NAME, schedule::StatusWrite, world::subject::Subject};

use crate::platform::metrics::{Metrics, count};

/// Writes at once. An API server takes 400 to 500 of them a second.
const AT_ONCE: usize = 16;
/// Writes under way and waiting from which on no more should be asked for: each holds a whole status.
const WAITING: usize = 256;
/// Longest time for one write.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of a write.
#[derive(Clone, Debug)]
pub struct Written {
    /// Whose.
    pub subject: Subject,
    /// The version of the object that has it; nothing if it was not written.
    pub version: Option<String>,
    /// Whether it is worth to try again.
    pub again: bool,
}

/// The writer. Results come back to the driver.
#[derive(Clone)]
pub struct StatusWriter {
    client: Client,
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    results: mpsc::Sender<Written>,
    metrics: Arc<Metrics>,
    /// Counts terms of leadership: what waits for its turn when one ends is not written any more.
    term: Arc<AtomicU64>,
    /// Writes fail, which was told.
    failing: Arc<AtomicBool>,
}

/// One of the writes that wait or are under way.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn taken(of: &Arc<AtomicUsize>) -> Self {
        of.fetch_add(1, Relaxed);
        Self(of.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl StatusWriter {
    /// A writer that tells `results`.
    #[must_use]
    pub fn new(client: Client, results: mpsc::Sender<Written>, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::default(),
            results,
            metrics,
            term: Arc::default(),
            failing: Arc::default(),
        }
    }

    /// Nothing that was asked for before is written from now on, but for what is under way.
    pub fn end_term(&self) {
        self.term.fetch_add(1, Relaxed);
    }

    /// How many more statuses should be asked for now. Each result makes room for one.
    #[must_use]
    pub fn room(&self) -> usize {
        WAITING.saturating_sub(self.waiting.load(Relaxed))
    }

    /// Writes, as soon as it is its turn.
    pub fn write(&self, write: StatusWrite) {
        let (writer, term) = (self.clone(), self.term.load(Relaxed));
        let place = Place::taken(&self.waiting);
        tokio::spawn(async move {
            // The place is given back before the result is told, or on any other way out.
            let place = place;
            let Ok(_turn) = writer.turns.clone().acquire_owned().await else { return };
            if writer.term.load(Relaxed) != term {
                return;
            }
            let result = timeout(PATIENCE, writer.patch(&write)).await;
            let written = writer.judge(write.subject, result.unwrap_or(Err(None)));
            drop(place);
            let _ = writer.results.send(written).await;
        });
    }

    async fn patch(&self, write: &StatusWrite) -> Result<Option<String>, Option<kube::Error>> {
        // The uid keeps the status of a deleted object away from a new one of its name.
        let patch = Patch::Merge(json!({"metadata": {"uid": write.uid}, "status": write.status}));
        let parameters = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
        let version = match &write.subject {
            Subject::Forward(key) => {
                let api: Api<kube::core::PartialObjectMeta<PortForward>> =
                    Api::namespaced(self.client.clone(), &key.namespace);
                api.patch_status(&key.name, &parameters, &patch).await.map(|object| object.metadata.resource_version)
            }
            Subject::Gateway(key) => {
                let api: Api<kube::core::PartialObjectMeta<ForwardGateway>> =
                    Api::namespaced(self.client.clone(), &key.namespace);
                api.patch_status(&key.name, &parameters, &patch).await.map(|object| object.metadata.resource_version)
            }
        };
        version.map_err(Some)
    }

    fn judge(&self, subject: Subject, result: Result<Option<String>, Option<kube::Error>>) -> Written {
        let (outcome, version, again) = match result {
            Ok(version) => {
                if self.failing.swap(false, Relaxed) {
                    tracing::info!("statuses can be written again");
                }
                ("written", version, false)
            }
            // It is gone, or another one: the watch tells.
            Err(Some(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => ("outdated", None, false),
            Err(error) => {
                count(&self.metrics.api_errors, "request", "status");
                // Once for all: without an API server there would be a line for every forward.
                if !self.failing.swap(true, Relaxed) {
                    let error = error.as_ref().map_or_else(|| "no answer in time".to_owned(), ToString::to_string);
                    tracing::warn!(?subject, %error, "statuses cannot be written and are tried again");
                }
                ("failed", None, true)
            }
        };
        count(&self.metrics.status_writes, "result", outcome);
        Written { subject, version, again }
    }
}
