//! The data that picks share: the usable endpoints by order of preference, recomputed for each change of their health.

use std::{
    cmp::Reverse,
    ops::Range,
    sync::{Arc, OnceLock},
};

use proxy_api::BackendHealth;

use super::{
    Entry,
    scatter::step_of,
    source_hash::{Ring, name_of},
};
use crate::core::backends::{
    address::Address,
    endpoint::{Endpoint, Fitness},
};

/// The order of preference for all targets and their health.
#[derive(Debug)]
pub(super) struct Plan {
    /// Number of changes of health when the plan was made.
    changes: u64,
    /// When the first ejection ends, in seconds of the process clock.
    until: u64,
    /// The endpoints to pick from, in the order of preference.
    pub(super) levels: Vec<Level>,
    /// Health of the endpoints that may get sessions, for new sessions: behind an agent without a connection, no
    /// endpoint is healthy.
    pub(super) health: BackendHealth,
    /// Two healthy endpoints of the levels with different addresses, if there are any.
    pub(super) healthy: [Option<Address>; 2],
}

/// Endpoints that are equally good, by entry.
#[derive(Debug)]
pub(super) struct Level {
    /// Entries with at least one endpoint of the level.
    pub(super) groups: Vec<Group>,
    /// Sum of the weights.
    pub(super) total: u64,
    /// The step that scatters tickets over `total`.
    pub(super) step: u64,
    /// Number of endpoints.
    pub(super) members: usize,
}

/// The endpoints of one entry in a level.
#[derive(Debug)]
pub(super) struct Group {
    /// Position of the entry.
    pub(super) entry: usize,
    /// Weight of the entry.
    pub(super) weight: u32,
    /// Name of the entry for the source hash.
    pub(super) name: String,
    /// Positions in the entry's endpoints, ascending.
    pub(super) members: Vec<usize>,
    /// Number of members with an IPv4 address, which precede the others. Addresses behind agents belong to no family,
    /// and are never mixed with others.
    four: usize,
    /// The members on the ring of `SourceHash`, computed on first use.
    pub(super) ring: OnceLock<Ring>,
    /// The members of IPv4 and of IPv6, each on a ring of their own.
    pub(super) rings: [OnceLock<Ring>; 2],
}

/// An entry that may get sessions, with the fitness of its endpoints for new sessions.
struct Open<'a> {
    at: usize,
    entry: &'a Entry,
    fitness: Vec<Fitness>,
}

impl Plan {
    /// Computes a plan for `now` (seconds of the process clock), after this number of changes.
    pub(super) fn of(entries: &[Entry], changes: u64, now: u64) -> Self {
        let open = entries.iter().enumerate().filter(|(_, entry)| entry.weight > 0);
        let open: Vec<Open<'_>> = open
            .map(|(at, entry)| {
                let fitness = entry.endpoints.iter().map(|endpoint| endpoint.fitness_for_new(now)).collect();
                Open { at, entry, fitness }
            })
            .collect();
        let ends = open.iter().flat_map(|open| &open.entry.endpoints).map(|endpoint| endpoint.ejected_until());
        let until = ends.filter(|until| *until > now).min().unwrap_or(u64::MAX);
        let levels = levels(entries, &open);
        let healthy = healthy(entries, &levels, now);
        Self { changes, until, levels, health: health(entries, &open), healthy }
    }

    /// Whether the plan is still valid at `now` after this number of changes.
    pub(super) fn holds(&self, changes: u64, now: u64) -> bool {
        self.changes == changes && now < self.until
    }
}

/// The levels, by preference: the fittest endpoints of the priority to use, then all of that priority, because one
/// failed connect is no failover. With no healthy endpoint at all, all are tried, in the order of priorities; those
/// whose agent may be back soon come before.
fn levels(entries: &[Entry], open: &[Open<'_>]) -> Vec<Level> {
    let level = |priority: u32, least: Fitness| {
        let of_priority = open.iter().filter(|open| open.entry.priority == priority);
        Level::of(of_priority.filter_map(|open| Group::of(entries, open, least)).collect())
    };
    // The lowest priority with a healthy endpoint, or else the lowest with one that has not been checked yet.
    let fit = open.iter().filter_map(|open| {
        let best = *open.fitness.iter().max()?;
        (best > Fitness::Away).then_some((Reverse(best), open.entry.priority))
    });
    if let Some((Reverse(best), priority)) = fit.min() {
        let (good, all) = (level(priority, best), level(priority, Fitness::Unhealthy));
        return if good.members == all.members { vec![good] } else { vec![good, all] };
    }
    let mut priorities: Vec<u32> = open.iter().map(|open| open.entry.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let of_all = |least: Fitness| priorities.iter().map(move |priority| level(*priority, least));
    of_all(Fitness::Away).filter(|level| level.members > 0).chain(of_all(Fitness::Unhealthy)).collect()
}

fn health(entries: &[Entry], open: &[Open<'_>]) -> BackendHealth {
    let is_healthy = |fitness: &Fitness| *fitness > Fitness::Away;
    let are_healthy = |open: &Open<'_>| !open.fitness.is_empty() && open.fitness.iter().all(is_healthy);
    if open.is_empty() && !entries.is_empty() {
        // All weights are 0: no session has a backend.
        BackendHealth::None
    } else if open.iter().all(are_healthy) {
        BackendHealth::All
    } else if open.iter().any(|open| open.fitness.iter().any(is_healthy)) {
        BackendHealth::Some
    } else {
        BackendHealth::None
    }
}

fn healthy(entries: &[Entry], levels: &[Level], now: u64) -> [Option<Address>; 2] {
    let endpoints = levels.iter().flat_map(|level| &level.groups).flat_map(|group| {
        let entry = entries.get(group.entry);
        group.members.iter().filter_map(move |at| entry?.endpoints.get(*at))
    });
    let is_fit = |endpoint: &&Arc<Endpoint>| endpoint.fitness_for_new(now) > Fitness::Away;
    let mut all = endpoints.filter(is_fit).map(|endpoint| &endpoint.address);
    let first = all.next();
    [first.cloned(), all.find(|address| Some(*address) != first).cloned()]
}

impl Level {
    fn of(groups: Vec<Group>) -> Self {
        let total = groups.iter().map(|group| u64::from(group.weight)).sum();
        let members = groups.iter().map(|group| group.members.len()).sum();
        Self { groups, total, step: step_of(total), members }
    }
}

impl Group {
    /// The endpoints of an entry that are at least this fit; `None` if there are none.
    fn of(entries: &[Entry], open: &Open<'_>, least: Fitness) -> Option<Self> {
        let fit = open.fitness.iter().enumerate().filter(|(_, fitness)| **fitness >= least);
        let members: Vec<usize> = fit.map(|(at, _)| at).collect();
        let address = |at: &usize| open.entry.endpoints.get(*at)?.address.socket();
        let is_four = |at: &usize| address(at).is_some_and(|address| address.is_ipv4());
        (!members.is_empty()).then(|| Self {
            entry: open.at,
            weight: open.entry.weight,
            name: name_of(entries, open.at),
            four: members.partition_point(is_four),
            members,
            ring: OnceLock::new(),
            rings: [OnceLock::new(), OnceLock::new()],
        })
    }

    /// The places in `members` of an address family.
    pub(super) fn of_family(&self, is_ipv4: bool) -> Range<usize> {
        if is_ipv4 { 0..self.four } else { self.four..self.members.len() }
    }
}
