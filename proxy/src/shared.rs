//! A listener as seen by all threads. It survives changes of its spec and moves between sockets.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use proxy_api::{Denial, Listener, ListenerId, Surroundings};

pub use crate::core::sessions::dropped::Dropped;
use crate::{
    core::{
        backends::balance::Targets, changes::diff, durable::delivery, limits::limiter::Limiter,
        sessions::end::EndReason,
    },
    first_answer::FirstAnswer,
    waiters::Waiters,
};

/// A listener: current spec, current targets and counters.
#[derive(Debug)]
pub struct Shared {
    /// Identity of the listener.
    pub id: ListenerId,
    /// Current spec; sessions read limits and timeouts here, so changes apply in place.
    pub spec: ArcSwap<Listener>,
    /// Current targets of new sessions. After a move, sessions from before that are not connected yet share them.
    pub targets: Arc<ArcSwap<Targets>>,
    /// Sequence numbers of new sessions, over all workers.
    pub tickets: AtomicU64,
    /// Counters, kept when the listener moves to another socket.
    pub counters: Arc<Counters>,
    /// Limiter of the forward, with the share of its namespace.
    pub limiter: Arc<Limiter>,
    /// The surroundings of the proxy.
    pub surroundings: ArcSwap<Surroundings>,
    /// Whether sessions may wait for the first answer to a name.
    pub first_answer: Arc<FirstAnswer>,
    /// Sessions that wait for an instance of an agent.
    pub waiters: Arc<Waiters>,
}

impl Shared {
    /// Creates a listener without targets.
    #[must_use]
    pub fn new(id: ListenerId, spec: Arc<Listener>, counters: Arc<Counters>, limiter: Arc<Limiter>) -> Arc<Self> {
        Arc::new(Self {
            id,
            spec: ArcSwap::new(spec),
            targets: Arc::default(),
            tickets: AtomicU64::new(0),
            counters,
            limiter,
            surroundings: ArcSwap::default(),
            first_answer: Arc::default(),
            waiters: Arc::default(),
        })
    }

    /// Creates a listener that replaces `before`, with the same identity, counters and targets. Sessions of `before`
    /// that are not connected yet use its targets, if they can ([`diff::can_follow`]).
    #[must_use]
    pub fn after(before: &Self, spec: Arc<Listener>, limiter: Arc<Limiter>) -> Arc<Self> {
        let (targets, first_answer, waiters) = if diff::can_follow(&before.spec.load(), &spec) {
            (before.targets.clone(), before.first_answer.clone(), before.waiters.clone())
        } else {
            (Arc::new(ArcSwap::new(before.targets.load_full())), Arc::default(), Arc::default())
        };
        Arc::new(Self {
            id: before.id.clone(),
            spec: ArcSwap::new(spec),
            targets,
            tickets: AtomicU64::new(before.tickets.load(Relaxed)),
            counters: before.counters.clone(),
            limiter,
            surroundings: ArcSwap::new(before.surroundings.load_full()),
            first_answer,
            waiters,
        })
    }

    /// Whether a client is a proxy of the same fleet, so that its connection came back.
    #[must_use]
    pub fn returns(&self, client: IpAddr) -> bool {
        self.surroundings.load().has_pod(client)
    }
}

/// Counters of a listener, updated once per session or per second, never per byte.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sessions opened.
    pub opened: AtomicU64,
    /// Sessions closed, by [`EndReason::index`].
    pub closed: [AtomicU64; EndReason::ALL.len()],
    /// Bytes from clients.
    pub up: AtomicU64,
    /// Bytes to clients.
    pub down: AtomicU64,
    /// Connect attempts after the first.
    pub retries: AtomicU64,
    /// Endpoint ejections.
    pub ejected: AtomicU64,
    /// Datagrams dropped, by [`Dropped::index`].
    pub dropped: [AtomicU64; Dropped::ALL.len()],
    /// Active checks that passed.
    pub checks_passed: AtomicU64,
    /// Active checks that failed.
    pub checks_failed: AtomicU64,
    /// Active checks that waited for their turn.
    pub checks_waited: AtomicU64,
    /// Clients admitted by `access`.
    pub allowed: AtomicU64,
    /// Clients denied by `access`.
    pub denied: AtomicU64,
    /// Pauses of the accept loop after a system error.
    pub accept_errors: AtomicU64,
    /// Addresses that are not used as endpoints now, by [`Denial::index`].
    pub refused: [AtomicU64; Denial::ALL.len()],
    /// The last state of the messages of a durable listener.
    durable: Mutex<Option<delivery::Seen>>,
}

impl Counters {
    /// Whether `access` admits a client; counted if the listener has an access list.
    #[must_use]
    pub fn admits(&self, listener: &Listener, client: IpAddr) -> bool {
        let Some(access) = listener.access.as_deref() else { return true };
        let admitted = access.admits(client);
        let count = if admitted { &self.allowed } else { &self.denied };
        count.fetch_add(1, Relaxed);
        admitted
    }

    /// Sessions and datagrams refused because the share of the namespace was used up.
    #[must_use]
    pub fn refused_by_share(&self) -> u64 {
        self.closed[EndReason::TenantLimit.index()].load(Relaxed)
            + self.dropped[Dropped::TenantLimit.index()].load(Relaxed)
    }

    /// Sessions refused because their source had as many sessions of the process as it may have.
    #[must_use]
    pub fn refused_by_source(&self) -> u64 {
        self.closed[EndReason::SourceShare.index()].load(Relaxed)
    }

    /// Sessions, datagrams and connections of a durable listener that came back to the fleet, and datagrams that had no
    /// hop left.
    #[must_use]
    pub fn looped(&self) -> u64 {
        let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed[EndReason::Loop.index()].load(Relaxed)
            + self.dropped[Dropped::Loop.index()].load(Relaxed)
            + durable.as_ref().map_or(0, delivery::Seen::looped)
    }

    /// Datagrams that the system has dropped because a buffer was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let full = [Dropped::ReceiveBufferFull, Dropped::ReplyBufferFull];
        full.iter().map(|reason| self.dropped[reason.index()].load(Relaxed)).sum()
    }

    /// The last state of the messages; `None`: the listener is not durable.
    #[must_use]
    pub fn durable(&self) -> Option<delivery::Seen> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last delivery state; `None`: the listener is not durable.
    #[must_use]
    pub fn delivery(&self) -> Option<delivery::Delivery> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|seen| seen.delivery)
    }

    /// Replaces the state of the messages.
    pub fn show_durable(&self, seen: Option<delivery::Seen>) {
        *self.durable.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Live sessions.
    #[must_use]
    pub fn active(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|count| count.load(Relaxed)).sum();
        self.opened.load(Relaxed).saturating_sub(closed)
    }
}
