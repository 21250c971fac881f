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

use proxy_api::{Access, Bind, Configuration, Listener, ListenerId, Offer, SocketKey};

/// What a proxy runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Running {
    /// Listeners that serve.
    pub listeners: BTreeMap<ListenerId, Arc<Listener>>,
    /// Open sockets and the listener that each one serves.
    pub sockets: BTreeMap<SocketKey, ListenerId>,
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
    let wanted = desired.values().flatten().map(|listener| listener.socket);
    Plan { running, desired, bind: wanted.filter(|socket| !running.sockets.contains_key(socket)).collect() }
}

/// Why a listener could not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// This build does not understand it.
    Unsupported,
    /// Its socket could not be opened.
    Unbound(SocketKey),
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
    /// Those that go to backends which are gone, and those of clients which may no longer come.
    Some {
        /// The backends that are gone.
        gone: BTreeSet<String>,
        /// Who may come now, if that is other than it was.
        access: Option<Access>,
    },
}

impl Which {
    /// Whether a session of this client to this backend is one of them.
    #[must_use]
    pub fn has(&self, client: IpAddr, backend: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Some { gone, access } => {
                backend.is_some_and(|backend| gone.contains(backend))
                    || access.as_ref().is_some_and(|access| !access.admits(client))
            }
        }
    }
}

impl Plan<'_> {
    /// Decides who serves what, given the sockets that could not be opened.
    #[must_use]
    pub fn settle(&self, unbound: &BTreeSet<SocketKey>) -> Settled {
        let blocked = self.blocked(unbound);
        let mut next = Running::default();
        for (id, wanted) in self.desired {
            let serving = if blocked.contains_key(id) { self.running.listeners.get(id) } else { wanted.as_ref() };
            if let Some(listener) = serving {
                next.sockets.insert(listener.socket, id.clone());
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

    /// Finds the listeners that cannot change. One that stays keeps its socket, which may block the next one.
    fn blocked(&self, unbound: &BTreeSet<SocketKey>) -> BTreeMap<ListenerId, Blocked> {
        let mut blocked = BTreeMap::new();
        for (id, wanted) in self.desired {
            match wanted {
                None => {
                    blocked.insert(id.clone(), Blocked::Unsupported);
                }
                Some(listener) if unbound.contains(&listener.socket) => {
                    blocked.insert(id.clone(), Blocked::Unbound(listener.socket));
                }
                Some(_) => {}
            }
        }
        loop {
            let holders = self.holders(&blocked);
            let before = blocked.len();
            for (id, listener) in self.desired.iter().filter_map(|(id, wanted)| Some((id, wanted.as_ref()?))) {
                if !blocked.contains_key(id)
                    && let Some(holder) = holders.get(&listener.socket).filter(|holder| *holder != id)
                {
                    blocked.insert(id.clone(), Blocked::Held(listener.socket, holder.clone()));
                }
            }
            if blocked.len() == before {
                return blocked;
            }
        }
    }

    /// Who has each socket if these listeners stay as they are; of two that want the same, who has it, else the first.
    fn holders(&self, blocked: &BTreeMap<ListenerId, Blocked>) -> BTreeMap<SocketKey, ListenerId> {
        let mut holders: BTreeMap<SocketKey, ListenerId> = BTreeMap::new();
        for id in blocked.keys() {
            if let Some(stays) = self.running.listeners.get(id) {
                holders.insert(stays.socket, id.clone());
            }
        }
        for (id, wanted) in self.desired {
            let Some(listener) = wanted.as_ref().filter(|_| !blocked.contains_key(id)) else { continue };
            let has_it = self.running.listeners.get(id).is_some_and(|now| now.socket == listener.socket);
            match holders.get(&listener.socket) {
                Some(other) if blocked.contains_key(other) || !has_it => {}
                _ => {
                    holders.insert(listener.socket, id.clone());
                }
            }
        }
        holders
    }

    /// A listener that goes from Loopback to All keeps its old socket too: closing it would lose connections that the
    /// kernel has queued there.
    fn keep_loopback(&self, next: &mut Running) {
        for socket in self.running.sockets.keys().filter(|socket| socket.bind == Bind::Loopback) {
            let wide = SocketKey { bind: Bind::All, ..*socket };
            if let Some(id) = next.sockets.get(&wide).cloned() {
                next.sockets.entry(*socket).or_insert(id);
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
                Some(after) if after.socket != before.socket || after.proxy_protocol != before.proxy_protocol => {
                    (Which::All, after)
                }
                Some(after) => {
                    let kept = |backend: &str| after.backends.iter().any(|other| other.id == backend);
                    let gone = before.backends.iter().map(|backend| &backend.id).filter(|backend| !kept(backend));
                    let access = (after.access != before.access).then(|| after.access.as_deref().cloned());
                    let which = Which::Some { gone: gone.cloned().collect(), access: access.flatten() };
                    (which, after)
                }
            };
            if !matches!(&which, Which::Some { gone, access: None } if gone.is_empty()) {
                found.push(Concern { listener: id.clone(), which, policy: policy.clone() });
            }
        }
        found
    }
}
