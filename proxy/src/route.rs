//! Routes connections of a socket: all to one listener, or by server name to one of several.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use arc_swap::ArcSwap;

use crate::{
    core::{logging::unrouted::Unrouted, sessions::server_names::ServerNames},
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
    table: ServerNames<Shared>,
    /// Connections that match none of them.
    pub unrouted: Arc<Unrouted>,
}

impl Served {
    /// Builds a table of listeners on one socket: one without hostnames, or any number with. `None` without listeners.
    #[must_use]
    pub fn of(listeners: &[Arc<Shared>], unrouted: &Arc<Unrouted>) -> Option<Self> {
        let first = listeners.first()?;
        if first.spec.load().hostnames.is_empty() {
            return Some(Self::One(first.clone()));
        }
        let named = listeners.iter().map(|shared| (shared.clone(), shared.spec.load().hostnames.clone()));
        Some(Self::ByName(Names { table: ServerNames::of(named)?, unrouted: unrouted.clone() }))
    }

    /// The first listener, used for settings of the socket itself.
    #[must_use]
    pub fn first(&self) -> &Arc<Shared> {
        match self {
            Self::One(shared) => shared,
            Self::ByName(names) => names.first(),
        }
    }

    /// Whether the listener keeps messages instead of forwarding sessions.
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
            Self::ByName(names) => names.table.find(host),
        }
    }

    /// Sessions opened by all listeners of the socket. `None`: the listener has a range of ports, and counts the
    /// sessions of all of them, including idle ones.
    #[must_use]
    pub fn opened(&self) -> Option<u64> {
        if self.first().spec.load().end_port.is_some() {
            return None;
        }
        Some(match self {
            Self::One(shared) => shared.counters.opened.load(Relaxed),
            Self::ByName(names) => names.table.listeners().map(|shared| shared.counters.opened.load(Relaxed)).sum(),
        })
    }

    /// Whether both route every connection the same way.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(one), Self::One(other)) => Arc::ptr_eq(one, other),
            (Self::ByName(one), Self::ByName(other)) => one.table.is_same(&other.table),
            _ => false,
        }
    }
}

impl Names {
    /// The listener that provides settings used before the name is known.
    #[must_use]
    pub fn first(&self) -> &Arc<Shared> {
        self.table.first()
    }
}

#[cfg(test)]
mod tests {
    use proxy_api::Listener;

    use super::*;
    use crate::supervisor::fixtures::{id, listener};

    /// A listener with these ports that has opened sessions.
    fn opened(end_port: Option<u16>, sessions: u64) -> Arc<Shared> {
        let spec = Listener { end_port, ..(*listener(1, "b")).clone() };
        let shared = Shared::new(id("a"), Arc::new(spec), Arc::default(), Arc::default());
        shared.counters.opened.store(sessions, Relaxed);
        shared
    }

    #[test]
    fn the_sessions_of_a_range_are_not_those_of_one_socket() {
        let served = |end_port| Served::of(&[opened(end_port, 7)], &Arc::default()).expect("a listener");
        assert_eq!((served(None).opened(), served(Some(2)).opened()), (Some(7), None));
    }
}
