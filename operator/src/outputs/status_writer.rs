//! Writes statuses, with a bound on concurrent writes and a bounded queue.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crds::{ForwardAgent, ForwardGateway, PortForward};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, watch};

use operator_core::{
    names::NAME,
    schedule::{
        Dated, StatusWrite, TermNumber,
        status_writes::{News, Outcome, StatusWrites},
    },
    world::subject::Subject,
};

use crate::platform::{
    deadline::{RequestError, answer},
    liveness::Liveness,
    metrics::{Metrics, count},
    tasks::Tasks,
};

/// Concurrent writes. An API server takes 400 to 500 of them per second.
const AT_ONCE: usize = 16;
/// Most writes in flight and waiting. Each of them holds a whole status in memory.
const WAITING: usize = 256;

/// The result of a write.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object that has the status.
    pub subject: Subject,
    /// Resource version of the object with the written status; absent if the write failed.
    pub version: Option<String>,
    /// Whether the write should be retried.
    pub again: bool,
}

/// The writer of statuses. Results return to the driver.
#[derive(Clone)]
pub struct StatusWriter {
    client: Client,
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    results: mpsc::Sender<Dated<Written>>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    /// Creates the heartbeat of each write in flight.
    liveness: Liveness,
    /// Number of the current term. A write that waits or is in flight when its term ends is dropped.
    term: Arc<watch::Sender<u64>>,
    /// The log state of writes: whether they fail.
    writes: Arc<Mutex<StatusWrites>>,
}

/// The place of one write that waits or is in flight, freed on drop.
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
    /// A writer that sends results to `results`.
    #[must_use]
    pub fn new(
        client: Client,
        results: mpsc::Sender<Dated<Written>>,
        metrics: Arc<Metrics>,
        tasks: Tasks,
        liveness: Liveness,
    ) -> Self {
        Self {
            client,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::default(),
            results,
            metrics,
            tasks,
            liveness,
            term: Arc::new(watch::Sender::new(0)),
            writes: Arc::default(),
        }
    }

    /// Begins a term, or the time after one. Drops all writes that wait, and cuts those in flight: the term of this
    /// replica ends some seconds before another replica may write, and a request may last longer than that.
    pub fn begin(&self, TermNumber(term): TermNumber) {
        self.term.send_replace(term);
    }

    /// Number of further writes that the queue has room for. Each result makes room for one.
    #[must_use]
    pub fn room(&self) -> usize {
        WAITING.saturating_sub(self.waiting.load(Relaxed))
    }

    /// Queues a write.
    pub fn write(&self, write: StatusWrite) {
        let (writer, term) = (self.clone(), *self.term.borrow());
        let mut current = self.term.subscribe();
        let place = Place::taken(&self.waiting);
        self.tasks.job("status writer", async move {
            // The place is freed before the result is sent, and on every other way out.
            let place = place;
            let Ok(_turn) = writer.turns.clone().acquire_owned().await else { return };
            let heartbeat = writer.liveness.heartbeat("a status write");
            if *current.borrow() != term {
                return;
            }
            let result = tokio::select! {
                result = heartbeat.request(Box::pin(writer.patch(&write))) => result,
                _ = current.wait_for(|now| *now != term) => return,
            };
            let result = writer.ended(write.subject, result);
            // From here, the write waits for the driver, which has a heartbeat of its own.
            drop((place, heartbeat));
            let _ = writer.results.send(Dated { term: TermNumber(term), result }).await;
        });
    }

    async fn patch(&self, write: &StatusWrite) -> Result<Option<String>, RequestError> {
        // The uid keeps the status of a deleted object away from a new object of the same name.
        let patch = Patch::Merge(json!({"metadata": {"uid": write.uid}, "status": write.status}));
        let parameters = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
        match &write.subject {
            Subject::Forward(key) => {
                let api: Api<kube::core::PartialObjectMeta<PortForward>> =
                    Api::namespaced(self.client.clone(), &key.namespace);
                let written = answer(api.patch_status(&key.name, &parameters, &patch)).await?;
                Ok(written.metadata.resource_version)
            }
            Subject::Gateway(key) => {
                let api: Api<kube::core::PartialObjectMeta<ForwardGateway>> =
                    Api::namespaced(self.client.clone(), &key.namespace);
                let written = answer(api.patch_status(&key.name, &parameters, &patch)).await?;
                Ok(written.metadata.resource_version)
            }
            Subject::Agent(key) => {
                let api: Api<kube::core::PartialObjectMeta<ForwardAgent>> =
                    Api::namespaced(self.client.clone(), &key.namespace);
                let written = answer(api.patch_status(&key.name, &parameters, &patch)).await?;
                Ok(written.metadata.resource_version)
            }
        }
    }

    /// Counts and logs the result of a write.
    fn ended(&self, subject: Subject, result: Result<Option<String>, RequestError>) -> Written {
        let outcome = Outcome::of(result.as_ref().map(|_| ()).map_err(RequestError::code));
        let news = self.writes.lock().unwrap_or_else(PoisonError::into_inner).ended(outcome);
        match (news, &result) {
            (Some(News::Fail), Err(error)) => tracing::warn!(?subject, %error, "cannot write statuses, will retry"),
            (Some(News::Succeed), _) => tracing::info!("status writes succeed again"),
            _ => {}
        }
        let again = outcome == Outcome::Failed;
        if again {
            count(&self.metrics.api_errors, "request", "status");
        }
        count(&self.metrics.status_writes, "result", outcome.name());
        Written { subject, version: result.ok().flatten(), again }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::Config;
    use operator_core::ObjectKey;
    use tokio::{io::AsyncReadExt, net::TcpListener, time::timeout};

    use super::*;

    // C14
    #[tokio::test]
    async fn a_write_in_flight_is_cut_when_its_term_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut config = Config::new(format!("http://{address}").parse().expect("an address"));
        config.root_cert = Some(Vec::new());
        let client = Client::try_from(config).expect("a client");
        let (results, mut ended) = mpsc::channel(1);
        let (tasks, _supervisor) = Tasks::new();
        let writer = StatusWriter::new(client, results, Arc::default(), tasks, Liveness::default());
        writer.begin(TermNumber(1));
        let subject = Subject::Forward(ObjectKey::new("ns", "web"));
        writer.write(StatusWrite { subject, uid: "uid".to_owned(), status: json!({}) });
        let (mut connection, _) = listener.accept().await.expect("a connection");
        connection.read_u8().await.expect("the request begins");
        writer.begin(TermNumber(2));
        let mut rest = Vec::new();
        let closed = timeout(Duration::from_secs(20), connection.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "the connection stays open");
        drop(writer);
        assert!(ended.recv().await.is_none(), "a term that is over has no results");
    }
}
