//! Candidates by the ports and server names that they want in a group.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Candidate, Header, Port, Rank};
use crate::translate::server_names::{base, reversed};

/// Candidates in rank order.
type Ranks = Vec<Arc<Rank>>;

/// Whether the gateway lists a server name for a namespace.
pub(super) type Grants<'a> = &'a dyn Fn(&str, &str) -> bool;

/// The subject of contention: a port, or one server name on a port that the candidates could all share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Port(Port),
    Name(Port, String),
}

/// The candidates of a group by the ports that they want.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// The candidates of each port. Lists, because nearly all of tens of thousands have one item.
    ports: BTreeMap<Port, Ranks>,
    /// The ports that candidates with server names want.
    named: BTreeMap<Port, Named>,
}

/// The candidates with server names of one port.
#[derive(Debug, Default)]
struct Named {
    by_name: BTreeMap<String, Ranks>,
    /// Names of a gateway, by their labels in reverse order and whether the name is a wildcard: nested names are found
    /// without a comparison with all others.
    by_labels: BTreeMap<(String, bool), String>,
    /// Number of candidates by the PROXY headers that they read before the name; almost always one entry.
    headers: Vec<(Header, usize)>,
}

impl Wanted {
    /// Number of ports that are requested.
    pub(super) fn len(&self) -> usize {
        self.ports.len()
    }

    pub(super) fn has(&self, port: Port) -> bool {
        self.ports.contains_key(&port)
    }

    /// Every port that is requested.
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

    /// All places for which a candidate of a namespace contends now.
    pub(super) fn places(&self, (namespace, candidate): (&str, &Candidate), grants: Grants<'_>) -> Vec<Place> {
        let at = |port| self.places_at(port, self.is_by_name(port), (namespace, candidate), grants);
        candidate.ports().flat_map(at).collect()
    }

    fn places_at(
        &self,
        port: Port,
        by_name: bool,
        (namespace, candidate): (&str, &Candidate),
        grants: Grants<'_>,
    ) -> Vec<Place> {
        if !by_name {
            return vec![Place::Port(port)];
        }
        let nested = candidate.names.iter().flat_map(|name| self.nested(port, (namespace, name), grants));
        let names = candidate.names.iter().map(String::as_str).chain(nested);
        names.map(|name| Place::Name(port, name.to_owned())).collect()
    }

    /// The server names on a port that lie within a name of a namespace or around it, as far as other namespaces want
    /// them and the gateway does not list the inner name.
    pub(super) fn nested(&self, port: Port, (namespace, name): (&str, &str), grants: Grants<'_>) -> Vec<&str> {
        let Some(named) = self.named.get(&port).filter(|named| !named.by_labels.is_empty()) else { return Vec::new() };
        let labels = reversed(name);
        let is_other = |rank: &Arc<Rank>| rank.listener.forward.namespace != namespace;
        let around = named
            .around(&labels)
            .filter(|outer| !grants(namespace, name) && self.of_name(port, outer).iter().any(is_other));
        let below = base(name).map(|_| named.below(&labels)).into_iter().flatten();
        let is_bare = |rank: &Arc<Rank>, inner: &str| !grants(&rank.listener.forward.namespace, inner);
        let within =
            below.filter(|inner| self.of_name(port, inner).iter().any(|rank| is_other(rank) && is_bare(rank, inner)));
        around.chain(within).map(String::as_str).collect()
    }

    /// Adds a candidate to one of its ports, and the places to decide again to `dirty`.
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
                if candidate.terms.is_some() {
                    named.by_labels.insert(labels(name), name.clone());
                }
            }
        }
        let by_name = was_by_name && self.is_by_name(port);
        dirty.extend(self.places_at(port, by_name, (rank.listener.forward.namespace.as_str(), candidate), &nothing));
    }

    /// Removes a candidate from one of its ports, and adds the places to decide again to `dirty`.
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
                if !named.by_name.contains_key(name) {
                    named.by_labels.remove(&labels(name));
                }
            }
            if named.headers.is_empty() {
                self.named.remove(&port);
            }
        }
        let by_name = was_by_name && (!self.has(port) || self.is_by_name(port));
        dirty.extend(self.places_at(port, by_name, (rank.listener.forward.namespace.as_str(), candidate), &nothing));
    }
}

impl Named {
    /// The wildcards around a name with these labels.
    fn around(&self, labels: &str) -> impl Iterator<Item = &String> {
        let bases = labels.match_indices('.').map(move |(at, _)| labels[..at].to_owned());
        bases.filter_map(move |base| self.by_labels.get(&(base, true)))
    }

    /// The names below a wildcard whose base has these labels.
    fn below(&self, labels: &str) -> impl Iterator<Item = &String> {
        let first = format!("{labels}.");
        let names = self.by_labels.range((first.clone(), false)..);
        names.take_while(move |((labels, _), _)| labels.starts_with(&first)).map(|(_, name)| name)
    }
}

fn labels(name: &str) -> (String, bool) {
    (reversed(name), base(name).is_some())
}

/// Grants no name. A change to a claim may come with a change to the gateway's list, so it affects all names around the
/// claimed name and below.
fn nothing(_namespace: &str, _name: &str) -> bool {
    false
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
