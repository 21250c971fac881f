//! Leader election by a Lease (`coordination.k8s.io/v1`), by the rules of Kubernetes' own components. The rules are in
//! [`operator_core::schedule::election`]; this module reads and writes the Lease, and waits.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use operator_core::schedule::election::{DURATION, Observed, Standing, Step};

use crate::platform::{
    liveness::Heartbeat,
    metrics::{Metrics, count},
};

/// Timeout of releasing the Lease.
const RELEASE: Duration = Duration::from_secs(2);

/// The unique name of the term in which this replica leads; absent while it does not lead.
pub type Term = Option<String>;

/// The number of times that the API server answered about the Lease again after a failure. Each such answer changes it.
pub type Returns = watch::Receiver<u64>;

/// The Lease of an election, and the replica that stands for it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Identity of this replica, unique among all candidates.
    pub identity: String,
}

/// Why a candidate has left the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The replica is shutting down.
    Asked,
    /// The API server's store was restored to an earlier state.
    SetBack,
}

/// Why one try to acquire or renew the Lease failed.
#[derive(Debug, thiserror::Error)]
enum TryError {
    /// The API server refused a request, or did not answer.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The try took too long.
    #[error("the API server did not answer in time")]
    Late,
}

/// A candidate in the leader election.
pub struct Election {
    api: Api<Lease>,
    candidate: Candidate,
    metrics: Arc<Metrics>,
    heartbeat: Heartbeat,
    started: Instant,
    standing: Standing,
    returned: watch::Sender<u64>,
    /// The Lease as last written; absent while this replica does not lead.
    held: Option<Lease>,
}

impl Election {
    /// Creates a candidate that has not seen the Lease yet, and the channel that tells others that the API server
    /// answers again.
    #[must_use]
    pub fn new(client: Client, candidate: Candidate, metrics: Arc<Metrics>, heartbeat: Heartbeat) -> (Self, Returns) {
        let api = Api::namespaced(client, &candidate.namespace);
        let standing = Standing::new(candidate.identity.clone());
        let (started, (returned, returns)) = (Instant::now(), watch::channel(0));
        (Self { api, candidate, metrics, heartbeat, started, standing, returned, held: None }, returns)
    }

    /// Time since the candidate joined.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes part in the election until `end` is true, and sends `term` every change of leadership of this replica.
    /// Returns earlier only if the API server's store was restored: then nothing in this process may be true any more.
    pub async fn run(mut self, term: watch::Sender<Term>, mut end: watch::Receiver<bool>) -> Ended {
        let mut failing = false;
        loop {
            self.heartbeat.beat();
            let asked = self.now();
            let tried = timeout(self.standing.patience(asked), self.try_once(asked)).await;
            let tried = tried.unwrap_or(Err(TryError::Late));
            if let Err(error) = &tried {
                count(&self.metrics.api_errors, "request", "lease");
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot read or write the Lease, will retry");
                }
            } else if std::mem::replace(&mut failing, false) {
                tracing::info!("the Lease is readable and writable again");
                self.returned.send_modify(|returns| *returns += 1);
            }
            let now = self.now();
            let pause = self.standing.rest(now);
            if !self.standing.leads(now) && self.held.take().is_some() {
                tracing::warn!("lost leadership");
            }
            self.publish(&term);
            if matches!(tried, Ok(Step::SetBack)) {
                term.send_replace(None);
                return Ended::SetBack;
            }
            tokio::select! {
                () = sleep(pause) => {}
                _ = end.wait_for(|end| *end) => break,
            }
        }
        term.send_replace(None);
        self.release().await;
        Ended::Asked
    }

    fn publish(&self, term: &watch::Sender<Term>) {
        let now = self.held.as_ref().map(name);
        self.metrics.leader.set(now.is_some().into());
        term.send_if_modified(|published| {
            let changed = *published != now;
            if changed {
                *published = now;
            }
            changed
        });
    }

    /// Reads the Lease and takes the next step.
    async fn try_once(&mut self, asked: Duration) -> Result<Step, TryError> {
        let lease = self.api.get_opt(&self.candidate.name).await?;
        let now = self.now();
        let step = self.standing.read(lease.as_ref().map(observed).as_ref(), now);
        let mut next = lease.unwrap_or_default();
        next.spec = Some(self.spec(next.spec.as_ref(), step == Step::Renew));
        let parameters = PostParams::default();
        let written = match step {
            Step::Wait | Step::SetBack => return Ok(step),
            Step::Create => {
                next.metadata.name = Some(self.candidate.name.clone());
                self.api.create(&parameters, &next).await
            }
            Step::Acquire | Step::Renew => self.api.replace(&self.candidate.name, &parameters, &next).await,
        };
        match written {
            Ok(lease) => {
                if self.standing.wrote(lease.metadata.resource_version.as_deref(), asked) {
                    tracing::info!(lease = %self.candidate.name, "became leader");
                }
                self.held = Some(lease);
                Ok(step)
            }
            // Another replica wrote the Lease first.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(step),
            Err(error) => Err(error.into()),
        }
    }

    /// The spec of the Lease with this replica as its holder. `renews` says whether the term continues.
    fn spec(&self, before: Option<&LeaseSpec>, renews: bool) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let acquired = before.filter(|_| renews).and_then(|before| before.acquire_time.clone());
        let transitions = before.and_then(|before| before.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.candidate.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: acquired.or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if renews { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    /// Releases the Lease, so that another replica takes over at once.
    async fn release(mut self) {
        let Some(mut lease) = self.held.take() else { return };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        let parameters = PostParams::default();
        let written = timeout(RELEASE, self.api.replace(&self.candidate.name, &parameters, &lease)).await;
        if let Err(error) = written.map_or(Err(TryError::Late), |written| written.map_err(TryError::from)) {
            tracing::warn!(%error, "cannot release the Lease: another replica takes over only once it has expired");
        }
    }
}

fn observed(lease: &Lease) -> Observed {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
    Observed {
        version: lease.metadata.resource_version.clone(),
        holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
        duration: seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs),
    }
}

/// The name of a term: uid of the Lease, number of its transitions, and time of its acquisition. A recreated Lease has
/// another uid.
fn name(lease: &Lease) -> String {
    let spec = lease.spec.as_ref();
    let acquired = spec.and_then(|spec| spec.acquire_time.as_ref()).map(|time| time.0.to_string()).unwrap_or_default();
    let transitions = spec.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    format!("{}/{transitions}/{acquired}", lease.metadata.uid.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use kube::Config;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::platform::liveness::Liveness;

    /// A Lease that another replica holds.
    const LEASE: &str = r#"{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "lease",
        "resourceVersion": "7"}, "spec": {"holderIdentity": "other", "leaseDurationSeconds": 12}}"#;

    #[tokio::test]
    async fn the_first_answer_after_failures_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut config =
            Config::new(format!("http://{}", listener.local_addr().expect("an address")).parse().expect("a URL"));
        config.root_cert = Some(Vec::new());
        let client = Client::try_from(config).expect("a client");
        let serving = async move {
            for (status, body) in [("200 OK", LEASE), ("500 Internal Server Error", "{}"), ("200 OK", LEASE)] {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                assert!(stream.read(&mut [0; 4096]).await.expect("a request") > 0);
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                stream.write_all((head + body).as_bytes()).await.expect("an answer");
            }
        };
        let candidate = Candidate { namespace: "n".to_owned(), name: "lease".to_owned(), identity: "us".to_owned() };
        let heartbeat = Liveness::default().heartbeat("the leader election");
        let (election, mut returns) = Election::new(client, candidate, Arc::default(), heartbeat);
        let (_end, ends) = watch::channel(false);
        tokio::spawn(election.run(watch::channel(None).0, ends));
        timeout(Duration::from_secs(20), serving).await.expect("three tries");
        timeout(Duration::from_secs(20), returns.changed()).await.expect("in time").expect("the election runs");
        assert_eq!(*returns.borrow(), 1, "an answer without a failure before it is no return");
    }
}
