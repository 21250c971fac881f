//! A listener as all threads see it. It outlives changes of its spec and moves between sockets.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use proxy_api::{Listener, ListenerId};

use crate::core::{
    balance::Targets,
    end::EndReason,
    limiter::{Limiter, Refusal},
};

/// A listener with its present spec, its present targets and its counts.
#[derive(Debug)]
pub struct Shared {
    /// Its name.
    pub id: Arc<ListenerId>,
    /// What it does now; sessions read limits and times from here, so changes apply in place.
    pub spec: ArcSwap<Listener>,
    /// Where sessions go now.
    pub targets: ArcSwap<Targets>,
    /// Numbers new sessions, over all workers.
    pub tickets: AtomicU64,
    /// Counts; passed on when the listener moves to another socket.
    pub counters: Arc<Counters>,
    /// Limits of its forward.
    pub limiter: Arc<Limiter>,
}

impl Shared {
    /// A listener without targets.
    #[must_use]
    pub fn new(id: ListenerId, spec: Arc<Listener>, counters: Arc<Counters>, limiter: Arc<Limiter>) -> Arc<Self> {
        Arc::new(Self {
            id: Arc::new(id),
            spec: ArcSwap::new(spec),
            targets: ArcSwap::default(),
            tickets: AtomicU64::new(0),
            counters,
            limiter,
        })
    }
}

/// What a listener counts; touched once per session or per second, never per byte.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sessions begun.
    pub opened: AtomicU64,
    /// Sessions ended, by [`EndReason::index`].
    pub closed: [AtomicU64; EndReason::ALL.len()],
    /// Bytes from clients.
    pub up: AtomicU64,
    /// Bytes to clients.
    pub down: AtomicU64,
    /// Further tries to connect.
    pub retries: AtomicU64,
    /// Endpoints put aside.
    pub ejected: AtomicU64,
    /// Datagrams dropped, by [`Dropped::index`].
    pub dropped: [AtomicU64; Dropped::ALL.len()],
    /// Active checks that passed.
    pub checks_passed: AtomicU64,
    /// Active checks that did not.
    pub checks_failed: AtomicU64,
    /// Clients that `access` let in.
    pub allowed: AtomicU64,
    /// Clients that it did not.
    pub denied: AtomicU64,
    /// Waits of the accept loop after an error of the system.
    pub accept_errors: AtomicU64,
}

impl Counters {
    /// Whether `access` lets a client in, counted if there is a list at all.
    #[must_use]
    pub fn admits(&self, listener: &Listener, client: IpAddr) -> bool {
        let Some(access) = listener.access.as_deref() else { return true };
        let admitted = access.admits(client);
        let count = if admitted { &self.allowed } else { &self.denied };
        count.fetch_add(1, Relaxed);
        admitted
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
    /// The flow table is full of flows in use.
    TableFull,
    /// The process is at its file limit.
    FileLimit,
    /// The system could not take it at once.
    SendBufferFull,
    /// The network refused it: unreachable, or too large for the path.
    SendFailed,
    /// The process is ending and takes no new flows.
    Draining,
    /// `access` does not let this client in.
    AccessDenied,
    /// `maxConnections` or `maxFlows` is reached, and no flow of this listener is idle.
    ConnectionLimit,
    /// `maxConnectionsPerSource` is reached.
    SourceLimit,
    /// `newConnectionsPerSecond` is reached.
    RateLimit,
    /// `bytesPerSecond` is reached.
    Bandwidth,
}

impl From<Refusal> for Dropped {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Connections | Refusal::QueueFull => Self::ConnectionLimit,
            Refusal::Source => Self::SourceLimit,
            Refusal::Rate => Self::RateLimit,
        }
    }
}

impl Dropped {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::NoBackend,
        Self::TableFull,
        Self::FileLimit,
        Self::SendBufferFull,
        Self::SendFailed,
        Self::Draining,
        Self::AccessDenied,
        Self::ConnectionLimit,
        Self::SourceLimit,
        Self::RateLimit,
        Self::Bandwidth,
    ];

    /// Whether a listener of this kind can give it; series of others would say nothing.
    #[must_use]
    pub fn is_possible(self, listener: &Listener) -> bool {
        let limits = listener.limits.as_deref();
        match self {
            Self::AccessDenied => listener.access.is_some(),
            Self::ConnectionLimit => limits.is_some_and(|it| it.max_connections.is_some() || it.max_flows.is_some()),
            Self::SourceLimit => limits.is_some_and(|it| it.max_connections_per_source.is_some()),
            Self::RateLimit => limits.is_some_and(|it| it.new_connections_per_second.is_some()),
            Self::Bandwidth => limits.is_some_and(|it| it.bytes_per_second.is_some()),
            _ => true,
        }
    }

    /// The word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoBackend => "NoBackend",
            Self::TableFull => "TableFull",
            Self::FileLimit => "FileLimit",
            Self::SendBufferFull => "SendBufferFull",
            Self::SendFailed => "SendFailed",
            Self::Draining => "Draining",
            Self::AccessDenied => "AccessDenied",
            Self::ConnectionLimit => "ConnectionLimit",
            Self::SourceLimit => "SourceLimit",
            Self::RateLimit => "RateLimit",
            Self::Bandwidth => "Bandwidth",
        }
    }

    /// Position in [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}
