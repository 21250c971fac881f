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

/// Why a candidate left the election.
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
    /// While leading: the Lease as last written.
    held: Option<Lease>,
}

impl Election {
    /// A candidate that has not seen the Lease yet.
    #[must_use]
    pub fn new(client: Client, candidate: Candidate, metrics: Arc<Metrics>, heartbeat: Heartbeat) -> Self {
        let api = Api::namespaced(client, &candidate.namespace);
        let standing = Standing::new(candidate.identity.clone());
        Self { api, candidate, metrics, heartbeat, started: Instant::now(), standing, held: None }
    }

    /// Time since the candidate joined.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes part in the election until `end` is true, and sends `term` every change of leadership of this replica.
    /// Returns earlier only if the API server's store was restored: nothing that this process knows may be true then.
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

    /// Reads the Lease and takes the step that is due.
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

    /// The spec of the Lease with this replica as its holder. `renews`: the term continues.
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
        let _ = timeout(RELEASE, self.api.replace(&self.candidate.name, &PostParams::default(), &lease)).await;
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
