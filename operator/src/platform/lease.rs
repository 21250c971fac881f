//! Leader election by a Lease (`coordination.k8s.io/v1`), by the rules of Kubernetes' own components.
//!
//! A replica leads from the moment its write is accepted, and stops leading by its own clock before another replica
//! may take over. Clocks of other machines are not trusted: a Lease of another replica has lapsed once this replica has
//! seen no change of the Lease for its duration.

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

use crate::platform::metrics::{Metrics, count};

/// Lease duration: how long a Lease is valid without a renewal. With the pauses between two tries, another replica
/// leads 16 s after a leader has died, and proxies connect to the new leader within another two seconds.
pub const DURATION: Duration = Duration::from_secs(12);
/// Renew deadline: how long a leader keeps leading without a successful renewal.
const DEADLINE: Duration = Duration::from_secs(8);
/// Retry period: the pause between two tries to acquire or renew the Lease.
const RETRY: Duration = Duration::from_secs(2);

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

/// The last seen state of a Lease that another replica holds.
struct Foreign {
    version: Option<String>,
    since: Instant,
    duration: Duration,
}

/// Why a candidate left the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The replica is shutting down.
    Asked,
    /// The API server's store was restored to an earlier state.
    SetBack,
}

/// The result of one try to acquire or renew the Lease.
enum Tried {
    Done,
    SetBack,
}

/// A candidate in the leader election.
pub struct Election {
    api: Api<Lease>,
    candidate: Candidate,
    metrics: Arc<Metrics>,
    foreign: Option<Foreign>,
    /// The highest resource version of the Lease that was seen.
    newest: u64,
    /// While leading: the Lease as last written, and the time just before the request that wrote it.
    held: Option<(Lease, Instant)>,
}

impl Election {
    /// A candidate that has not seen the Lease yet.
    #[must_use]
    pub fn new(client: Client, candidate: Candidate, metrics: Arc<Metrics>) -> Self {
        let api = Api::namespaced(client, &candidate.namespace);
        Self { api, candidate, metrics, foreign: None, newest: 0, held: None }
    }

    /// Takes part in the election until `end` is true, and sends `term` every change of leadership of this replica.
    /// Returns earlier only if the API server's store was restored: nothing that this process knows may be true then.
    pub async fn run(mut self, term: watch::Sender<Term>, mut end: watch::Receiver<bool>) -> Ended {
        let mut failing = false;
        loop {
            let asked = Instant::now();
            // Neither a try that hangs nor a pause may last beyond the renew deadline.
            let tried = timeout(self.lasts().min(RETRY * 2), self.try_once(asked)).await;
            if let Ok(Err(error)) = &tried {
                count(&self.metrics.api_errors, "request", "lease");
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot read or write the Lease, will retry");
                }
            } else if tried.is_ok() && std::mem::replace(&mut failing, false) {
                tracing::info!("the Lease is readable and writable again");
            }
            let leads = self.held.as_ref().is_some_and(|(_, renewed)| renewed.elapsed() < DEADLINE);
            if !leads && self.held.take().is_some() {
                tracing::warn!("lost leadership");
            }
            self.tell(&term);
            if matches!(tried, Ok(Ok(Tried::SetBack))) {
                term.send_replace(None);
                return Ended::SetBack;
            }
            tokio::select! {
                () = sleep(self.lasts().min(RETRY)) => {}
                _ = end.wait_for(|end| *end) => break,
            }
        }
        term.send_replace(None);
        self.release().await;
        Ended::Asked
    }

    /// Time until the renew deadline; unlimited while this replica does not lead.
    fn lasts(&self) -> Duration {
        self.held.as_ref().map_or(Duration::MAX, |(_, renewed)| DEADLINE.saturating_sub(renewed.elapsed()))
    }

    fn tell(&self, term: &watch::Sender<Term>) {
        let now = self.held.as_ref().map(|(lease, _)| name(lease));
        self.metrics.leader.set(now.is_some().into());
        term.send_if_modified(|told| {
            let changed = *told != now;
            if changed {
                *told = now;
            }
            changed
        });
    }

    async fn try_once(&mut self, asked: Instant) -> Result<Tried, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.candidate.name).await? else {
            self.held = None;
            self.foreign = None;
            let mut lease = Lease::default();
            lease.metadata.name = Some(self.candidate.name.clone());
            lease.spec = Some(self.spec(None));
            let made = self.api.create(&PostParams::default(), &lease).await;
            return self.written(made, asked);
        };
        if self.is_older(&lease) {
            self.held = None;
            return Ok(Tried::SetBack);
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.candidate.identity {
            self.held = None;
            if !holder.is_empty() && !self.is_lapsed(&lease, &spec) {
                return Ok(Tried::Done);
            }
        }
        let mut next = lease;
        next.spec = Some(self.spec(Some(&spec)));
        let written = self.api.replace(&self.candidate.name, &PostParams::default(), &next).await;
        self.written(written, asked)
    }

    fn written(&mut self, result: Result<Lease, kube::Error>, asked: Instant) -> Result<Tried, kube::Error> {
        match result {
            Ok(lease) => {
                if self.held.is_none() {
                    tracing::info!(lease = %self.candidate.name, "became leader");
                }
                self.newest = version(&lease).unwrap_or(self.newest);
                self.held = Some((lease, asked));
                Ok(Tried::Done)
            }
            // Another replica wrote the Lease first.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Tried::Done),
            Err(error) => Err(error),
        }
    }

    /// Whether the API server returns an older Lease than before, which means that its store was restored. Resource
    /// versions are compared as numbers (KEP-5504); a recreated Lease has a higher one.
    fn is_older(&mut self, lease: &Lease) -> bool {
        let Some(version) = version(lease) else { return false };
        let is_older = version < self.newest;
        self.newest = self.newest.max(version);
        is_older
    }

    fn is_lapsed(&mut self, lease: &Lease, spec: &LeaseSpec) -> bool {
        let version = lease.metadata.resource_version.clone();
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = duration.map_or(DURATION, Duration::from_secs).min(DURATION * 4);
        match &self.foreign {
            Some(foreign) if foreign.version == version => foreign.since.elapsed() > foreign.duration,
            _ => {
                self.foreign = Some(Foreign { version, since: Instant::now(), duration });
                false
            }
        }
    }

    /// The spec of the Lease with this replica as its holder.
    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let holds = before.filter(|_| self.held.is_some());
        let transitions = before.and_then(|before| before.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.candidate.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: holds.and_then(|before| before.acquire_time.clone()).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if holds.is_some() { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }

    /// Releases the Lease, so that another replica takes over at once.
    async fn release(mut self) {
        let Some((mut lease, _)) = self.held.take() else { return };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        let _ = timeout(RETRY, self.api.replace(&self.candidate.name, &PostParams::default(), &lease)).await;
    }
}

fn version(lease: &Lease) -> Option<u64> {
    lease.metadata.resource_version.as_ref().and_then(|version| version.parse().ok())
}

/// The name of a term: uid of the Lease, number of its transitions, and time of its acquisition. A recreated Lease has
/// another uid.
fn name(lease: &Lease) -> String {
    let spec = lease.spec.as_ref();
    let acquired = spec.and_then(|spec| spec.acquire_time.as_ref()).map(|time| time.0.to_string()).unwrap_or_default();
    let transitions = spec.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    format!("{}/{transitions}/{acquired}", lease.metadata.uid.clone().unwrap_or_default())
}
