//! The claims of one group, by port.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::Transport;
use sha2::{Digest, Sha256};

use super::{
    Candidate, ListenerRef, Lost, Port, Rank, Terms, Wish, is_ephemeral, none_left, nth_port, own_port, total,
};
use crate::ObjectKey;

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
                Wish::Port(port) => {
                    let port = (candidate.transport, *port);
                    let (bucket, rank) = (self.wanted.entry(port).or_default(), candidate.rank(place));
                    bucket.insert(bucket.partition_point(|other| *other < rank), rank);
                    self.dirty.insert(port);
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
            if let Wish::Port(port) = candidate.wish {
                let port = (candidate.transport, port);
                if let Some(bucket) = self.wanted.get_mut(&port) {
                    let rank = candidate.rank(place);
                    bucket.retain(|other| *other != rank);
                    if bucket.is_empty() {
                        self.wanted.remove(&port);
                    }
                }
                self.dirty.insert(port);
            } else {
                self.fresh.remove(&candidate.rank(place));
            }
        }
        true
    }

    /// Decides what is open; gives the forwards for which anything is decided otherwise than before.
    pub(crate) fn settle(&mut self, terms: Terms) -> BTreeSet<ObjectKey> {
        let other_terms = self.terms != terms;
        self.terms = terms;
        let reserved = self.terms.reserved.keys().filter(|port| self.wanted.contains_key(&(Transport::Tcp, **port)));
        let winners = self.wanted.len() - reserved.count();
        let over = self.terms.most.is_some_and(|most| winners + self.fresh.len() > most);
        if over || self.over || other_terms {
            self.dirty.extend(self.wanted.keys().copied());
        }
        self.over = over;
        let late = if over { self.late() } else { BTreeSet::new() };
        let mut affected = BTreeSet::new();
        for port in std::mem::take(&mut self.dirty) {
            self.decide(port, late.contains(&port), &mut affected);
        }
        let room = self.terms.most.map_or(usize::MAX, |most| most.saturating_sub(winners));
        self.allocate(room, &mut affected);
        affected
    }

    /// The ports for which the Service has no room: those whose winners come last.
    fn late(&self) -> BTreeSet<Port> {
        let open = self.wanted.iter().filter(|(port, _)| self.terms.is_reserved(**port).is_none());
        let mut winners: Vec<(&Rank, Port)> =
            open.filter_map(|(port, bucket)| Some((bucket.first()?, *port))).collect();
        winners.sort_unstable();
        winners.into_iter().skip(self.terms.most.unwrap_or(usize::MAX)).map(|(_, port)| port).collect()
    }

    /// Decides one port: the first of those that want it has it.
    fn decide(&mut self, port: Port, late: bool, affected: &mut BTreeSet<ObjectKey>) {
        let Some(bucket) = self.wanted.get(&port) else { return };
        let mut holder: Option<&ListenerRef> = None;
        let mut outcomes = Vec::new();
        for rank in bucket {
            let place = &rank.4;
            let outcome = match (self.terms.is_reserved(port), late, holder) {
                (Some(what), ..) => Err(own_port(port, what)),
                (None, true, _) => Err(self.terms.too_many()),
                (None, false, Some(holder)) => {
                    Err(self.terms.held_by(port, self.name(place), &holder.0, self.name(holder)))
                }
                (None, false, None) => Ok(port.1),
            };
            holder.get_or_insert(place);
            outcomes.push((place.clone(), outcome));
        }
        for (place, outcome) in outcomes {
            self.say(place, outcome, affected);
        }
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
                && !self.terms.reserved.contains_key(port)
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

    /// The listener that has this port.
    pub(crate) fn holder(&self, port: Port) -> Option<&ListenerRef> {
        let first = self.wanted.get(&port).and_then(|bucket| bucket.first()).map(|rank| &rank.4);
        first.filter(|place| self.won(place).is_some()).or_else(|| self.allocated.get(&port))
    }
}

fn hash(name: &str) -> u64 {
    let digest = Sha256::digest(name.as_bytes());
    digest.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
