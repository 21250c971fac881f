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

use crate::{
    core::{
        balance::Targets,
        delivery, diff,
        end::EndReason,
        limiter::{Limiter, Refusal},
    },
    first_answer::FirstAnswer,
    waiters::Waiters,
};

/// A listener: current spec, current targets and counters.
#[derive(Debug)]
pub struct Shared {
    /// Identity of the listener.
    pub id: Arc<ListenerId>,
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
    /// What is around the proxy.
    pub surroundings: ArcSwap<Surroundings>,
    /// Whether sessions may wait for the first answer to a name.
    pub first_answer: Arc<FirstAnswer>,
    /// Sessions that wait for an instance of an agent.
    pub waiters: Arc<Waiters>,
}

impl Shared {
    /// A listener without targets.
    #[must_use]
    pub fn new(id: ListenerId, spec: Arc<Listener>, counters: Arc<Counters>, limiter: Arc<Limiter>) -> Arc<Self> {
        Arc::new(Self {
            id: Arc::new(id),
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

    /// A listener that takes the place of `before`, with the same identity, counters and targets. Sessions of `before`
    /// that are not connected yet go to its targets, if they can ([`diff::can_follow`]).
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
    /// Clients admitted by `access`.
    pub allowed: AtomicU64,
    /// Clients denied by `access`.
    pub denied: AtomicU64,
    /// Pauses of the accept loop after a system error.
    pub accept_errors: AtomicU64,
    /// Addresses that are not used as endpoints now, by [`Denial::index`].
    pub refused: [AtomicU64; Denial::ALL.len()],
    /// What is seen of the messages of a durable listener.
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

    /// What was last seen of the messages; `None`: the listener is not durable.
    #[must_use]
    pub fn durable(&self) -> Option<delivery::Seen> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How messages were last seen to be delivered; `None`: the listener is not durable.
    #[must_use]
    pub fn delivery(&self) -> Option<delivery::Delivery> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|seen| seen.delivery)
    }

    /// Shows what is seen of the messages.
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

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// No endpoint is known.
    NoBackend,
    /// The flow table is full of active flows.
    TableFull,
    /// The process is at its file descriptor limit.
    FileLimit,
    /// The process has as many sessions as fit into its memory.
    SessionLimit,
    /// The socket's send buffer is full.
    SendBufferFull,
    /// The network refused the datagram: unreachable, or too large for the path.
    SendFailed,
    /// The process is shutting down and accepts no new flows.
    Draining,
    /// `access` denies the client.
    AccessDenied,
    /// `maxConnections` or `maxFlows` is reached, and no flow of this listener is idle.
    ConnectionLimit,
    /// `maxConnectionsPerSource` is reached.
    SourceLimit,
    /// `newConnectionsPerSecond` is reached.
    RateLimit,
    /// `bytesPerSecond` is reached.
    Bandwidth,
    /// The client is a proxy of the same fleet: the datagram came back.
    Loop,
    /// The share of the namespace is used up, and no flow of this forward is idle.
    TenantLimit,
    /// The system dropped datagrams of clients that the proxy did not read in time.
    ReceiveBufferFull,
    /// The system dropped replies that the proxy did not read in time.
    ReplyBufferFull,
}

impl From<Refusal> for Dropped {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Connections | Refusal::QueueFull => Self::ConnectionLimit,
            Refusal::Source => Self::SourceLimit,
            Refusal::Rate => Self::RateLimit,
            Refusal::Tenant => Self::TenantLimit,
        }
    }
}

impl Dropped {
    /// Every reason.
    pub const ALL: [Self; 16] = [
        Self::NoBackend,
        Self::TableFull,
        Self::FileLimit,
        Self::SessionLimit,
        Self::SendBufferFull,
        Self::SendFailed,
        Self::Draining,
        Self::AccessDenied,
        Self::ConnectionLimit,
        Self::SourceLimit,
        Self::RateLimit,
        Self::Bandwidth,
        Self::Loop,
        Self::TenantLimit,
        Self::ReceiveBufferFull,
        Self::ReplyBufferFull,
    ];

    /// Whether a listener with this spec can drop for this reason; series of other reasons are omitted.
    #[must_use]
    pub fn is_possible(self, listener: &Listener) -> bool {
        let limits = listener.limits.as_deref();
        match self {
            Self::AccessDenied => listener.access.is_some(),
            Self::Loop => listener.destinations.refuse_local,
            Self::ConnectionLimit => limits.is_some_and(|it| it.max_connections.is_some() || it.max_flows.is_some()),
            Self::SourceLimit => limits.is_some_and(|it| it.max_connections_per_source.is_some()),
            Self::RateLimit => limits.is_some_and(|it| it.new_connections_per_second.is_some()),
            Self::Bandwidth => limits.is_some_and(|it| it.bytes_per_second.is_some()),
            Self::TenantLimit => listener.tenant_limits.is_some(),
            _ => true,
        }
    }

    /// Label value in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoBackend => "NoBackend",
            Self::TableFull => "TableFull",
            Self::FileLimit => "FileLimit",
            Self::SessionLimit => "SessionLimit",
            Self::SendBufferFull => "SendBufferFull",
            Self::SendFailed => "SendFailed",
            Self::Draining => "Draining",
            Self::AccessDenied => "AccessDenied",
            Self::ConnectionLimit => "ConnectionLimit",
            Self::SourceLimit => "SourceLimit",
            Self::RateLimit => "RateLimit",
            Self::Bandwidth => "Bandwidth",
            Self::Loop => "Loop",
            Self::TenantLimit => "TenantLimit",
            Self::ReceiveBufferFull => "ReceiveBufferFull",
            Self::ReplyBufferFull => "ReplyBufferFull",
        }
    }

    /// Position in [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}
