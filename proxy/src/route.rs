//! What a socket does with a connection: it belongs to one listener, or to one of several by the server name it asks for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;

use crate::{core::client_hello, shared::Shared};

/// The listeners that a socket serves now; replaced without touching the socket.
pub type Route = Arc<ArcSwap<Served>>;

/// Whom a socket serves.
#[derive(Debug)]
pub enum Served {
    /// One listener.
    One(Arc<Shared>),
    /// Several, told apart by server names.
    ByName(Names),
}

/// Listeners by server name.
#[derive(Debug)]
pub struct Names {
    table: BTreeMap<String, Arc<Shared>>,
    first: Arc<Shared>,
    /// Connections that belong to none of them.
    pub unrouted: Arc<Unrouted>,
}

impl Served {
    /// Listeners on one socket: one without names, or any number with names. `None` if there is none.
    #[must_use]
    pub fn of(listeners: &[Arc<Shared>], unrouted: &Arc<Unrouted>) -> Option<Self> {
        let first = listeners.first()?.clone();
        if first.spec.load().hostnames.is_empty() {
            return Some(Self::One(first));
        }
        let mut table = BTreeMap::new();
        for shared in listeners {
            for name in &shared.spec.load().hostnames {
                table.entry(name.clone()).or_insert_with(|| shared.clone());
            }
        }
        Some(Self::ByName(Names { table, first, unrouted: unrouted.clone() }))
    }

    /// The first of them: for what concerns the socket itself.
    #[must_use]
    pub fn first(&self) -> &Arc<Shared> {
        match self {
            Self::One(shared) => shared,
            Self::ByName(names) => &names.first,
        }
    }

    /// The listener for a host: by its own name, else by the longest wildcard.
    #[must_use]
    pub fn find(&self, host: &str) -> Option<&Arc<Shared>> {
        match self {
            // The port is somebody's now who takes all that comes, but not what was meant for another.
            Self::One(_) => None,
            Self::ByName(names) => client_hello::candidates(host).find_map(|name| names.table.get(&name)),
        }
    }

    /// Sessions begun by those that it serves, and connections that belong to nobody.
    #[must_use]
    pub fn opened(&self) -> u64 {
        match self {
            Self::One(shared) => shared.counters.opened.load(Relaxed),
            Self::ByName(names) => {
                let mut seen: Vec<&Arc<Shared>> = Vec::new();
                for shared in names.table.values() {
                    if !seen.iter().any(|other| Arc::ptr_eq(other, shared)) {
                        seen.push(shared);
                    }
                }
                seen.iter().map(|shared| shared.counters.opened.load(Relaxed)).sum()
            }
        }
    }

    /// Whether both do the same with every connection.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(one), Self::One(other)) => Arc::ptr_eq(one, other),
            (Self::ByName(one), Self::ByName(other)) => {
                let pairs = one.table.iter().zip(&other.table);
                one.table.len() == other.table.len()
                    && Arc::ptr_eq(&one.first, &other.first)
                    && pairs.into_iter().all(|(a, b)| a.0 == b.0 && Arc::ptr_eq(a.1, b.1))
            }
            _ => false,
        }
    }
}

impl Names {
    /// The listener that speaks for all of them in what comes before the name.
    #[must_use]
    pub fn first(&self) -> &Arc<Shared> {
        &self.first
    }
}

/// Why a connection belongs to no listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unroutable {
    /// No listener has the name.
    UnknownServerName,
    /// It asks for no name.
    NoServerName,
    /// It does not speak TLS.
    NotTls,
    /// The name did not come within `handshakeSeconds`.
    HandshakeTimeout,
    /// It closed without having sent a byte: a health check.
    Probe,
    /// It left before it had said its name.
    ClientLeft,
    /// A PROXY header is required and the peer is not among `trustedCIDRs`.
    UntrustedPeer,
    /// No PROXY header, or one that says something impossible.
    BadHeader,
}

impl Unroutable {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::UnknownServerName,
        Self::NoServerName,
        Self::NotTls,
        Self::HandshakeTimeout,
        Self::Probe,
        Self::ClientLeft,
        Self::UntrustedPeer,
        Self::BadHeader,
    ];

    /// The word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownServerName => "UnknownServerName",
            Self::NoServerName => "NoServerName",
            Self::NotTls => "NotTls",
            Self::HandshakeTimeout => "HandshakeTimeout",
            Self::Probe => "Probe",
            Self::ClientLeft => "ClientLeft",
            Self::UntrustedPeer => "UntrustedPeer",
            Self::BadHeader => "BadHeader",
        }
    }
}

/// Connections of one socket that belong to no listener, by reason.
#[derive(Debug, Default)]
pub struct Unrouted([AtomicU64; Unroutable::ALL.len()]);

impl Unrouted {
    /// Counts one.
    pub fn count(&self, why: Unroutable) {
        self.0[why as usize].fetch_add(1, Relaxed);
    }

    /// So many.
    #[must_use]
    pub fn get(&self, why: Unroutable) -> u64 {
        self.0[why as usize].load(Relaxed)
    }
}
