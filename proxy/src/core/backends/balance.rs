//! Load balancing: picks the endpoint of a new session.
//!
//! Weights split sessions between the entries of one priority, and the policy picks an endpoint; `docs/balancing.md`
//! has the table. With `RoundRobin` the split is exact: a ticket from one shared counter maps to an entry so that every
//! cycle of `sum of weights` tickets contains each entry exactly `weight` times, whatever the number of workers.
//!
//! A pick examines a bounded number of endpoints. Data that depends on all of them is prepared in a `Plan`, which is
//! recomputed only when the targets or their health change.

mod choice;
mod family;
mod plan;
mod scatter;
mod source_hash;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use arc_swap::ArcSwapOption;
use proxy_api::{BackendHealth, Policy};

use self::{
    choice::Choice,
    plan::{Group, Level, Plan},
    source_hash::Ring,
};
use crate::core::backends::{
    address::Address,
    endpoint::{Changes, Endpoint},
};

/// Up to this many endpoints of one priority, `LeastConnections` compares the sessions of all. Among more, it compares
/// two at random.
pub const COMPARED_MOST: usize = 64;
/// Most endpoints of a listener that are remembered after they have left their backend; the oldest are forgotten first.
pub const DEPARTED_MOST: usize = 1024;

/// The current destinations of a listener, replaced as a whole when they change.
#[derive(Debug, Default)]
pub struct Targets {
    /// The backend entries.
    pub entries: Vec<Entry>,
    /// Endpoints that have left their entry and may return to it, with the entry's identity, in the order of leaving.
    departed: Vec<(Arc<str>, Arc<Endpoint>)>,
    /// Counts changes of the endpoints' health.
    changes: Changes,
    /// The endpoints of each entry on the ring of `SourceHash`, computed on first use.
    rings: Vec<OnceLock<Ring>>,
    /// The last plan.
    plan: ArcSwapOption<Plan>,
}

/// One backend entry with its current endpoints.
#[derive(Debug)]
pub struct Entry {
    /// Identity from the configuration.
    pub id: Arc<str>,
    /// Share of new sessions.
    pub weight: u32,
    /// Priority: used only while no entry with a lower number is healthy.
    pub priority: u32,
    /// Endpoints of the entry. Targets have them in the order of their addresses.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Counters, kept when endpoints or weights change.
    pub stats: Arc<EntryStats>,
}

/// Counters of a backend entry.
#[derive(Debug, Default)]
pub struct EntryStats {
    /// Round-robin position.
    pub turns: AtomicU64,
    /// Sessions connected.
    pub sessions: AtomicU64,
    /// Failed connects.
    pub failures: AtomicU64,
}

/// Inputs of a pick besides the targets.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// Sequence number of the session, from the listener's shared counter.
    pub ticket: u64,
    /// A random number.
    pub chance: u64,
    /// Client address.
    pub source: IpAddr,
    /// Seconds of the process clock.
    pub now: u64,
}

/// Each endpoint with the identity of its entry.
fn pairs(entries: &[Entry]) -> impl Iterator<Item = (&Arc<str>, &Arc<Endpoint>)> {
    entries.iter().flat_map(|entry| entry.endpoints.iter().map(move |endpoint| (&entry.id, endpoint)))
}

impl Targets {
    /// Creates targets with these entries. Endpoints already in use report their changes to these targets, too.
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Self {
        let known = entries.iter().flat_map(|entry| &entry.endpoints).find_map(|endpoint| endpoint.changes());
        let changes = known.cloned().unwrap_or_default();
        Self::with(entries, Vec::new(), changes)
    }

    /// Returns the targets that replace these at `now` (seconds of the process clock). They remember endpoints that
    /// leave with live sessions or an ejection, in case those return.
    #[must_use]
    pub fn followed_by(&self, entries: Vec<Entry>, now: u64) -> Self {
        let departed = self.departing(&entries, now);
        Self::with(entries, departed, self.changes.clone())
    }

    /// The endpoints in none of these entries that are to be remembered at `now`.
    fn departing(&self, entries: &[Entry], now: u64) -> Vec<(Arc<str>, Arc<Endpoint>)> {
        let used: BTreeSet<(&str, &Address)> = pairs(entries).map(|(id, it)| (&**id, &it.address)).collect();
        let mut departed = self.departed.clone();
        departed.extend(pairs(&self.entries).map(|(id, it)| (id.clone(), it.clone())));
        departed.retain(|(id, it)| it.is_memorable(now) && !used.contains(&(&**id, &it.address)));
        departed.drain(..departed.len().saturating_sub(DEPARTED_MOST));
        departed
    }

    /// Number of endpoints that have left their entry and are remembered.
    #[must_use]
    pub fn departed(&self) -> usize {
        self.departed.len()
    }

    /// The endpoints that have left an entry and are remembered.
    pub(crate) fn departed_from(&self, entry: &str) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.departed.iter().filter(move |(id, _)| **id == *entry).map(|(_, endpoint)| endpoint)
    }

    fn with(mut entries: Vec<Entry>, departed: Vec<(Arc<str>, Arc<Endpoint>)>, changes: Changes) -> Self {
        for entry in &mut entries {
            entry.endpoints.sort_by(|one, other| Ord::cmp(&one.address, &other.address));
        }
        for endpoint in entries.iter().flat_map(|entry| &entry.endpoints) {
            endpoint.count_in(&changes);
        }
        let rings = entries.iter().map(|_| OnceLock::new()).collect();
        Self { entries, departed, changes, rings, plan: ArcSwapOption::default() }
    }

    /// Picks an entry and an endpoint, avoiding those in `tried` while there are others.
    #[must_use]
    pub fn pick(&self, policy: Policy, draw: Draw, tried: &[Address]) -> Option<(&Entry, &Arc<Endpoint>)> {
        let choose = |level: &Level, tried: &[Address]| {
            Choice { entries: &self.entries, rings: &self.rings, level, draw, tried }.by(policy)
        };
        let (entry, endpoint) = self.planned(draw.now, |plan| {
            let fresh = plan.levels.iter().find_map(|level| choose(level, tried));
            fresh.or_else(|| plan.levels.iter().find_map(|level| choose(level, &[])))
        })?;
        let entry = self.entries.get(entry)?;
        Some((entry, entry.endpoints.get(endpoint)?))
    }

    /// Whether an entry that gets sessions has an endpoint, healthy or not.
    #[must_use]
    pub fn has_endpoint(&self) -> bool {
        self.entries.iter().any(|entry| entry.weight > 0 && !entry.endpoints.is_empty())
    }

    /// Health of the endpoints that may get sessions, at `now` (seconds of the process clock).
    #[must_use]
    pub fn health(&self, now: u64) -> BackendHealth {
        self.planned(now, |plan| plan.health)
    }

    /// Whether a pick at `now` (seconds of the process clock) would find another healthy endpoint. Standbys behind a
    /// healthy priority and entries of weight 0 do not count: no pick finds them.
    #[must_use]
    pub fn has_healthy_other(&self, address: &Address, now: u64) -> bool {
        self.planned(now, |plan| plan.healthy.iter().flatten().any(|other| other != address))
    }

    /// Whether a pick at `now` (seconds of the process clock) would find an endpoint that is not in `tried`. Standbys
    /// behind a healthy priority and entries of weight 0 do not count: no pick finds them.
    #[must_use]
    pub fn has_untried(&self, now: u64, tried: &[Address]) -> bool {
        let is_fresh = |group: &Group, at: usize| {
            let endpoint = self.entries.get(group.entry).and_then(|entry| entry.endpoints.get(at));
            endpoint.is_some_and(|endpoint| !tried.contains(&endpoint.address))
        };
        let has_fresh =
            |group: &Group| group.members.len() > tried.len() || group.members.iter().any(|at| is_fresh(group, *at));
        self.planned(now, |plan| plan.levels.iter().flat_map(|level| &level.groups).any(has_fresh))
    }

    /// Calls `use_it` with the plan for `now`. Recomputes the plan if a change of health or the end of an ejection made
    /// it obsolete.
    fn planned<T>(&self, now: u64, use_it: impl FnOnce(&Plan) -> T) -> T {
        let changes = self.changes.count();
        let held = self.plan.load();
        if let Some(plan) = held.as_deref().filter(|plan| plan.holds(changes, now)) {
            return use_it(plan);
        }
        let plan = Arc::new(Plan::of(&self.entries, changes, now));
        self.plan.store(Some(plan.clone()));
        use_it(&plan)
    }
}

#[cfg(test)]
mod tests;
