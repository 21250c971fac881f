//! The endpoint of the other address family for a parallel attempt ([`crate::core::backends::race`]).

use std::sync::{Arc, atomic::Ordering::Relaxed};

use proxy_api::Policy;

use super::{
    COMPARED_MOST, Draw, Targets,
    choice::Choice,
    plan::{Group, Level},
    source_hash::mixed,
};
use crate::core::backends::{address::Address, endpoint::Endpoint};

impl Targets {
    /// The endpoint to try in parallel with `last`: of the entry with this identity and the other family, no less fit,
    /// and not in `tried`. An address behind an agent has no other family.
    #[must_use]
    pub fn other_family(
        &self,
        policy: Policy,
        draw: Draw,
        (id, last): (&str, &Endpoint),
        tried: &[Address],
    ) -> Option<&Arc<Endpoint>> {
        let entry = self.entries.iter().position(|entry| &*entry.id == id)?;
        let fitness = last.fitness(draw.now);
        let is_ipv4 = !last.address.socket()?.is_ipv4();
        let in_level = |level: &Level| {
            let group = level.groups.iter().find(|group| group.entry == entry)?;
            let choice = Choice { entries: &self.entries, rings: &self.rings, level, draw, tried };
            choice.of_family(policy, group, is_ipv4)
        };
        let endpoints = &self.entries.get(entry)?.endpoints;
        let is_as_fit = |at: &usize| endpoints.get(*at).is_some_and(|other| other.fitness(draw.now) >= fitness);
        let at = self.planned(draw.now, |plan| plan.levels.iter().filter_map(in_level).find(is_as_fit))?;
        endpoints.get(at)
    }
}

impl<'a> Choice<'a> {
    /// The position of an untried endpoint of one family. It takes no turn, because turns belong to sessions.
    fn of_family(&self, policy: Policy, group: &'a Group, is_ipv4: bool) -> Option<usize> {
        let chance = self.draw.chance;
        let places = group.of_family(is_ipv4);
        let nth = |number: u64| self.nth_of(group, places.clone(), number >> 32);
        let active = |at: usize| Some(self.endpoint(group, at)?.active.load(Relaxed));
        match policy {
            Policy::RoundRobin | Policy::Random => nth(chance),
            Policy::LeastConnections if places.len() > COMPARED_MOST => {
                let (one, other) = (nth(chance)?, nth(mixed(chance))?);
                Some(if active(other)? < active(one)? { other } else { one })
            }
            Policy::LeastConnections => {
                let skipped = self.skipped(group);
                let fresh = places.filter(|place| !skipped.contains(place));
                let members = fresh.filter_map(|place| group.members.get(place).copied());
                members.min_by_key(|at| active(*at))
            }
            Policy::SourceHash => {
                let stale = self.skipped(group).into_iter().filter(|place| places.contains(place)).count();
                let is_fresh = |at: usize| {
                    stale == 0 || self.endpoint(group, at).is_some_and(|it| !self.tried.contains(&it.address))
                };
                self.ring_of(group, is_ipv4)?.find(self.draw.source, stale, is_fresh)
            }
        }
    }
}
