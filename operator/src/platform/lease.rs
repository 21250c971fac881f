//! Leader election by a Lease (`coordination.k8s.io/v1`), as the rest of Kubernetes does it.
//!
//! A replica leads from the moment its write is accepted, and stops to lead by its own clock before anybody else may take
//! over. Clocks of other machines are not trusted: a foreign Lease counts as lapsed once it has not changed for its duration
//! as seen from here.

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

/// How long a Lease counts without being renewed. With the pauses between two tries, another replica leads 16 s after a
/// leader has died, and proxies ask again within a second.
pub const DURATION: Duration = Duration::from_secs(12);
/// How long a leader goes on without a renewal that succeeds.
const DEADLINE: Duration = Duration::from_secs(8);
/// Pause between two tries.
const RETRY: Duration = Duration::from_secs(2);

/// One term of leadership: its name, unlike that of any other.
pub type Term = Option<String>;

/// What is being elected, and who stands.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// This replica, unlike any other.
    pub identity: String,
}

/// Somebody else's Lease as it was last seen, and since when.
struct Foreign {
    version: Option<String>,
    since: Instant,
    duration: Duration,
}

/// Why an election ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Asked,
    /// The API server's store is as it was some time ago.
    SetBack,
}

/// What became of one try.
enum Tried {
    Done,
    SetBack,
}

/// An election.
pub struct Election {
    api: Api<Lease>,
    candidate: Candidate,
    metrics: Arc<Metrics>,
    foreign: Option<Foreign>,
    /// The newest version of the Lease that was seen.
    newest: u64,
    /// While leading: the Lease as it was last written, and when that was asked for.
    held: Option<(Lease, Instant)>,
}

impl Election {
    /// Nobody leads as far as is known.
    #[must_use]
    pub fn new(client: Client, candidate: Candidate, metrics: Arc<Metrics>) -> Self {
        let api = Api::namespaced(client, &candidate.namespace);
        Self { api, candidate, metrics, foreign: None, newest: 0, held: None }
    }

    /// Takes part until `end` is true; tells `term` when this replica begins to lead, and when it does no more. Ends by itself
    /// only if the store was set back: then nothing that this process knows may be true.
    pub async fn run(mut self, term: watch::Sender<Term>, mut end: watch::Receiver<bool>) -> Ended {
        let mut failing = false;
        loop {
            let asked = Instant::now();
            // Neither a try that hangs nor a pause goes beyond the time at which it leads no more.
            let tried = timeout(self.lasts().min(RETRY * 2), self.try_once(asked)).await;
            if let Ok(Err(error)) = &tried {
                count(&self.metrics.api_errors, "request", "lease");
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the Lease cannot be read or written; it is tried again");
                }
            } else if tried.is_ok() && std::mem::replace(&mut failing, false) {
                tracing::info!("the Lease can be read and written again");
            }
            let leads = self.held.as_ref().is_some_and(|(_, renewed)| renewed.elapsed() < DEADLINE);
            if !leads && self.held.take().is_some() {
                tracing::warn!("leadership is lost");
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

    /// How long it leads if nothing is renewed; for ever if it does not lead.
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
                    tracing::info!(lease = %self.candidate.name, "this replica leads");
                }
                self.newest = version(&lease).unwrap_or(self.newest);
                self.held = Some((lease, asked));
                Ok(Tried::Done)
            }
            // Somebody was quicker.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Tried::Done),
            Err(error) => Err(error),
        }
    }

    /// Whether the API server shows an older Lease than it has shown before: its store was restored. Versions are compared as
    /// numbers (KEP-5504); a Lease that is made anew has a greater one.
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

    /// The Lease as this replica holds it.
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

    /// Gives the Lease back, so that another replica takes over at once.
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

/// The name of a term: the Lease, when it was acquired, and for the how manieth time. A Lease that is made anew has another
/// uid.
fn name(lease: &Lease) -> String {
    let spec = lease.spec.as_ref();
    let acquired = spec.and_then(|spec| spec.acquire_time.as_ref()).map(|time| time.0.to_string()).unwrap_or_default();
    let transitions = spec.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    format!("{}/{transitions}/{acquired}", lease.metadata.uid.clone().unwrap_or_default())
}
