//! Computes the change from the running to the desired state.
//!
//! Sockets and listeners are separate: a port that passes from one listener to another is never closed. The order is
//! fixed: bind the new sockets ([`Plan::bind`]), then assign sockets to listeners, knowing which binds failed
//! ([`Plan::settle`]). A change to a listener is all or nothing: without its sockets, it keeps running unchanged.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::core::{durable::draining, sessions::client_hello};
use proxy_api::{Access, Bind, Configuration, Listener, ListenerId, Offer, OnUpdate, SocketKey};

/// The running state of a proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Running {
    /// Serving listeners.
    pub listeners: BTreeMap<ListenerId, Arc<Listener>>,
    /// Open sockets with the listeners they serve: one, or several with hostnames.
    pub sockets: BTreeMap<SocketKey, BTreeSet<ListenerId>>,
}

/// The desired state; `None` for a listener that is not supported.
pub type Desired = BTreeMap<ListenerId, Option<Arc<Listener>>>;

/// Returns the listeners of a configuration.
#[must_use]
pub fn desired(configuration: &Configuration) -> Desired {
    let listener = |offer: &Offer| match offer {
        Offer::Supported(listener) => Some(listener.clone()),
        Offer::Unsupported { .. } => None,
    };
    configuration.listeners.iter().map(|(id, offer)| (id.clone(), listener(offer))).collect()
}

/// Removes all listeners but those that keep messages in a folder.
pub fn leave_durable(desired: &mut Desired) {
    desired.retain(|_, wanted| wanted.as_ref().is_some_and(|listener| draining::has_folder(listener)));
}

/// First phase of a change.
#[derive(Debug)]
pub struct Plan<'a> {
    running: &'a Running,
    desired: &'a Desired,
    /// Sockets to open before anything else changes.
    pub bind: BTreeSet<SocketKey>,
}

/// Compares the running with the desired state.
#[must_use]
pub fn diff<'a>(running: &'a Running, desired: &'a Desired) -> Plan<'a> {
    let wanted = desired.values().flatten().flat_map(|listener| listener.sockets());
    Plan { running, desired, bind: wanted.filter(|socket| !running.sockets.contains_key(socket)).collect() }
}

/// Why a listener could not be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// This build does not support the listener.
    Unsupported,
    /// These sockets could not be bound; a range is bound whole or not at all.
    Unbound(Vec<SocketKey>),
    /// The socket is held by another listener, which could not move or has precedence.
    Held(SocketKey, ListenerId),
}

/// Second phase of a change: the next running state and its effects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settled {
    /// The next running state.
    pub next: Running,
    /// Sockets to close after the routes are switched.
    pub close: BTreeSet<SocketKey>,
    /// Listeners that are new or changed.
    pub applied: BTreeSet<ListenerId>,
    /// Listeners that are not in their desired state; those that ran before keep running unchanged.
    pub blocked: BTreeMap<ListenerId, Blocked>,
    /// Sessions that the change concerns, by listener id.
    pub concerned: Vec<Concern>,
}

/// Live sessions that would not be accepted under the new configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Concern {
    /// Listener of the sessions.
    pub listener: ListenerId,
    /// The sessions concerned.
    pub which: Which,
    /// Listener with the session policy to apply: the new one, or the last known one if it was removed.
    pub policy: Arc<Listener>,
}

/// Selects sessions of a listener.
#[derive(Clone, Debug, PartialEq)]
pub enum Which {
    /// All sessions.
    All,
    /// Sessions that match any of these losses.
    Some(Lost),
    /// Sessions that this listener would not accept, whichever change caused it.
    Unfit(Arc<Listener>),
}

/// The parts that a listener no longer serves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lost {
    /// Removed backends.
    pub gone: BTreeSet<String>,
    /// The new access list, if it changed.
    pub access: Option<Access>,
    /// Offset of the new last port, if the range shrank.
    pub last_offset: Option<u16>,
    /// The remaining hostnames, if any were removed.
    pub names: Option<Vec<String>>,
}

/// Properties of a session that decide whether a change concerns it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Client address.
    pub client: IpAddr,
    /// Backend entry, once chosen.
    pub backend: Option<&'a str>,
    /// Position of the session's port in the range, counted from the first port.
    pub offset: u16,
    /// Server name from the client's `ClientHello`.
    pub name: Option<&'a str>,
}

impl Which {
    /// Whether the session is selected.
    #[must_use]
    pub fn has(&self, facts: Facts<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Some(lost) => {
                facts.backend.is_some_and(|backend| lost.gone.contains(backend))
                    || lost.access.as_ref().is_some_and(|access| !access.admits(facts.client))
                    || lost.last_offset.is_some_and(|last| facts.offset > last)
                    || lost.names.as_ref().is_some_and(|names| !facts.is_named(names))
            }
            Self::Unfit(listener) => {
                let is_gone = |id: &str| listener.backends.iter().all(|backend| backend.id != id);
                facts.backend.is_some_and(is_gone)
                    || listener.access.as_ref().is_some_and(|access| !access.admits(facts.client))
                    || facts.offset > listener.further_ports()
                    || !listener.hostnames.is_empty() && !facts.is_named(&listener.hostnames)
            }
        }
    }
}

impl Facts<'_> {
    /// Whether a listener with these hostnames serves the session; true without a server name.
    fn is_named(&self, hostnames: &[String]) -> bool {
        self.name.is_none_or(|name| client_hello::candidates(name).any(|candidate| hostnames.contains(&candidate)))
    }
}

impl Plan<'_> {
    /// New sockets that belong to ranges.
    #[must_use]
    pub fn of_ranges(&self) -> BTreeSet<SocketKey> {
        let ranges = self.desired.values().flatten().filter(|listener| listener.further_ports() > 0);
        ranges.flat_map(|listener| listener.sockets()).filter(|socket| self.bind.contains(socket)).collect()
    }

    /// Assigns sockets to listeners, given the sockets that could not be bound.
    #[must_use]
    pub fn settle(&self, unbound: &BTreeSet<SocketKey>) -> Settled {
        let blocked = self.blocked(unbound);
        let mut next = Running::default();
        for (id, wanted) in self.desired {
            let serving = if blocked.contains_key(id) { self.running.listeners.get(id) } else { wanted.as_ref() };
            if let Some(listener) = serving {
                for socket in listener.sockets() {
                    next.sockets.entry(socket).or_default().insert(id.clone());
                }
                next.listeners.insert(id.clone(), listener.clone());
            }
        }
        self.keep_loopback(&mut next);
        let opened = self.bind.difference(unbound);
        let open: BTreeSet<SocketKey> = self.running.sockets.keys().chain(opened).copied().collect();
        Settled {
            close: open.into_iter().filter(|socket| !next.sockets.contains_key(socket)).collect(),
            applied: self.applied(&next),
            concerned: self.concerned(&next),
            blocked,
            next,
        }
    }

    /// Finds the listeners that cannot change. A listener that stays keeps its sockets, which may block others.
    fn blocked(&self, unbound: &BTreeSet<SocketKey>) -> BTreeMap<ListenerId, Blocked> {
        let mut blocked = BTreeMap::new();
        for (id, wanted) in self.desired {
            let why = match wanted {
                None => Some(Blocked::Unsupported),
                Some(listener) => {
                    let missing: Vec<SocketKey> = listener.sockets().filter(|it| unbound.contains(it)).collect();
                    (!missing.is_empty()).then_some(Blocked::Unbound(missing))
                }
            };
            blocked.extend(why.map(|why| (id.clone(), why)));
        }
        loop {
            let conflicts = self.conflicts(&blocked);
            if conflicts.is_empty() {
                return blocked;
            }
            blocked.extend(conflicts);
        }
    }

    /// Listeners that cannot have their sockets if those in `blocked` stay. Of two listeners that want the same socket,
    /// its current holder wins, then the first by name.
    fn conflicts(&self, blocked: &BTreeMap<ListenerId, Blocked>) -> BTreeMap<ListenerId, Blocked> {
        let mut holders = Holders::default();
        for id in blocked.keys() {
            if let Some(stays) = self.running.listeners.get(id) {
                holders.add(id, stays);
            }
        }
        let wanted = || {
            let open = self.desired.iter().filter(|(id, _)| !blocked.contains_key(*id));
            open.filter_map(|(id, wanted)| Some((id, wanted.as_ref()?)))
        };
        let has_it = |id: &ListenerId, listener: &Listener| {
            self.running.listeners.get(id).is_some_and(|now| now.socket == listener.socket)
        };
        let first = wanted().filter(|(id, listener)| has_it(id, listener));
        let then = wanted().filter(|(id, listener)| !has_it(id, listener));
        let mut found = BTreeMap::new();
        for (id, listener) in first.chain(then) {
            match holders.conflict(listener) {
                Some((socket, holder)) => drop(found.insert(id.clone(), Blocked::Held(socket, holder.clone()))),
                None => holders.add(id, listener),
            }
        }
        found
    }

    /// Keeps the old socket of a listener that changes from Loopback to All: closing it would reset connections that
    /// the kernel has queued there.
    fn keep_loopback(&self, next: &mut Running) {
        for socket in self.running.sockets.keys().filter(|socket| socket.bind == Bind::Loopback) {
            let wide = SocketKey { bind: Bind::All, ..*socket };
            if let Some(ids) = next.sockets.get(&wide).cloned() {
                next.sockets.entry(*socket).or_insert(ids);
            }
        }
    }

    fn applied(&self, next: &Running) -> BTreeSet<ListenerId> {
        let changed = |(id, listener): &(&ListenerId, &Arc<Listener>)| {
            self.running.listeners.get(*id).is_none_or(|before| before.revision != listener.revision)
        };
        next.listeners.iter().filter(changed).map(|(id, _)| id.clone()).collect()
    }

    fn concerned(&self, next: &Running) -> Vec<Concern> {
        let mut found = Vec::new();
        for (id, before) in &self.running.listeners {
            let (which, policy) = match next.listeners.get(id) {
                None => (Which::All, before),
                Some(after) if is_another(before, after) => (Which::All, after),
                // Sessions that earlier changes concerned may still run under the policy of that time.
                Some(after) if before.sessions != after.sessions && after.sessions.on_update != OnUpdate::Keep => {
                    (Which::Unfit(after.clone()), after)
                }
                Some(after) => {
                    let kept = |backend: &str| after.backends.iter().any(|other| other.id == backend);
                    let gone = before.backends.iter().map(|backend| &backend.id).filter(|backend| !kept(backend));
                    let access = (after.access != before.access).then(|| after.access.as_deref().cloned());
                    let fewer = after.further_ports() < before.further_ports();
                    let lost = before.hostnames.iter().any(|name| !after.hostnames.contains(name));
                    let some = Lost {
                        gone: gone.cloned().collect(),
                        access: access.flatten(),
                        last_offset: fewer.then(|| after.further_ports()),
                        names: lost.then(|| after.hostnames.clone()),
                    };
                    (Which::Some(some), after)
                }
            };
            if which != Which::Some(Lost::default()) {
                found.push(Concern { listener: id.clone(), which, policy: policy.clone() });
            }
        }
        found
    }
}

/// Whether no existing session fits the changed listener: its socket, protocol or PROXY header settings changed, or it
/// stopped or began to forward sessions.
#[must_use]
pub fn is_another(before: &Listener, after: &Listener) -> bool {
    after.socket != before.socket
        || after.proxy_protocol != before.proxy_protocol
        || after.hostnames.is_empty() != before.hostnames.is_empty()
        || after.durable.is_some() != before.durable.is_some()
}

/// Whether sessions from before a move can continue under the changed listener: the transport is the same, and the
/// ports of their endpoints do not depend on their position in a range.
#[must_use]
pub fn can_follow(before: &Listener, after: &Listener) -> bool {
    before.socket.transport == after.socket.transport
        && before.end_port.is_none()
        && after.end_port.is_none()
        && after.durable.is_some() == before.durable.is_some()
}

/// Listeners by the socket they hold.
#[derive(Default)]
struct Holders<'a>(BTreeMap<SocketKey, Vec<(&'a ListenerId, &'a Listener)>>);

impl<'a> Holders<'a> {
    fn add(&mut self, id: &'a ListenerId, listener: &'a Listener) {
        for socket in listener.sockets() {
            self.0.entry(socket).or_default().push((id, listener));
        }
    }

    /// A socket held by another listener that cannot share it.
    fn conflict(&self, listener: &Listener) -> Option<(SocketKey, &'a ListenerId)> {
        listener.sockets().find_map(|socket| {
            let holders = self.0.get(&socket).into_iter().flatten();
            let mut others = holders.filter(|(_, other)| !other.shares_with(listener));
            others.next().map(|(id, _)| (socket, *id))
        })
    }
}
