//! One stream per proxy: authenticates the proxy, sends it the configuration of its group, and receives its reports.

mod stream;
mod versions;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use proxy_api::{FromProxy, Load, Origin, ReportPart};
use proxy_grpc::{Answer, Follower, Status, Streaming};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use operator_core::{ProxyId, desired::ca::Trusted};

use crate::{
    inputs::identity::{Identities, Identity, IdentityError},
    outputs::publish::{Deltas, Target},
    platform::metrics::{Metrics, count},
};

/// Messages that may wait for one proxy. Beyond that the stream of this proxy waits, and no other.
const WAITING: usize = 4;
/// Timeout of the driver's answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A message from a stream to the driver.
#[derive(Debug)]
pub enum FromStream {
    /// A proxy wants to follow.
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
        /// The report is about the very snapshot that was sent under its number: the digests agree.
        agreed: bool,
    },
    /// A proxy reported another load than before.
    Loaded {
        /// The proxy.
        proxy: ProxyId,
        /// The stream.
        id: u64,
        /// The load.
        load: Box<Load>,
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
    },
    /// Another replica leads.
    NotLeader,
    /// Not every cache has synced yet, or the configuration of this pod is not known yet.
    NotSynced,
    /// No pod with this uid and `ServiceAccount` is in the cache (yet), or the pod is being deleted.
    UnknownPod,
}

/// The service that serves proxies' streams.
pub struct Streams {
    identities: Identities,
    driver: mpsc::Sender<FromStream>,
    roots: watch::Receiver<Trusted>,
    metrics: Arc<Metrics>,
    versions: Arc<versions::Versions>,
    next: AtomicU64,
}

impl Streams {
    /// A service that asks this driver.
    #[must_use]
    pub fn new(
        identities: Identities,
        driver: mpsc::Sender<FromStream>,
        roots: watch::Receiver<Trusted>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let versions = Arc::new(versions::Versions::new(metrics.clone()));
        Self { identities, driver, roots, metrics, versions, next: AtomicU64::new(1) }
    }

    async fn admit(&self, identity: &Identity, id: u64) -> Result<stream::Following, Status> {
        let (reply, answer) = oneshot::channel();
        let ask = FromStream::Connected { identity: identity.clone(), id, reply };
        let ending = || Status::unavailable("the operator is shutting down");
        self.driver.send(ask).await.map_err(|_| ending())?;
        let decision = timeout(PATIENCE, answer).await.map_err(|_| Status::unavailable("the operator is busy"))?;
        let refuse = |why: &'static str, status: Status| {
            count(&self.metrics.refused, "reason", why);
            Err(status)
        };
        match decision.map_err(|_| ending())? {
            StreamDecision::Follow { target, deltas, unreadable } => {
                Ok(stream::Following { target, deltas, unreadable })
            }
            StreamDecision::NotLeader => refuse("not_leader", Self::not_leader()),
            StreamDecision::NotSynced => refuse("not_synced", Status::unavailable("the operator is still starting")),
            StreamDecision::UnknownPod => {
                let message = format!("pod {} with that uid is unknown, or is being deleted", identity.pod);
                refuse("unknown_pod", Status::permission_denied(message))
            }
        }
    }
}

impl Follower for Streams {
    async fn follow(&self, token: Option<String>, messages: Streaming<FromProxy>) -> Result<Answer, Status> {
        let identity = self.identities.of(token).await.map_err(|error| {
            count(&self.metrics.refused, "reason", "identity");
            match error {
                IdentityError::Unavailable(_) => Status::unavailable(error.to_string()),
                _ => Status::unauthenticated(error.to_string()),
            }
        })?;
        let id = self.next.fetch_add(1, Relaxed);
        let following = self.admit(&identity, id).await?;
        let (out, answer) = mpsc::channel(WAITING);
        let stream = stream::Stream {
            proxy: identity.proxy(),
            id,
            following,
            messages,
            out,
            driver: self.driver.clone(),
            roots: self.roots.clone(),
            metrics: self.metrics.clone(),
            versions: self.versions.clone(),
        };
        tokio::spawn(stream.run());
        Ok(answer)
    }
}
