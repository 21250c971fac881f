//! The claims of one group, indexed by port.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::{Listener, Origin, Transport};

use super::{
    Candidate, ListenerRef, Lost, Port, Rank, Request, Rules, is_ephemeral,
    namespaces::Namespaces,
    nesting::{Asks, Nesting},
    no_free_port, nth_port, reserved_port, total,
};
use crate::hash::hash;

/// The claims of one group.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    rules: Rules,
    candidates: BTreeMap<Origin, Vec<Candidate>>,
    /// The candidates for each port in rank order. Lists, because nearly all of tens of thousands have one item.
    wanted: BTreeMap<Port, Vec<Rank>>,
    /// Listeners that accept any port, in rank order.
    dynamic: BTreeSet<Rank>,
    allocated: BTreeMap<Port, ListenerRef>,
    decided: BTreeMap<ListenerRef, Result<u16, Lost>>,
    /// Ports to decide again.
    dirty: BTreeSet<Port>,
    /// The group wants more ports than its Service may have.
    over: bool,
    /// The claims and shares of namespaces.
    namespaces: Namespaces,
}

impl Ledger {
    /// Replaces the claims of a forward; returns whether they changed.
    pub(crate) fn set(&mut self, key: &Origin, candidates: Vec<Candidate>) -> bool {
        if self.candidates.get(key) == Some(&candidates) {
            return false;
        }
        self.remove(key);
        for (index, candidate) in candidates.iter().enumerate() {
            let listener = ListenerRef { forward: key.clone(), index };
            match &candidate.request {
                Request::Impossible(lost) => drop(self.decided.insert(listener, Err(lost.clone()))),
                Request::Any(_) => drop(self.dynamic.insert(candidate.rank(listener))),
                Request::Port(_) => {
                    let rank = candidate.rank(listener);
                    for port in candidate.ports() {
                        let bucket = self.wanted.entry(port).or_default();
                        bucket.insert(bucket.partition_point(|other| *other < rank), rank.clone());
                        self.dirty.insert(port);
                    }
                }
            }
        }
        self.namespaces.add(key, &candidates);
        self.candidates.insert(key.clone(), candidates);
        true
    }

    /// Removes the claims of a forward; returns whether it had any.
    pub(crate) fn remove(&mut self, key: &Origin) -> bool {
        let Some(candidates) = self.candidates.remove(key) else { return false };
        self.namespaces.remove(key, &candidates);
        for (index, candidate) in candidates.iter().enumerate() {
            let listener = ListenerRef { forward: key.clone(), index };
            self.decided.remove(&listener);
            let rank = candidate.rank(listener);
            self.dynamic.remove(&rank);
            for port in candidate.ports() {
                if let Some(bucket) = self.wanted.get_mut(&port) {
                    bucket.retain(|other| *other != rank);
                    if bucket.is_empty() {
                        self.wanted.remove(&port);
                    }
                }
                self.dirty.insert(port);
            }
        }
        true
    }

    /// Decides the claims that changed; returns the forwards with a different outcome.
    pub(crate) fn settle(&mut self, rules: Rules) -> BTreeSet<Origin> {
        let has_other_rules = self.rules != rules;
        self.rules = rules;
        let reserved = self.rules.reserved.keys().filter(|port| self.wanted.contains_key(port));
        let winners = self.wanted.len() - reserved.count();
        let max_ports = self.rules.max_ports;
        let most = self.namespaces.most_ports().min(winners + self.dynamic.len());
        let over = max_ports.is_some_and(|max| most > max);
        if over || self.over || has_other_rules {
            self.dirty.extend(self.wanted.keys().copied());
        }
        self.over = over;
        let candidates = &self.candidates;
        self.dirty.extend(self.namespaces.review(|key| rank_of(candidates, key)));
        let mut affected = BTreeSet::new();
        // Ports are counted one by one, and all of them decided again, only if the Service is too small.
        let room = if over { max_ports.unwrap_or(usize::MAX) } else { usize::MAX };
        let left = self.decide(room, &mut affected);
        self.allocate(left, &mut affected);
        affected
    }

    /// Decides the dirty ports and all ports linked to them: in rank order, a candidate gets its ports if all
    /// of them are available. Returns the room that is left, in ports.
    fn decide(&mut self, mut room: usize, affected: &mut BTreeSet<Origin>) -> usize {
        let mut taken: BTreeMap<Port, Vec<ListenerRef>> = BTreeMap::new();
        let mut nesting = Nesting::default();
        for Rank { listener, .. } in self.contenders() {
            let Some(candidate) = self.candidate(&listener) else { continue };
            let outcome = self.outcome(&listener, candidate, &taken, &nesting, &mut room);
            if outcome.is_ok() {
                let ports = candidate.ports();
                for port in candidate.ports() {
                    taken.entry(port).or_default().push(listener.clone());
                    nesting.take(port, asks(&listener, candidate));
                }
                self.namespaces.take(&listener.forward.namespace, ports);
            }
            self.record(listener, outcome, affected);
        }
        room
    }

    /// The candidates to decide again, in rank order: all that claim dirty ports or ports linked to them, by a range or
    /// by the count of a namespace.
    fn contenders(&mut self) -> BTreeSet<Rank> {
        let mut todo: Vec<Port> = std::mem::take(&mut self.dirty).into_iter().collect();
        let (mut seen, mut contenders) = (BTreeSet::new(), BTreeSet::new());
        let mut counted: BTreeSet<String> = BTreeSet::new();
        while let Some(port) = todo.pop() {
            if !seen.insert(port) {
                continue;
            }
            for rank in self.wanted.get(&port).into_iter().flatten() {
                if contenders.contains(rank) {
                    continue;
                }
                contenders.insert(rank.clone());
                let range = self.candidate(&rank.listener).filter(|candidate| candidate.further > 0);
                todo.extend(range.into_iter().flat_map(Candidate::ports));
                let namespace = &rank.listener.forward.namespace;
                if let Some(ports) = self.namespaces.ports_of_crowd(namespace).filter(|_| !counted.contains(namespace))
                {
                    todo.extend(ports);
                    counted.insert(namespace.clone());
                }
            }
        }
        for namespace in &counted {
            self.namespaces.restart(namespace);
        }
        contenders
    }

    /// The first port of a candidate, or why it loses. Takes the ports that nobody else holds out of `room`.
    fn outcome(
        &self,
        listener: &ListenerRef,
        candidate: &Candidate,
        taken: &BTreeMap<Port, Vec<ListenerRef>>,
        nesting: &Nesting,
        room: &mut usize,
    ) -> Result<u16, Lost> {
        let mut first = None;
        let mut fresh = 0;
        for port in candidate.ports() {
            first.get_or_insert(port.1);
            if let Some(owner) = self.rules.reserved.get(&port) {
                return Err(reserved_port(port, owner));
            }
            let holders = taken.get(&port);
            fresh += usize::from(holders.is_none());
            for holder in holders.into_iter().flatten() {
                if let Some(winner) = self.candidate(holder).filter(|winner| !winner.shares_with(candidate)) {
                    return Err(self.rules.held_by(port, candidate, &holder.forward, winner));
                }
            }
            if let Some(lost) = nesting.refuses(port, asks(listener, candidate), &self.namespaces) {
                return Err(lost);
            }
        }
        if let Some(lost) = self.namespaces.refuses(&self.rules.group, listener, candidate.ports(), 0) {
            return Err(lost);
        }
        *room = room.checked_sub(fresh).ok_or_else(|| self.rules.too_many())?;
        Ok(first.unwrap_or(0))
    }

    fn candidate(&self, listener: &ListenerRef) -> Option<&Candidate> {
        self.candidates.get(&listener.forward).and_then(|all| all.get(listener.index))
    }

    fn record(&mut self, listener: ListenerRef, outcome: Result<u16, Lost>, affected: &mut BTreeSet<Origin>) {
        if self.decided.get(&listener) != Some(&outcome) {
            affected.insert(listener.forward.clone());
            self.decided.insert(listener, outcome);
        }
    }

    /// Allocates ports to the listeners that accept any port.
    fn allocate(&mut self, mut room: usize, affected: &mut BTreeSet<Origin>) {
        self.allocated.clear();
        self.namespaces.restart_allocation();
        for rank in std::mem::take(&mut self.dynamic) {
            let listener = rank.listener.clone();
            let transport = self.candidate(&listener).map_or(Transport::Tcp, |candidate| candidate.transport);
            let refused = self.namespaces.refuses(&self.rules.group, &listener, std::iter::empty(), 1);
            let outcome = match (refused, room) {
                (Some(lost), _) => Err(lost),
                (None, 0) => Err(self.rules.too_many()),
                (None, _) => self.free_port(&listener),
            };
            if let Ok(port) = &outcome {
                room -= 1;
                self.namespaces.take_allocated(&listener.forward.namespace);
                self.allocated.insert((transport, *port), listener.clone());
            }
            self.record(listener, outcome, affected);
            self.dynamic.insert(rank);
        }
    }

    /// The first free port, counted from a start that is a hash of the listener's name: the same listener tends to get
    /// the same port again.
    fn free_port(&self, listener: &ListenerRef) -> Result<u16, Lost> {
        let Some(candidate) = self.candidate(listener) else { return Err(no_free_port(Transport::Tcp)) };
        let Request::Any(ranges) = &candidate.request else { return Err(no_free_port(Transport::Tcp)) };
        let transport = candidate.transport;
        let total = total(ranges);
        let start = hash(&format!("{}/{}", listener.forward, candidate.name)) % total.max(1);
        let is_free = |port: &u16| {
            !is_ephemeral(*port)
                && !self.rules.reserved.contains_key(&(transport, *port))
                && !self.wanted.contains_key(&(transport, *port))
                && !self.allocated.contains_key(&(transport, *port))
        };
        let mut ports = (0..total).map(|step| nth_port(ranges, (start + step) % total));
        ports.find(is_free).ok_or_else(|| no_free_port(transport))
    }

    /// The port that a listener won, the first one of a range.
    pub(crate) fn won(&self, listener: &ListenerRef) -> Option<u16> {
        self.decided.get(listener).and_then(|outcome| outcome.as_ref().ok()).copied()
    }

    /// Why a listener lost its claim.
    pub(crate) fn lost(&self, listener: &ListenerRef) -> Option<&Lost> {
        self.decided.get(listener).and_then(|outcome| outcome.as_ref().err())
    }

    /// A listener that holds this port.
    pub(crate) fn holder(&self, port: Port) -> Option<&ListenerRef> {
        let mut holders = self.wanted.get(&port).into_iter().flatten().map(|rank| &rank.listener);
        holders.find(|listener| self.won(listener).is_some()).or_else(|| self.allocated.get(&port))
    }

    /// Whether a port of this listener of `key` is reserved, or held by a listener of another forward that does not
    /// share the port.
    pub(crate) fn conflicts_with(&self, key: &Origin, listener: &Listener) -> bool {
        listener.sockets().map(|socket| (socket.transport, socket.port)).any(|port| {
            let wanting = self.wanted.get(&port).into_iter().flatten().map(|rank| &rank.listener);
            let mut holders = wanting.filter(|holder| self.won(holder).is_some()).chain(self.allocated.get(&port));
            let shares = |holder: &ListenerRef| {
                self.candidate(holder).is_some_and(|other| {
                    let is_apart = |name: &String| !listener.hostnames.contains(name);
                    let same_header = other.header.as_ref().map(|(accept, trusted)| (*accept, trusted.as_slice()));
                    !listener.hostnames.is_empty()
                        && !other.names.is_empty()
                        && other.names.iter().all(is_apart)
                        && same_header == listener.header()
                })
            };
            let is_nested = |holder: &ListenerRef| {
                let names = self.candidate(holder).map(|other| other.names.as_slice()).unwrap_or_default();
                let own = (key.namespace.as_str(), listener.hostnames.as_slice());
                self.namespaces.clash(own, (holder.forward.namespace.as_str(), names))
            };
            let is_kept_out = |holder: &ListenerRef| holder.forward != *key && (!shares(holder) || is_nested(holder));
            self.rules.reserved.contains_key(&port) || holders.any(is_kept_out)
        })
    }
}

fn asks<'a>(listener: &'a ListenerRef, candidate: &'a Candidate) -> Asks<'a> {
    // Only in a gateway do namespaces meet whose users do not know each other.
    let names: &[String] = if candidate.terms.is_some() { &candidate.names } else { &[] };
    Asks { listener, name: &candidate.name, names }
}

/// The rank of a forward among the forwards of its namespace: that of its first listener.
fn rank_of(candidates: &BTreeMap<Origin, Vec<Candidate>>, key: &Origin) -> Option<Rank> {
    let listeners = candidates.get(key)?.iter().enumerate();
    listeners.map(|(index, candidate)| candidate.rank(ListenerRef { forward: key.clone(), index })).min()
}
