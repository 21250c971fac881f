//! The claims of one group, indexed by port.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proxy_api::{Bind, Listener, Origin, Transport};

use super::{
    Candidate, ListenerRef, Lost, Port, Rank, Request, Rules,
    allocation::{Allocation, AnyPort, Given, Requesters},
    decision::Decision,
    filled::Filled,
    is_ephemeral,
    namespaces::Namespaces,
    no_free_port,
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
    /// The places to decide again.
    dirty: BTreeSet<Place>,
    /// The use of the ports, if the group requests more of them than its Service may have.
    filled: Option<Filled>,
    /// Candidates for ports by number that were added since the last decision.
    newcomers: Vec<Arc<Rank>>,
    /// Whether a candidate that had ports by number was removed since the last decision.
    has_freed: bool,
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
                Request::Any(_) => self.allocation.insert(candidate.rank(listener)),
                Request::Port(_) => {
                    let rank = Arc::new(candidate.rank(listener));
                    self.newcomers.push(rank.clone());
                    for port in candidate.ports() {
                        if !self.wanted.has(port) {
                            self.allocation.close(port);
                        }
                        self.wanted.insert(port, &rank, candidate, &mut self.dirty);
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
            let won = self.decided.remove(&listener).and_then(Result::ok);
            self.has_freed |= won.is_some() && matches!(candidate.request, Request::Port(_));
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
        let most = self.namespaces.most_ports().min(winners + self.allocation.len());
        let over = max_ports.is_some_and(|max| most > max);
        let is_counted = self.review();
        let newcomers = std::mem::take(&mut self.newcomers);
        let is_open = std::mem::take(&mut self.has_freed) || has_other_rules || is_counted || !over;
        let mut affected = BTreeSet::new();
        let refused = if is_open { None } else { self.refused(&newcomers) };
        let (left, redecide) = if let Some((refused, left)) = refused {
            *work += refused.len() as u64;
            self.dirty.clear();
            for (listener, lost) in refused {
                record(&mut self.decided, &listener, Err(lost), &mut affected);
            }
            (left, false)
        } else {
            let redecide = over || self.filled.is_some() || has_other_rules;
            if redecide {
                self.dirty.extend(self.wanted.ports().map(Place::Port));
            }
            // Ports are counted one by one only if the Service is too small.
            (self.decide(max_ports.filter(|_| over), &mut affected, work), redecide)
        };
        let recount = self.namespaces.take_recount(self.allocation.is_due());
        *work += self.allocate(left, redecide || recount, &mut affected);
        affected
    }

    /// Why these candidates get no port of a Service that is too small, and the room that is left; `None` if one of
    /// them might get some.
    fn refused(&self, newcomers: &[Arc<Rank>]) -> Option<(Vec<(ListenerRef, Lost)>, usize)> {
        let filled = self.filled.as_ref()?;
        let mut refused = Vec::new();
        for rank in newcomers {
            // A candidate may have been replaced since.
            let candidate = self.candidate(&rank.listener).filter(|it| it.rank(rank.listener.clone()) == **rank);
            let Some(candidate) = candidate else { continue };
            let winner = |rank: &Rank| self.candidate(&rank.listener);
            refused.push((rank.listener.clone(), filled.refuses(&self.rules, (rank, candidate), winner)?));
        }
        Some((refused, filled.left()))
    }

    /// Schedules a new decision on the claims of namespaces that want more than their share, or no longer do; returns
    /// whether there are any.
    fn review(&mut self) -> bool {
        let candidates = &self.candidates;
        let again = self.namespaces.review(|key| rank_of(candidates, key));
        let places: Vec<Place> = again.iter().flat_map(|key| self.places_of(key)).collect();
        self.dirty.extend(places);
        !again.is_empty()
    }

    /// Decides the dirty places and all places that candidates link to them: in rank order, a candidate gets its ports
    /// if all of them are available. `room` is that of the Service in ports, if the Service is too small. Returns the
    /// room that is left.
    fn decide(&mut self, room: Option<usize>, affected: &mut BTreeSet<Origin>, work: &mut u64) -> usize {
        let contenders = self.contenders();
        *work += contenders.len() as u64;
        let Self { candidates, decided, rules, namespaces, filled, .. } = self;
        let candidates = &*candidates;
        let mut decision = Decision::new(room.unwrap_or(usize::MAX));
        *filled = room.map(Filled::new);
        for rank in &contenders {
            let listener = &rank.listener;
            let Some(candidate) = candidate(candidates, listener) else { continue };
            let outcome = decision.decide(rules, namespaces, (listener, candidate));
            if let Some(filled) = filled.as_mut().filter(|_| outcome.is_ok()) {
                filled.take(rank, candidate, decision.room());
            }
            record(decided, listener, outcome, affected);
        }
        decision.room()
    }

    /// The candidates to decide again, in rank order: those that contend for a dirty place, directly or through others,
    /// or because their namespace is counted.
    fn contenders(&mut self) -> BTreeSet<Arc<Rank>> {
        let mut todo: Vec<Place> = std::mem::take(&mut self.dirty).into_iter().collect();
        let (mut seen, mut contenders) = (BTreeSet::new(), BTreeSet::new());
        let mut counted: BTreeSet<String> = BTreeSet::new();
        while let Some(place) = todo.pop() {
            if seen.contains(&place) {
                continue;
            }
            for rank in self.wanted.at(&place) {
                if !contenders.insert(rank.clone()) {
                    continue;
                }
                let namespace = &rank.listener.forward.namespace;
                let linked = self.candidate(&rank.listener).map(|candidate| self.places(namespace, candidate));
                todo.extend(linked.into_iter().flatten().filter(|other| *other != place && !seen.contains(other)));
                if !counted.contains(namespace)
                    && let Some(crowd) = self.namespaces.crowd_of(namespace)
                {
                    counted.insert(namespace.clone());
                    todo.extend(crowd.iter().flat_map(|key| self.places_of(key)));
                }
            }
            seen.insert(place);
        }
        for namespace in &counted {
            self.namespaces.restart(namespace);
        }
        contenders
    }

    /// The places for which a listener of a namespace contends now.
    fn places(&self, namespace: &str, candidate: &Candidate) -> Vec<Place> {
        let grants = |namespace: &str, name: &str| self.namespaces.grants(namespace, name);
        self.wanted.places((namespace, candidate), &grants)
    }

    /// The places for which the listeners of a forward contend now.
    fn places_of(&self, key: &Origin) -> Vec<Place> {
        let listeners = self.candidates.get(key).into_iter().flatten();
        listeners.flat_map(|candidate| self.places(&key.namespace, candidate)).collect()
    }

    /// Gives ports to the listeners that accept any port; returns the number of ports that were tried.
    fn allocate(&mut self, room: usize, redecide: bool, affected: &mut BTreeSet<Origin>) -> u64 {
        let Self { allocation, candidates, decided, rules, wanted, namespaces, .. } = self;
        let mut unnumbered = Unnumbered { candidates, rules, wanted, namespaces, decided, affected };
        allocation.settle(room, redecide, &mut unnumbered)
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

    /// A listener that holds this port, with such a bind.
    pub(crate) fn listener_at(&self, port: Port, is_bound: &dyn Fn(Bind) -> bool) -> Option<&ListenerRef> {
        let wanted = self.wanted.of_port(port).iter().map(|rank| &rank.listener);
        let mut holders = wanted.filter(|listener| self.won(listener).is_some()).chain(self.allocation.holder(port));
        let is_at = |listener: &&ListenerRef| self.candidate(listener).is_some_and(|it| is_bound(it.bind));
        holders.find(is_at)
    }

    /// Whether a port of this listener of `key` is reserved, or held by a listener of another forward that does not
    /// share the port.
    pub(crate) fn conflicts_with(&self, key: &Origin, listener: &Listener) -> bool {
        listener.sockets().map(|socket| (socket.transport, socket.port)).any(|port| {
            let is_reserved = self.rules.reserved.contains_key(&port);
            let is_in_the_way =
                |holder: &ListenerRef| !self.shares(holder, listener) || self.is_nested(key, listener, holder);
            is_reserved || self.rivals(key, port, listener).into_iter().any(is_in_the_way)
        })
    }

    /// The holders of a port that may conflict with a listener of `key`. Where all candidates contend by server name,
    /// these are the holders of its names and of names around or below, and one more that tells which PROXY headers all
    /// of them read.
    fn rivals(&self, key: &Origin, port: Port, listener: &Listener) -> Vec<&ListenerRef> {
        let wins = |rank: &&Arc<Rank>| rank.listener.forward != *key && self.won(&rank.listener).is_some();
        let all = self.wanted.of_port(port);
        let rivals: Vec<&Arc<Rank>> = if !listener.hostnames.is_empty() && self.wanted.is_by_name(port) {
            let grants = |namespace: &str, name: &str| self.namespaces.grants(namespace, name);
            let names = listener.hostnames.iter().map(String::as_str);
            let nested =
                names.clone().flat_map(|name| self.wanted.nested(port, (key.namespace.as_str(), name), &grants));
            let of_names = names.chain(nested).flat_map(|name| self.wanted.of_name(port, name));
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

    /// Whether a name of a listener of `key` and a name of a holder in another namespace are nested without permission.
    fn is_nested(&self, key: &Origin, listener: &Listener, holder: &ListenerRef) -> bool {
        let names = self.candidate(holder).map(|other| other.names.as_slice()).unwrap_or_default();
        let own = (key.namespace.as_str(), listener.hostnames.as_slice());
        self.namespaces.clash(own, (holder.forward.namespace.as_str(), names))
    }
}

/// The listeners that accept any port, as the `Requesters` of their allocation.
struct Unnumbered<'a> {
    candidates: &'a Candidates,
    rules: &'a Rules,
    wanted: &'a Wanted,
    namespaces: &'a mut Namespaces,
    decided: &'a mut Decided,
    /// Forwards with another outcome.
    affected: &'a mut BTreeSet<Origin>,
}

impl Requesters for Unnumbered<'_> {
    fn request(&self, listener: &ListenerRef) -> Option<AnyPort<'_>> {
        let candidate = candidate(self.candidates, listener)?;
        let Request::Any(ranges) = &candidate.request else { return None };
        let start = hash(&format!("{}/{}", listener.forward, candidate.name));
        Some(AnyPort { transport: candidate.transport, ranges, start })
    }

    fn is_open(&self, port: Port) -> bool {
        !is_ephemeral(port.1) && !self.rules.reserved.contains_key(&port) && !self.wanted.has(port)
    }

    fn refused(&self, listener: &ListenerRef) -> Option<Lost> {
        self.namespaces.refuses(self.rules, listener, std::iter::empty(), 1)
    }

    fn restart(&mut self) {
        self.namespaces.restart_allocation();
    }

    fn assign(&mut self, listener: &ListenerRef, given: Given) {
        let transport = candidate(self.candidates, listener).map_or(Transport::Tcp, |candidate| candidate.transport);
        let outcome = match given {
            Given::Port(port) => {
                self.namespaces.take_allocated(&listener.forward.namespace);
                Ok(port)
            }
            Given::Refused(lost) => Err(lost),
            Given::None => Err(no_free_port(transport)),
            Given::NoRoom => Err(self.rules.too_many()),
        };
        record(self.decided, listener, outcome, self.affected);
    }
}

fn candidate<'a>(candidates: &'a Candidates, listener: &ListenerRef) -> Option<&'a Candidate> {
    candidates.get(&listener.forward).and_then(|all| all.get(listener.index))
}

fn record(decided: &mut Decided, listener: &ListenerRef, outcome: Result<u16, Lost>, affected: &mut BTreeSet<Origin>) {
    if decided.get(listener) != Some(&outcome) {
        affected.insert(listener.forward.clone());
        decided.insert(listener.clone(), outcome);
    }
}

/// The rank of a forward among the forwards of its namespace: that of its first listener.
fn rank_of(candidates: &Candidates, key: &Origin) -> Option<Rank> {
    let listeners = candidates.get(key)?.iter().enumerate();
    listeners.map(|(index, candidate)| candidate.rank(ListenerRef { forward: key.clone(), index })).min()
}
