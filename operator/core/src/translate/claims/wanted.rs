//! Who wants which port of a group, and which server name there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Candidate, Header, Port, Rank};

/// Candidates in rank order.
type Ranks = Vec<Arc<Rank>>;

/// What candidates contend for: a port, or one server name on a port that they could all share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Port(Port),
    Name(Port, String),
}

/// The candidates of a group by what they want.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// By port. Lists, because nearly all of tens of thousands have one item.
    ports: BTreeMap<Port, Ranks>,
    /// The ports that candidates with server names want.
    named: BTreeMap<Port, Named>,
}

/// The candidates with server names of one port.
#[derive(Debug, Default)]
struct Named {
    by_name: BTreeMap<String, Ranks>,
    /// Number of candidates by the PROXY headers that they read before the name; almost always one entry.
    headers: Vec<(Header, usize)>,
}

impl Wanted {
    /// Number of ports that anybody wants.
    pub(super) fn len(&self) -> usize {
        self.ports.len()
    }

    pub(super) fn has(&self, port: Port) -> bool {
        self.ports.contains_key(&port)
    }

    /// Every port that anybody wants.
    pub(super) fn ports(&self) -> impl Iterator<Item = Port> + '_ {
        self.ports.keys().copied()
    }

    /// The candidates for a port, in rank order.
    pub(super) fn of_port(&self, port: Port) -> &[Arc<Rank>] {
        self.ports.get(&port).map(Vec::as_slice).unwrap_or_default()
    }

    /// The candidates for a server name on a port, in rank order.
    pub(super) fn of_name(&self, port: Port, name: &str) -> &[Arc<Rank>] {
        let names = self.named.get(&port).map(|named| &named.by_name);
        names.and_then(|names| names.get(name)).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn at(&self, place: &Place) -> &[Arc<Rank>] {
        match place {
            Place::Port(port) => self.of_port(*port),
            Place::Name(port, name) => self.of_name(*port, name),
        }
    }

    /// Whether the candidates for a port contend by server name only: all of them have names, and all of them read the
    /// same PROXY headers before the name.
    pub(super) fn is_by_name(&self, port: Port) -> bool {
        let Some(named) = self.named.get(&port) else { return false };
        matches!(named.headers.as_slice(), [(_, count)] if *count == self.of_port(port).len())
    }

    /// Everything that a candidate contends for now.
    pub(super) fn places(&self, candidate: &Candidate) -> Vec<Place> {
        candidate.ports().flat_map(|port| places_at(port, self.is_by_name(port), candidate)).collect()
    }

    /// Adds a candidate to a port of it, and to `dirty` what has to be decided again.
    pub(super) fn insert(&mut self, port: Port, rank: &Arc<Rank>, candidate: &Candidate, dirty: &mut BTreeSet<Place>) {
        let was_by_name = !self.has(port) || self.is_by_name(port);
        insert(self.ports.entry(port).or_default(), rank);
        if !candidate.names.is_empty() {
            let named = self.named.entry(port).or_default();
            match named.headers.iter_mut().find(|(header, _)| *header == candidate.header) {
                Some((_, count)) => *count += 1,
                None => named.headers.push((candidate.header.clone(), 1)),
            }
            for name in &candidate.names {
                insert(named.by_name.entry(name.clone()).or_default(), rank);
            }
        }
        dirty.extend(places_at(port, was_by_name && self.is_by_name(port), candidate));
    }

    /// Removes a candidate from a port of it, and adds to `dirty` what has to be decided again.
    pub(super) fn remove(&mut self, port: Port, rank: &Rank, candidate: &Candidate, dirty: &mut BTreeSet<Place>) {
        let was_by_name = self.is_by_name(port);
        remove(&mut self.ports, &port, rank);
        if let Some(named) = self.named.get_mut(&port).filter(|_| !candidate.names.is_empty()) {
            for (_, count) in named.headers.iter_mut().filter(|(header, _)| *header == candidate.header) {
                *count -= 1;
            }
            named.headers.retain(|(_, count)| *count > 0);
            for name in &candidate.names {
                remove(&mut named.by_name, name, rank);
            }
            if named.headers.is_empty() {
                self.named.remove(&port);
            }
        }
        let is_by_name = !self.has(port) || self.is_by_name(port);
        dirty.extend(places_at(port, was_by_name && is_by_name, candidate));
    }
}

fn places_at(port: Port, by_name: bool, candidate: &Candidate) -> Vec<Place> {
    if by_name {
        candidate.names.iter().map(|name| Place::Name(port, name.clone())).collect()
    } else {
        vec![Place::Port(port)]
    }
}

fn insert(ranks: &mut Ranks, rank: &Arc<Rank>) {
    let at = ranks.partition_point(|other| other < rank);
    if ranks.get(at) != Some(rank) {
        ranks.insert(at, rank.clone());
    }
}

fn remove<K: Ord>(all: &mut BTreeMap<K, Ranks>, key: &K, rank: &Rank) {
    let Some(ranks) = all.get_mut(key) else { return };
    let at = ranks.partition_point(|other| **other < *rank);
    if ranks.get(at).is_some_and(|other| **other == *rank) {
        ranks.remove(at);
    }
    if ranks.is_empty() {
        all.remove(key);
    }
}
