//! The claims of one group, by port.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::{Listener, Transport};

use super::{
    Candidate, ListenerRef, Lost, Port, Rank, Terms, Wish, is_ephemeral, none_left, nth_port, own_port, total,
};
use crate::{hash::hash, world::ObjectKey};

/// The claims of one group.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    terms: Terms,
    candidates: BTreeMap<ObjectKey, Vec<Candidate>>,
    /// Who wants each port, the first one first. Mostly one: a list, because there are tens of thousands.
    wanted: BTreeMap<Port, Vec<Rank>>,
    /// Who wants any port.
    fresh: BTreeSet<Rank>,
    allocated: BTreeMap<Port, ListenerRef>,
    decided: BTreeMap<ListenerRef, Result<u16, Lost>>,
    /// Ports to decide anew.
    dirty: BTreeSet<Port>,
    /// More ports are wanted than the Service takes.
    over: bool,
}

impl Ledger {
    /// Sets what the listeners of a forward want; whether that is anything else than before.
    pub(crate) fn set(&mut self, key: &ObjectKey, candidates: Vec<Candidate>) -> bool {
        if self.candidates.get(key) == Some(&candidates) {
            return false;
        }
        self.remove(key);
        for (at, candidate) in candidates.iter().enumerate() {
            let place = (key.clone(), at);
            match &candidate.wish {
                Wish::Impossible(lost) => drop(self.decided.insert(place, Err(lost.clone()))),
                Wish::Any(_) => drop(self.fresh.insert(candidate.rank(place))),
                Wish::Port(_) => {
                    let rank = candidate.rank(place);
                    for port in candidate.ports() {
                        let bucket = self.wanted.entry(port).or_default();
                        bucket.insert(bucket.partition_point(|other| *other < rank), rank.clone());
                        self.dirty.insert(port);
                    }
                }
            }
        }
        self.candidates.insert(key.clone(), candidates);
        true
    }

    /// Forgets a forward; whether it was known.
    pub(crate) fn remove(&mut self, key: &ObjectKey) -> bool {
        let Some(candidates) = self.candidates.remove(key) else { return false };
        for (at, candidate) in candidates.iter().enumerate() {
            let place = (key.clone(), at);
            self.decided.remove(&place);
            self.fresh.remove(&candidate.rank(place.clone()));
            let rank = candidate.rank(place);
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

    /// Decides what is open; gives the forwards for which anything is decided otherwise than before.
    pub(crate) fn settle(&mut self, terms: Terms) -> BTreeSet<ObjectKey> {
        let other_terms = self.terms != terms;
        self.terms = terms;
        let reserved = self.terms.reserved.keys().filter(|port| self.wanted.contains_key(port));
        let winners = self.wanted.len() - reserved.count();
        let over = self.terms.most.is_some_and(|most| winners + self.fresh.len() > most);
        if over || self.over || other_terms {
            self.dirty.extend(self.wanted.keys().copied());
        }
        self.over = over;
        let mut affected = BTreeSet::new();
        // Only where the Service is too small are its ports counted one by one; then all are decided anew.
        let room = if over { self.terms.most.unwrap_or(usize::MAX) } else { usize::MAX };
        let left = self.decide(room, &mut affected);
        let room = if over { left } else { self.terms.most.map_or(usize::MAX, |most| most.saturating_sub(winners)) };
        self.allocate(room, &mut affected);
        affected
    }

    /// Decides the ports that are open, and those that hang together with them by ranges: in the order of their ranks, whoever
    /// can have all he wants has it. Gives how many more ports there is room for.
    fn decide(&mut self, mut room: usize, affected: &mut BTreeSet<ObjectKey>) -> usize {
        let mut taken: BTreeMap<Port, Vec<ListenerRef>> = BTreeMap::new();
        for rank in self.open() {
            let place = rank.4;
            let Some(candidate) = self.candidate(&place) else { continue };
            let outcome = self.outcome(candidate, &taken, &mut room);
            if outcome.is_ok() {
                for port in candidate.ports() {
                    taken.entry(port).or_default().push(place.clone());
                }
            }
            self.say(place, outcome, affected);
        }
        room
    }

    /// Everybody who wants a port that is to be decided, in order.
    fn open(&mut self) -> BTreeSet<Rank> {
        let mut todo: Vec<Port> = std::mem::take(&mut self.dirty).into_iter().collect();
        let (mut seen, mut open) = (BTreeSet::new(), BTreeSet::new());
        while let Some(port) = todo.pop() {
            if !seen.insert(port) {
                continue;
            }
            for rank in self.wanted.get(&port).into_iter().flatten() {
                if open.contains(rank) {
                    continue;
                }
                open.insert(rank.clone());
                let further = self.candidate(&rank.4).filter(|candidate| candidate.further > 0);
                todo.extend(further.into_iter().flat_map(Candidate::ports));
            }
        }
        open
    }

    fn outcome(
        &self,
        candidate: &Candidate,
        taken: &BTreeMap<Port, Vec<ListenerRef>>,
        room: &mut usize,
    ) -> Result<u16, Lost> {
        let mut first = None;
        let mut fresh = 0;
        for port in candidate.ports() {
            first.get_or_insert(port.1);
            if let Some(whose) = self.terms.reserved.get(&port) {
                return Err(own_port(port, whose));
            }
            let holders = taken.get(&port);
            fresh += usize::from(holders.is_none());
            for holder in holders.into_iter().flatten() {
                if let Some(winner) = self.candidate(holder).filter(|winner| !winner.shares_with(candidate)) {
                    return Err(self.terms.held_by(port, candidate, &holder.0, winner));
                }
            }
        }
        *room = room.checked_sub(fresh).ok_or_else(|| self.terms.too_many())?;
        Ok(first.unwrap_or(0))
    }

    fn candidate(&self, place: &ListenerRef) -> Option<&Candidate> {
        self.candidates.get(&place.0).and_then(|all| all.get(place.1))
    }

    fn say(&mut self, place: ListenerRef, outcome: Result<u16, Lost>, affected: &mut BTreeSet<ObjectKey>) {
        if self.decided.get(&place) != Some(&outcome) {
            affected.insert(place.0.clone());
            self.decided.insert(place, outcome);
        }
    }

    fn name(&self, place: &ListenerRef) -> &str {
        self.candidates.get(&place.0).and_then(|all| all.get(place.1)).map_or("", |candidate| candidate.name.as_str())
    }

    /// Gives ports to those that want any, from a place that only their name decides.
    fn allocate(&mut self, mut room: usize, affected: &mut BTreeSet<ObjectKey>) {
        self.allocated.clear();
        for rank in std::mem::take(&mut self.fresh) {
            let place = rank.4.clone();
            let candidate = self.candidates.get(&place.0).and_then(|all| all.get(place.1));
            let transport = candidate.map_or(Transport::Tcp, |candidate| candidate.transport);
            let outcome = match room {
                0 => Err(self.terms.too_many()),
                _ => self.free_port(&place),
            };
            if let Ok(port) = &outcome {
                room -= 1;
                self.allocated.insert((transport, *port), place.clone());
            }
            self.say(place, outcome, affected);
            self.fresh.insert(rank);
        }
    }

    fn free_port(&self, place: &ListenerRef) -> Result<u16, Lost> {
        let candidate = self.candidates.get(&place.0).and_then(|all| all.get(place.1));
        let Some((transport, Wish::Any(ranges))) = candidate.map(|candidate| (candidate.transport, &candidate.wish))
        else {
            return Err(none_left(Transport::Tcp));
        };
        let total = total(ranges);
        let start = hash(&format!("{}/{}", place.0, self.name(place))) % total.max(1);
        let free = |port: &u16| {
            !is_ephemeral(*port)
                && !self.terms.reserved.contains_key(&(transport, *port))
                && !self.wanted.contains_key(&(transport, *port))
                && !self.allocated.contains_key(&(transport, *port))
        };
        let mut ports = (0..total).map(|step| nth_port(ranges, (start + step) % total));
        ports.find(free).ok_or_else(|| none_left(transport))
    }

    /// The port that a listener has.
    pub(crate) fn won(&self, place: &ListenerRef) -> Option<u16> {
        self.decided.get(place).and_then(|outcome| outcome.as_ref().ok()).copied()
    }

    /// Why a listener has none.
    pub(crate) fn lost(&self, place: &ListenerRef) -> Option<&Lost> {
        self.decided.get(place).and_then(|outcome| outcome.as_ref().err())
    }

    /// A listener that has this port.
    pub(crate) fn holder(&self, port: Port) -> Option<&ListenerRef> {
        let mut holders = self.wanted.get(&port).into_iter().flatten().map(|rank| &rank.4);
        holders.find(|place| self.won(place).is_some()).or_else(|| self.allocated.get(&port))
    }

    /// Whether a port of this one is nobody's to have, or a listener of another forward has it and does not share it.
    pub(crate) fn is_in_the_way(&self, key: &ObjectKey, listener: &Listener) -> bool {
        listener.sockets().map(|socket| (socket.transport, socket.port)).any(|port| {
            let others = self.wanted.get(&port).into_iter().flatten().map(|rank| &rank.4);
            let mut others = others.filter(|place| self.won(place).is_some()).chain(self.allocated.get(&port));
            let shares = |place: &ListenerRef| {
                self.candidate(place).is_some_and(|other| {
                    let is_apart = |name: &String| !listener.hostnames.contains(name);
                    let same_header = other.header.as_ref().map(|(accept, trusted)| (*accept, trusted.as_slice()));
                    !listener.hostnames.is_empty()
                        && !other.names.is_empty()
                        && other.names.iter().all(is_apart)
                        && same_header == listener.header()
                })
            };
            self.terms.reserved.contains_key(&port) || others.any(|place| place.0 != *key && !shares(place))
        })
    }
}
