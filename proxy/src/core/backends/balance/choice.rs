//! The policies: each chooses one endpoint of a level.

use std::{
    cmp::Ordering,
    ops::Range,
    sync::{Arc, OnceLock, atomic::Ordering::Relaxed},
};

use proxy_api::Policy;

use super::{
    COMPARED_MOST, Draw, Entry,
    plan::{Group, Level},
    scatter::{scattered, step_of},
    source_hash::{Ring, mixed, rendezvous, source_hash},
};
use crate::core::backends::{address::Address, endpoint::Endpoint};

/// The choice of an endpoint for one session.
pub(super) struct Choice<'a> {
    pub(super) entries: &'a [Entry],
    /// The ring of each entry.
    pub(super) rings: &'a [OnceLock<Ring>],
    /// The endpoints to choose from.
    pub(super) level: &'a Level,
    pub(super) draw: Draw,
    /// Endpoints that must not be chosen.
    pub(super) tried: &'a [Address],
}

/// Positions of an entry, and of an endpoint in it.
type Position = (usize, usize);

/// Live sessions relative to weight, as a fraction: a weight is divided equally among the endpoints of its entry.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// Sessions of the endpoint times the number of endpoints of its entry.
    sessions: u128,
    weight: u32,
}

impl Load {
    fn compare(&self, other: &Self) -> Ordering {
        let (one, two) = (self.sessions * u128::from(other.weight), other.sessions * u128::from(self.weight));
        one.cmp(&two)
    }
}

impl<'a> Choice<'a> {
    /// Chooses by a policy; `None` if every endpoint of the level was tried.
    pub(super) fn by(&self, policy: Policy) -> Option<Position> {
        let chance = self.draw.chance;
        match policy {
            Policy::RoundRobin => {
                let group = self.in_turn(self.open())?;
                Some((group.entry, self.nth(group, self.turn(group)?)?))
            }
            Policy::Random => self.at_random(chance),
            Policy::LeastConnections if self.level.members > COMPARED_MOST => self.better_of_two(),
            Policy::LeastConnections => self.least(),
            Policy::SourceHash => self.by_source(),
        }
    }

    /// The groups with an endpoint that was not tried.
    fn open(&self) -> impl Iterator<Item = &'a Group> + Clone {
        self.level.groups.iter().filter(move |group| self.skipped(group).len() < group.members.len())
    }

    /// The positions in `group.members` that were tried, ascending.
    pub(super) fn skipped(&self, group: &Group) -> Vec<usize> {
        let find = |tried: &'a Address| {
            group.members.binary_search_by_key(&Some(tried), |at| Some(&self.endpoint(group, *at)?.address)).ok()
        };
        let mut found: Vec<usize> = self.tried.iter().filter_map(find).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// An endpoint, by its position in the entry. Every access to an endpoint goes through here.
    pub(super) fn endpoint(&self, group: &Group, at: usize) -> Option<&'a Arc<Endpoint>> {
        #[cfg(test)]
        super::tests::LOOKS.with(|looks| looks.set(looks.get() + 1));
        self.entries.get(group.entry)?.endpoints.get(at)
    }

    /// One of the endpoints that were not tried: `number` modulo their count.
    fn nth(&self, group: &Group, number: u64) -> Option<usize> {
        self.nth_of(group, 0..group.members.len(), number)
    }

    /// Like [`Choice::nth`], of the endpoints in these places of `group.members`.
    pub(super) fn nth_of(&self, group: &Group, places: Range<usize>, number: u64) -> Option<usize> {
        let mut skipped = self.skipped(group);
        skipped.retain(|position| places.contains(position));
        let mut at = places.start + remainder(number, places.len().saturating_sub(skipped.len()))?;
        for position in skipped {
            at += usize::from(position <= at);
        }
        group.members.get(at).copied()
    }

    /// The next turn of an entry.
    fn turn(&self, group: &Group) -> Option<u64> {
        Some(self.entries.get(group.entry)?.stats.turns.fetch_add(1, Relaxed))
    }

    /// The group to which a ticket belongs, by weight.
    fn in_turn(&self, groups: impl Iterator<Item = &'a Group> + Clone) -> Option<&'a Group> {
        let total = sum(groups.clone());
        let step = if total == self.level.total { self.level.step } else { step_of(total) };
        at_weight(groups, scattered(self.draw.ticket.checked_rem(total)?, total, step))
    }

    /// An entry at random by weight, and any of its endpoints: each with its share of the entry's weight.
    fn at_random(&self, chance: u64) -> Option<Position> {
        let group = at_weight(self.open(), chance.checked_rem(sum(self.open()))?)?;
        Some((group.entry, self.nth(group, chance >> 32)?))
    }

    fn load(&self, group: &Group, at: usize) -> Option<Load> {
        let sessions = u128::from(self.endpoint(group, at)?.active.load(Relaxed));
        Some(Load { sessions: sessions * group.members.len() as u128, weight: group.weight })
    }

    /// The endpoint with the fewest sessions relative to its weight. Among equals, entries take turns by weight, and
    /// the endpoints of an entry in order.
    fn least(&self) -> Option<Position> {
        let mut seen: Vec<(&Group, usize, Load)> = Vec::with_capacity(self.level.members);
        for group in &self.level.groups {
            let skipped = self.skipped(group);
            let fresh = group.members.iter().enumerate().filter(|(position, _)| !skipped.contains(position));
            seen.extend(fresh.filter_map(|(_, at)| Some((group, *at, self.load(group, *at)?))));
        }
        let least = seen.iter().map(|(_, _, load)| *load).min_by(Load::compare)?;
        seen.retain(|(_, _, load)| load.compare(&least) == Ordering::Equal);
        let mut groups: Vec<&Group> = seen.iter().map(|(group, ..)| *group).collect();
        groups.dedup_by_key(|group| group.entry);
        let group = self.in_turn(groups.iter().copied())?;
        seen.retain(|(other, ..)| other.entry == group.entry);
        let (_, at, _) = seen.get(remainder(self.turn(group)?, seen.len())?)?;
        Some((group.entry, *at))
    }

    /// Of two endpoints at random, the one with fewer sessions relative to its weight.
    fn better_of_two(&self) -> Option<Position> {
        let (one, other) = (self.at_random(self.draw.chance)?, self.at_random(mixed(self.draw.chance))?);
        let load = |(entry, at): Position| {
            let group = self.level.groups.iter().find(|group| group.entry == entry)?;
            self.load(group, at)
        };
        Some(if load(other)?.compare(&load(one)?) == Ordering::Less { other } else { one })
    }

    /// The entry with the highest score for the client, and its endpoint next to the client on the ring.
    fn by_source(&self) -> Option<Position> {
        let source = self.draw.source;
        let score = |group: &Group| rendezvous(source_hash(source, group.name.as_bytes()), group.weight);
        let group = self.open().max_by(|one, other| score(one).total_cmp(&score(other)))?;
        if let [only] = group.members.as_slice() {
            return Some((group.entry, *only));
        }
        let is_fresh = |at: usize| {
            self.tried.is_empty()
                || self.endpoint(group, at).is_some_and(|endpoint| !self.tried.contains(&endpoint.address))
        };
        Some((group.entry, self.ring(group)?.find(source, self.tried.len(), is_fresh)?))
    }

    fn ring(&self, group: &'a Group) -> Option<&'a Ring> {
        let (entry, whole) = (self.entries.get(group.entry)?, self.rings.get(group.entry)?);
        Some(group.ring.get_or_init(|| whole.get_or_init(|| Ring::of(&entry.endpoints)).among(&group.members)))
    }

    /// The ring of the members of one address family.
    pub(super) fn ring_of(&self, group: &'a Group, is_ipv4: bool) -> Option<&'a Ring> {
        let whole = self.ring(group)?;
        let [four, six] = &group.rings;
        let members = || group.members.get(group.of_family(is_ipv4)).unwrap_or_default();
        Some((if is_ipv4 { four } else { six }).get_or_init(|| whole.among(members())))
    }
}

/// `number` modulo `count`; `None` if `count` is 0.
fn remainder(number: u64, count: usize) -> Option<usize> {
    usize::try_from(number.checked_rem(u64::try_from(count).ok()?)?).ok()
}

fn sum<'a>(groups: impl Iterator<Item = &'a Group>) -> u64 {
    groups.map(|group| u64::from(group.weight)).sum()
}

fn at_weight<'a>(mut groups: impl Iterator<Item = &'a Group>, mut position: u64) -> Option<&'a Group> {
    groups.find(|group| {
        let weight = u64::from(group.weight);
        let here = position < weight;
        position = position.saturating_sub(weight);
        here
    })
}
