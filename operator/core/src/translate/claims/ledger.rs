//! The claims of one group, indexed by port.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proxy_api::{Listener, Origin, Transport};

use super::{
    Candidate, ListenerRef, Lost, Port, Rank, Request, Rules,
    allocation::{Allocation, Given, Wish},
    is_ephemeral, no_free_port, reserved_port,
    taken::Taken,
    wanted::{Place, Wanted},
};
use crate::hash::hash;

type Candidates = BTreeMap<Origin, Vec<Candidate>>;
type Decided = BTreeMap<ListenerRef, Result<u16, Lost>>;

/// The claims of one group.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    rules: Rules,
    candidates: Candidates,
    /// The listeners that want ports by number.
    wanted: Wanted,
    /// The listeners that accept any port.
    allocation: Allocation,
    decided: Decided,
    /// What to decide again.
    dirty: BTreeSet<Place>,
    /// The group wants more ports than its Service may have.
    over: bool,
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
                Request::Any(_) => self.allocation.insert(candidate.rank(listener)),
                Request::Port(_) => {
                    let rank = Arc::new(candidate.rank(listener));
                    for port in candidate.ports() {
                        if !self.wanted.has(port) {
                            self.allocation.close(port);
                        }
                        self.wanted.insert(port, &rank, candidate, &mut self.dirty);
                    }
                }
            }
        }
        self.candidates.insert(key.clone(), candidates);
        true
    }

    /// Removes the claims of a forward; returns whether it had any.
    pub(crate) fn remove(&mut self, key: &Origin) -> bool {
        let Some(candidates) = self.candidates.remove(key) else { return false };
        for (index, candidate) in candidates.iter().enumerate() {
            let listener = ListenerRef { forward: key.clone(), index };
            let won = self.decided.remove(&listener).and_then(Result::ok);
            let rank = candidate.rank(listener);
            self.allocation.remove(&rank, won.map(|port| (candidate.transport, port)));
            for port in candidate.ports() {
                self.wanted.remove(port, &rank, candidate, &mut self.dirty);
                if !self.wanted.has(port) {
                    self.allocation.open(port);
                }
            }
        }
        true
    }

    /// Decides the claims that changed; returns the forwards with a different outcome. Adds the number of claims that
    /// were decided to `work`.
    pub(crate) fn settle(&mut self, rules: Rules, work: &mut u64) -> BTreeSet<Origin> {
        let has_other_rules = self.rules != rules;
        self.rules = rules;
        let reserved = self.rules.reserved.keys().filter(|port| self.wanted.has(**port));
        let winners = self.wanted.len() - reserved.count();
        let max_ports = self.rules.max_ports;
        let over = max_ports.is_some_and(|max| winners + self.allocation.len() > max);
        let anew = over || self.over || has_other_rules;
        if anew {
            self.dirty.extend(self.wanted.ports().map(Place::Port));
        }
        self.over = over;
        let mut affected = BTreeSet::new();
        // Ports are counted one by one, and all of them decided again, only if the Service is too small.
        let room = if over { max_ports.unwrap_or(usize::MAX) } else { usize::MAX };
        let left = self.decide(room, &mut affected, work);
        let room = if over { left } else { max_ports.map_or(usize::MAX, |max| max.saturating_sub(winners)) };
        *work += self.allocate(room, anew, &mut affected);
        affected
    }

    /// Decides the dirty places and all that candidates link to them: in rank order, a candidate gets its ports if all
    /// of them are available. Returns the room that is left, in ports.
    fn decide(&mut self, mut room: usize, affected: &mut BTreeSet<Origin>, work: &mut u64) -> usize {
        let contenders = self.contenders();
        *work += contenders.len() as u64;
        let Self { candidates, decided, rules, .. } = self;
        let mut taken = Taken::default();
        for rank in &contenders {
            let listener = &rank.listener;
            let Some(candidate) = candidate(candidates, listener) else { continue };
            let outcome = outcome(rules, candidate, &taken, &mut room);
            if outcome.is_ok() {
                taken.take((listener, candidate));
            }
            record(decided, listener, outcome, affected);
        }
        room
    }

    /// The candidates to decide again, in rank order: those that contend for a dirty place, directly or through others.
    fn contenders(&mut self) -> BTreeSet<Arc<Rank>> {
        let mut todo: Vec<Place> = std::mem::take(&mut self.dirty).into_iter().collect();
        let (mut seen, mut contenders) = (BTreeSet::new(), BTreeSet::new());
        while let Some(place) = todo.pop() {
            if seen.contains(&place) {
                continue;
            }
            for rank in self.wanted.at(&place) {
                if !contenders.insert(rank.clone()) {
                    continue;
                }
                let linked = self.candidate(&rank.listener).map(|candidate| self.wanted.places(candidate));
                todo.extend(linked.into_iter().flatten().filter(|other| *other != place && !seen.contains(other)));
            }
            seen.insert(place);
        }
        contenders
    }

    /// Gives ports to the listeners that accept any port; returns the number of ports that were tried.
    fn allocate(&mut self, room: usize, anew: bool, affected: &mut BTreeSet<Origin>) -> u64 {
        let Self { allocation, candidates, decided, rules, wanted, .. } = self;
        let wish = |listener: &ListenerRef| {
            let candidate = candidate(candidates, listener)?;
            let Request::Any(ranges) = &candidate.request else { return None };
            let start = hash(&format!("{}/{}", listener.forward, candidate.name));
            Some(Wish { transport: candidate.transport, ranges, start })
        };
        let is_open = |port: Port| !is_ephemeral(port.1) && !rules.reserved.contains_key(&port) && !wanted.has(port);
        let tell = |listener: &ListenerRef, given: Given| {
            let transport = candidate(candidates, listener).map_or(Transport::Tcp, |candidate| candidate.transport);
            let outcome = match given {
                Given::Port(port) => Ok(port),
                Given::None => Err(no_free_port(transport)),
                Given::NoRoom => Err(rules.too_many()),
            };
            record(decided, listener, outcome, affected);
        };
        allocation.settle(room, anew, wish, is_open, tell)
    }

    fn candidate(&self, listener: &ListenerRef) -> Option<&Candidate> {
        candidate(&self.candidates, listener)
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
        let mut holders = self.wanted.of_port(port).iter().map(|rank| &rank.listener);
        holders.find(|listener| self.won(listener).is_some()).or_else(|| self.allocation.holder(port))
    }

    /// Whether a port of this listener of `key` is reserved, or held by a listener of another forward that does not
    /// share the port.
    pub(crate) fn conflicts_with(&self, key: &Origin, listener: &Listener) -> bool {
        listener.sockets().map(|socket| (socket.transport, socket.port)).any(|port| {
            let is_reserved = self.rules.reserved.contains_key(&port);
            is_reserved || self.rivals(key, port, listener).iter().any(|holder| !self.shares(holder, listener))
        })
    }

    /// The holders of a port that may be in the way of a listener of `key`. Where all candidates contend by server name,
    /// these are the holders of its names, and one more that tells which PROXY headers all of them read.
    fn rivals(&self, key: &Origin, port: Port, listener: &Listener) -> Vec<&ListenerRef> {
        let wins = |rank: &&Arc<Rank>| rank.listener.forward != *key && self.won(&rank.listener).is_some();
        let all = self.wanted.of_port(port);
        let rivals: Vec<&Arc<Rank>> = if !listener.hostnames.is_empty() && self.wanted.is_by_name(port) {
            let of_names = listener.hostnames.iter().flat_map(|name| self.wanted.of_name(port, name));
            of_names.filter(wins).chain(all.iter().find(wins)).collect()
        } else {
            all.iter().filter(wins).collect()
        };
        let given = self.allocation.holder(port).filter(|holder| holder.forward != *key);
        rivals.into_iter().map(|rank| &rank.listener).chain(given).collect()
    }

    /// Whether a holder shares its port with a listener.
    fn shares(&self, holder: &ListenerRef, listener: &Listener) -> bool {
        self.candidate(holder).is_some_and(|other| {
            let is_apart = |name: &String| !listener.hostnames.contains(name);
            let same_header = other.header.as_ref().map(|(accept, trusted)| (*accept, trusted.as_slice()));
            !listener.hostnames.is_empty()
                && !other.names.is_empty()
                && other.names.iter().all(is_apart)
                && same_header == listener.header()
        })
    }
}

fn candidate<'a>(candidates: &'a Candidates, listener: &ListenerRef) -> Option<&'a Candidate> {
    candidates.get(&listener.forward).and_then(|all| all.get(listener.index))
}

/// The first port of a candidate, or why it loses. Takes the ports that nobody else holds out of `room`.
fn outcome(rules: &Rules, candidate: &Candidate, taken: &Taken<'_>, room: &mut usize) -> Result<u16, Lost> {
    let mut first = None;
    let mut fresh = 0;
    for port in candidate.ports() {
        first.get_or_insert(port.1);
        if let Some(owner) = rules.reserved.get(&port) {
            return Err(reserved_port(port, owner));
        }
        fresh += usize::from(!taken.has(port));
        if let Some((holder, winner)) = taken.conflict(port, candidate) {
            return Err(rules.held_by(port, candidate, &holder.forward, winner));
        }
    }
    *room = room.checked_sub(fresh).ok_or_else(|| rules.too_many())?;
    Ok(first.unwrap_or(0))
}

fn record(decided: &mut Decided, listener: &ListenerRef, outcome: Result<u16, Lost>, affected: &mut BTreeSet<Origin>) {
    if decided.get(listener) != Some(&outcome) {
        affected.insert(listener.forward.clone());
        decided.insert(listener.clone(), outcome);
    }
}
