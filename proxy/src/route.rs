//! Routes connections of a socket: all to one listener, or by server name to one of several.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;

use crate::{
    core::{client_hello, pace::Pace},
    shared::Shared,
};

/// The listeners behind a socket; replaced without touching the socket.
pub type Route = Arc<ArcSwap<Served>>;

/// The listeners behind a socket.
#[derive(Debug)]
pub enum Served {
    /// One listener.
    One(Arc<Shared>),
    /// Several listeners, selected by server name.
    ByName(Names),
}

/// Listeners by server name.
#[derive(Debug)]
pub struct Names {
    table: BTreeMap<String, Arc<Shared>>,
    first: Arc<Shared>,
    /// Connections that match none of them.
    pub unrouted: Arc<Unrouted>,
}

impl Served {
    /// A table for listeners on one socket: one without hostnames, or any number with. `None` if `listeners` is empty.
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

    /// The first listener, used for what concerns the socket itself.
    #[must_use]
    pub fn first(&self) -> &Arc<Shared> {
        match self {
            Self::One(shared) => shared,
            Self::ByName(names) => &names.first,
        }
    }

    /// Whether the listener keeps messages rather than forward sessions.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        matches!(self, Self::One(shared) if shared.spec.load().durable.is_some())
    }

    /// The listener for a server name: exact match first, then the longest wildcard.
    #[must_use]
    pub fn find(&self, host: &str) -> Option<&Arc<Shared>> {
        match self {
            // The port now has a catch-all listener; do not hand it a client of another server name.
            Self::One(_) => None,
            Self::ByName(names) => client_hello::candidates(host).find_map(|name| names.table.get(&name)),
        }
    }

    /// Sessions opened by all listeners of the socket.
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

    /// Whether both route every connection the same way.
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
    /// The listener that provides settings used before the name is known.
    #[must_use]
    pub fn first(&self) -> &Arc<Shared> {
        &self.first
    }
}

/// Why a connection matches no listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unroutable {
    /// No listener has the server name.
    UnknownServerName,
    /// The `ClientHello` has no server name.
    NoServerName,
    /// The client does not speak TLS.
    NotTls,
    /// No `ClientHello` within `handshakeSeconds`.
    HandshakeTimeout,
    /// Too many clients had not sent their `ClientHello` yet, and this one had waited longest.
    HandshakeLimit,
    /// The client closed without sending a byte, as health checks do.
    Probe,
    /// The client left before it sent its server name.
    ClientLeft,
    /// A PROXY header is required, and the peer is not in `trustedCIDRs`.
    UntrustedPeer,
    /// The PROXY header is missing or invalid.
    BadHeader,
}

impl Unroutable {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::UnknownServerName,
        Self::NoServerName,
        Self::NotTls,
        Self::HandshakeTimeout,
        Self::HandshakeLimit,
        Self::Probe,
        Self::ClientLeft,
        Self::UntrustedPeer,
        Self::BadHeader,
    ];

    /// Label value in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownServerName => "UnknownServerName",
            Self::NoServerName => "NoServerName",
            Self::NotTls => "NotTls",
            Self::HandshakeTimeout => "HandshakeTimeout",
            Self::HandshakeLimit => "HandshakeLimit",
            Self::Probe => "Probe",
            Self::ClientLeft => "ClientLeft",
            Self::UntrustedPeer => "UntrustedPeer",
            Self::BadHeader => "BadHeader",
        }
    }
}

/// Connections of one socket that matched no listener, by reason.
#[derive(Debug, Default)]
pub struct Unrouted {
    counts: [AtomicU64; Unroutable::ALL.len()],
    lines: [Pace; Unroutable::ALL.len()],
}

impl Unrouted {
    /// Counts one connection; returns the connections of this reason so far.
    pub fn count(&self, why: Unroutable) -> u64 {
        self.counts[why as usize].fetch_add(1, Relaxed) + 1
    }

    /// Whether to log the `count`th connection of this reason, which is refused at second `now`; if so, the connections
    /// of this reason since the last line.
    #[must_use]
    pub fn due(&self, why: Unroutable, now: u64, count: u64) -> Option<u64> {
        self.lines[why as usize].due(now, count)
    }

    /// The connections that no line of the log covers, by reason, where a line is due at second `now`.
    #[must_use]
    pub fn rest(&self, now: u64) -> Vec<(Unroutable, u64)> {
        let rest = |why: Unroutable| Some((why, self.lines[why as usize].rest(now, self.get(why))?));
        Unroutable::ALL.into_iter().filter_map(rest).collect()
    }

    /// Connections counted with this reason.
    #[must_use]
    pub fn get(&self, why: Unroutable) -> u64 {
        self.counts[why as usize].load(Relaxed)
    }
}
