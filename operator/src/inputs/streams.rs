//! One stream per proxy: who it is, what it holds, what it is sent, what it reports.

mod stream;

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

use operator_core::{ObjectKey, desired::ca::Trusted};

use crate::{
    inputs::identity::{Identities, Identity, IdentityError},
    outputs::publish::{Deltas, Target},
    platform::metrics::{Metrics, count},
};

/// Messages that may wait for a proxy; then its stream waits, and no other.
const WAITING: usize = 4;
/// Longest time that the driver may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What streams tell the driver.
#[derive(Debug)]
pub enum FromStream {
    /// A proxy wants to follow.
    Connected {
        /// Who.
        identity: Identity,
        /// The stream.
        id: u64,
        /// What it follows, or why it may not.
        reply: oneshot::Sender<Admission>,
    },
    /// A part of a report; `agreed`: of just the snapshot that was sent under its number.
    Reported {
        /// The pod.
        pod: ObjectKey,
        /// The stream.
        id: u64,
        /// The part.
        part: Box<ReportPart>,
        /// Its digest is the one that was sent.
        agreed: bool,
    },
    /// A proxy has other work than before.
    Loaded {
        /// The pod.
        pod: ObjectKey,
        /// The stream.
        id: u64,
        /// What it has to do.
        load: Box<Load>,
    },
    /// A proxy ended, and sessions were cut by it.
    Drained {
        /// The pod.
        pod: ObjectKey,
        /// The stream.
        id: u64,
        /// How many.
        cut: u64,
    },
    /// A stream ended.
    Gone {
        /// The pod.
        pod: ObjectKey,
        /// The stream.
        id: u64,
    },
}

/// The driver's answer to a proxy.
#[derive(Debug)]
pub enum Admission {
    /// It may follow.
    Follow {
        /// What it is to run.
        target: Target,
        /// Encoded steps of this term.
        deltas: Arc<Deltas>,
        /// Forwards that cannot be read: their listeners are left as they are.
        unreadable: std::collections::BTreeSet<Origin>,
    },
    /// Another replica leads.
    NotLeader,
    /// Not every cache is complete yet.
    NotSynced,
    /// There is no such pod (yet), or it is being deleted.
    UnknownPod,
}

/// Serves proxies.
pub struct Streams {
    identities: Identities,
    driver: mpsc::Sender<FromStream>,
    roots: watch::Receiver<Trusted>,
    metrics: Arc<Metrics>,
    next: AtomicU64,
}

impl Streams {
    /// Streams that ask this driver.
    #[must_use]
    pub fn new(
        identities: Identities,
        driver: mpsc::Sender<FromStream>,
        roots: watch::Receiver<Trusted>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { identities, driver, roots, metrics, next: AtomicU64::new(1) }
    }

    async fn admit(&self, identity: &Identity, id: u64) -> Result<stream::Following, Status> {
        let (reply, answer) = oneshot::channel();
        let ask = FromStream::Connected { identity: identity.clone(), id, reply };
        let ending = || Status::unavailable("the operator is ending");
        self.driver.send(ask).await.map_err(|_| ending())?;
        let admission = timeout(PATIENCE, answer).await.map_err(|_| Status::unavailable("the operator is busy"))?;
        let refuse = |why: &'static str, status: Status| {
            count(&self.metrics.refused, "reason", why);
            Err(status)
        };
        match admission.map_err(|_| ending())? {
            Admission::Follow { target, deltas, unreadable } => Ok(stream::Following { target, deltas, unreadable }),
            Admission::NotLeader => refuse("not_leader", Self::not_leader()),
            Admission::NotSynced => refuse("not_synced", Status::unavailable("the operator is still starting")),
            Admission::UnknownPod => {
                let message = format!("pod {} of that uid is not known here, or is being deleted", identity.pod);
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
            pod: identity.pod,
            id,
            following,
            messages,
            out,
            driver: self.driver.clone(),
            roots: self.roots.clone(),
            metrics: self.metrics.clone(),
        };
        tokio::spawn(stream.run());
        Ok(answer)
    }
}
