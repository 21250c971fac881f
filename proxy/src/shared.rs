//! A listener as all threads see it. It outlives changes of its spec and moves between sockets.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use proxy_api::{Listener, ListenerId};

use crate::core::{balance::Targets, end::EndReason};

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
}

impl Shared {
    /// A listener without targets.
    #[must_use]
    pub fn new(id: ListenerId, spec: Arc<Listener>, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            id: Arc::new(id),
            spec: ArcSwap::new(spec),
            targets: ArcSwap::default(),
            tickets: AtomicU64::new(0),
            counters,
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
    /// Waits of the accept loop after an error of the system.
    pub accept_errors: AtomicU64,
}

impl Counters {
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
}

impl Dropped {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::NoBackend, Self::TableFull, Self::FileLimit, Self::SendBufferFull, Self::SendFailed, Self::Draining];

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
        }
    }

    /// Position in [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}
