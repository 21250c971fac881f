//! From what runs to what is wanted.
//!
//! A socket and a listener are separate things: a port that passes from one listener to another is never closed. The
//! order is fixed: bind what is new ([`Plan::bind`]), then, knowing what could not be bound, decide who serves what
//! ([`Plan::settle`]). A change to a listener is all or nothing: one that cannot have its socket goes on as it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::client_hello;
use proxy_api::{Access, Bind, Configuration, Listener, ListenerId, Offer, SocketKey};

/// What a proxy runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Running {
    /// Listeners that serve.
    pub listeners: BTreeMap<ListenerId, Arc<Listener>>,
    /// Open sockets and the listeners that each one serves: one, or several by their names.
    pub sockets: BTreeMap<SocketKey, BTreeSet<ListenerId>>,
}

/// What is wanted; `None` is a listener that must not run as it was sent.
pub type Desired = BTreeMap<ListenerId, Option<Arc<Listener>>>;

/// The listeners of a configuration.
#[must_use]
pub fn desired(configuration: &Configuration) -> Desired {
    let listener = |offer: &Offer| match offer {
        Offer::Supported(listener) => Some(Arc::new((**listener).clone())),
        Offer::Unsupported { .. } => None,
    };
    configuration.listeners.iter().map(|(id, offer)| (id.clone(), listener(offer))).collect()
}

/// The first half of a change.
#[derive(Debug)]
pub struct Plan<'a> {
    running: &'a Running,
    desired: &'a Desired,
    /// Sockets to open before anything else is touched.
    pub bind: BTreeSet<SocketKey>,
}

/// Compares what runs with what is wanted.
#[must_use]
pub fn diff<'a>(running: &'a Running, desired: &'a Desired) -> Plan<'a> {
    let wanted = desired.values().flatten().flat_map(|listener| listener.sockets());
    Plan { running, desired, bind: wanted.filter(|socket| !running.sockets.contains_key(socket)).collect() }
}

/// Why a listener could not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// This build does not understand it.
    Unsupported,
    /// Sockets of it could not be opened; a range is opened whole or not at all.
    Unbound(Vec<SocketKey>),
    /// Its socket is needed by another listener, which could not move or comes first.
    Held(SocketKey, ListenerId),
}

/// The second half of a change: what runs afterwards, and what that means for what ran before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settled {
    /// What runs now.
    pub next: Running,
    /// Sockets to close once the routes are switched.
    pub close: BTreeSet<SocketKey>,
    /// Listeners that did not run before, or run differently now.
    pub applied: BTreeSet<ListenerId>,
    /// Listeners that do not run as wanted; those that ran before go on as before.
    pub blocked: BTreeMap<ListenerId, Blocked>,
    /// Sessions that the change concerns, by the listener as it was.
    pub concerned: Vec<Concern>,
}

/// Live sessions that would not be made under the new configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Concern {
    /// The listener they belong to.
    pub listener: ListenerId,
    /// Which of its sessions.
    pub which: Which,
    /// The listener whose session policy applies: the new one, or the last known if it is gone.
    pub policy: Arc<Listener>,
}

/// Some of a listener's sessions.
#[derive(Clone, Debug, PartialEq)]
pub enum Which {
    /// All of them.
    All,
    /// Those for which one of these holds.
    Some(Lost),
}

/// What a listener does not do any more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lost {
    /// Its backends that are gone.
    pub gone: BTreeSet<String>,
    /// Who may come now, if that is other than it was.
    pub access: Option<Access>,
    /// The last port of its range, counted from the first, if that is less than it was.
    pub last_offset: Option<u16>,
    /// The names that it serves now, if it has lost any.
    pub names: Option<Vec<String>>,
}

/// What tells a session from others.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Whose it is.
    pub client: IpAddr,
    /// Where it goes, once that is known.
    pub backend: Option<&'a str>,
    /// Its port in the range, counted from the first.
    pub offset: u16,
    /// The server name that it asked for.
    pub name: Option<&'a str>,
}

impl Which {
    /// Whether a session is one of them.
    #[must_use]
    pub fn has(&self, facts: Facts<'_>) -> bool {
        let Self::Some(lost) = self else { return true };
        let is_served = |names: &Vec<String>| {
            facts.name.is_none_or(|name| client_hello::candidates(name).any(|candidate| names.contains(&candidate)))
        };
        facts.backend.is_some_and(|backend| lost.gone.contains(backend))
            || lost.access.as_ref().is_some_and(|access| !access.admits(facts.client))
            || lost.last_offset.is_some_and(|last| facts.offset > last)
            || lost.names.as_ref().is_some_and(|names| !is_served(names))
    }
}

impl Plan<'_> {
    /// The new sockets of ranges.
    #[must_use]
    pub fn of_ranges(&self) -> BTreeSet<SocketKey> {
        let ranges = self.desired.values().flatten().filter(|listener| listener.further_ports() > 0);
        ranges.flat_map(|listener| listener.sockets()).filter(|socket| self.bind.contains(socket)).collect()
    }

    /// Decides who serves what, given the sockets that could not be opened.
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

    /// Finds the listeners that cannot change. One that stays keeps its sockets, which may block the next one.
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

    /// Who cannot have his sockets if these listeners stay as they are; of two that want the same, who has it goes first,
    /// then the first by name.
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

    /// A listener that goes from Loopback to All keeps its old socket too: closing it would lose connections that the
    /// kernel has queued there.
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

/// Whether no session of a listener would be made now: it is elsewhere, or speaks another protocol.
fn is_another(before: &Listener, after: &Listener) -> bool {
    after.socket != before.socket
        || after.proxy_protocol != before.proxy_protocol
        || after.hostnames.is_empty() != before.hostnames.is_empty()
}

/// Who has each socket.
#[derive(Default)]
struct Holders<'a>(BTreeMap<SocketKey, Vec<(&'a ListenerId, &'a Listener)>>);

impl<'a> Holders<'a> {
    fn add(&mut self, id: &'a ListenerId, listener: &'a Listener) {
        for socket in listener.sockets() {
            self.0.entry(socket).or_default().push((id, listener));
        }
    }

    /// A socket that somebody else has and does not share.
    fn conflict(&self, listener: &Listener) -> Option<(SocketKey, &'a ListenerId)> {
        listener.sockets().find_map(|socket| {
            let holders = self.0.get(&socket).into_iter().flatten();
            let mut others = holders.filter(|(_, other)| !other.shares_with(listener));
            others.next().map(|(id, _)| (socket, *id))
        })
    }
}
