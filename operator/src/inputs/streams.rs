//! One stream per proxy: authenticates the proxy, sends it the configuration of its group, and receives its reports.
//!
//! A replica that does not lead refuses a stream before it sends any request to the API server. The memory and the work
//! that proxies can cause in the leader are bounded for each proxy and for all proxies together.

mod held;
mod pending;
mod room;
mod stream;
mod versions;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use proxy_api::{AgentsReport, Load, Origin, ReportPart, Sign, SignOutcome};
use proxy_grpc::{Admitted, Follower, Messages, Status, with_retry_after};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    time::timeout,
};

use operator_core::{ProxyId, desired::ca::Trusted};

use self::{pending::Pending, room::Rooms, stream::Signing};
use crate::{
    inputs::identity::{Identities, Identity, IdentityError},
    outputs::publish::{Ask, Deltas, Target},
    platform::{
        lease::Term,
        metrics::{Metrics, count},
    },
};

/// The most messages that wait for one proxy. Beyond that, the stream of this proxy waits, and no other.
const WAITING: usize = 4;
/// Timeout of the driver's answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Retry delay for a proxy that connects at a busy moment.
const BUSY: Duration = Duration::from_secs(5);

/// A message from a stream to the driver.
#[derive(Debug)]
pub enum FromStream {
    /// A proxy requests to follow.
    Connected {
        /// The authenticated pod.
        identity: Identity,
        /// The stream.
        id: u64,
        /// Receives the driver's decision.
        reply: oneshot::Sender<StreamDecision>,
    },
    /// A proxy sent a part of a report.
    Reported {
        /// The proxy.
        proxy: ProxyId,
        /// The stream.
        id: u64,
        /// The part.
        part: Box<ReportPart>,
        /// Whether the report is about the very snapshot that was sent under its number: the digests agree.
        agreed: bool,
        /// The room of the part among the reports that wait for the driver.
        room: Option<OwnedSemaphorePermit>,
    },
    /// A proxy reported a changed load.
    Loaded {
        /// The proxy.
        proxy: ProxyId,
        /// The stream.
        id: u64,
        /// The load.
        load: Box<Load>,
    },
    /// A proxy requests a certificate.
    Sign {
        /// The authenticated pod.
        identity: Identity,
        /// The stream.
        id: u64,
        /// The request.
        sign: Box<Sign>,
        /// Receives the answer. Dropped if there is no answer now.
        reply: oneshot::Sender<SignOutcome>,
    },
    /// A proxy reported the agents that are connected to it.
    Agents {
        /// The proxy.
        proxy: ProxyId,
        /// The stream.
        id: u64,
        /// All connected agents.
        report: Box<AgentsReport>,
        /// The room of the report among the reports that wait for the driver.
        room: Option<OwnedSemaphorePermit>,
    },
    /// A proxy ended its drain, which cut sessions.
    Drained {
        /// The proxy.
        proxy: ProxyId,
        /// The stream.
        id: u64,
        /// Number of sessions that were cut.
        cut: u64,
    },
    /// A stream ended.
    Gone {
        /// The proxy.
        proxy: ProxyId,
        /// The stream.
        id: u64,
    },
}

/// The driver's decision on a new stream.
#[derive(Debug)]
pub enum StreamDecision {
    /// The proxy may follow.
    Follow {
        /// The snapshot that the proxy should run.
        target: Target,
        /// Encoded steps of this term.
        deltas: Arc<Deltas>,
        /// Origins that cannot be read, whose listeners the proxy keeps as they are.
        unreadable: std::collections::BTreeSet<Origin>,
        /// Questions about live sessions.
        asks: mpsc::Receiver<Ask>,
    },
    /// Another replica leads.
    NotLeader,
    /// Not every cache has synced yet, or the configuration of this pod is not known yet.
    NotSynced,
    /// No pod with this uid and `ServiceAccount` is in the cache (yet), or the pod is being deleted.
    UnknownPod,
    /// The operator expects no proxy in the pod, for this reason.
    Unexpected(&'static str),
}

/// The service that serves proxies' streams.
pub struct Streams {
    identities: Identities,
    driver: mpsc::Sender<FromStream>,
    term: watch::Receiver<Term>,
    roots: watch::Receiver<Trusted>,
    metrics: Arc<Metrics>,
    versions: Arc<versions::Versions>,
    rooms: Rooms,
    next: AtomicU64,
}

impl Streams {
    /// A service that sends its messages to this driver.
    #[must_use]
    pub fn new(
        identities: Identities,
        driver: mpsc::Sender<FromStream>,
        term: watch::Receiver<Term>,
        roots: watch::Receiver<Trusted>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let versions = Arc::new(versions::Versions::new(metrics.clone()));
        Self { identities, driver, term, roots, metrics, versions, rooms: Rooms::default(), next: AtomicU64::new(1) }
    }

    /// Counts a refusal.
    fn refuse<T>(&self, why: &'static str, status: Status) -> Result<T, Status> {
        count(&self.metrics.refused, "reason", why);
        Err(status)
    }

    async fn admit(&self, identity: &Identity, id: u64) -> Result<stream::Following, Status> {
        let (reply, answer) = oneshot::channel();
        let ask = FromStream::Connected { identity: identity.clone(), id, reply };
        let ending = || Status::unavailable("the operator is shutting down");
        self.driver.send(ask).await.map_err(|_| ending())?;
        let decision = timeout(PATIENCE, answer).await.map_err(|_| Status::unavailable("the operator is busy"))?;
        match decision.map_err(|_| ending())? {
            StreamDecision::Follow { target, deltas, unreadable, asks } => {
                Ok(stream::Following { target, deltas, unreadable, asks })
            }
            StreamDecision::NotLeader => self.refuse("not_leader", Self::not_leader()),
            StreamDecision::NotSynced => {
                self.refuse("not_synced", Status::unavailable("the operator is still starting"))
            }
            StreamDecision::UnknownPod => {
                let message = format!("pod {} with that uid is unknown, or is being deleted", identity.pod);
                self.refuse("unknown_pod", Status::permission_denied(message))
            }
            StreamDecision::Unexpected(why) => {
                let message = format!("no proxy is expected in pod {}: {why}", identity.pod);
                self.refuse("unexpected_pod", Status::permission_denied(message))
            }
        }
    }
}

impl Follower for Streams {
    async fn follow(&self, token: Option<String>, messages: Messages) -> Result<Admitted, Status> {
        // This check comes before the review: without a leader, all proxies keep trying all replicas.
        if self.term.borrow().is_none() {
            return self.refuse("not_leader", Self::not_leader());
        }
        let identity = match self.identities.of(token).await {
            Ok(identity) => identity,
            Err(error) => {
                let status = match error {
                    IdentityError::Unavailable(_) => Status::unavailable(error.to_string()),
                    IdentityError::Busy => with_retry_after(Status::unavailable(error.to_string()), BUSY),
                    _ => Status::unauthenticated(error.to_string()),
                };
                return self.refuse(if error == IdentityError::Busy { "busy" } else { "identity" }, status);
            }
        };
        let id = self.next.fetch_add(1, Relaxed);
        let following = self.admit(&identity, id).await?;
        let namespace = identity.pod.namespace.clone();
        let (out, answer) = mpsc::channel(WAITING);
        let stream = stream::Stream {
            proxy: identity.proxy(),
            identity,
            id,
            following,
            pending: Pending::default(),
            signing: Signing::default(),
            messages,
            pace: stream::Pace::default(),
            out,
            driver: self.driver.clone(),
            roots: self.roots.clone(),
            rooms: self.rooms.clone(),
            metrics: self.metrics.clone(),
            versions: self.versions.clone(),
        };
        tokio::spawn(stream.run());
        Ok(Admitted { namespace, answer })
    }
}
