//! Load balancing: picks the endpoint of a new session.
//!
//! Weights split sessions between entries; within an entry the policy picks an endpoint. The split is exact: a ticket
//! from one shared counter maps to an entry so that every cycle of `sum of weights` tickets contains each entry exactly
//! `weight` times, whatever the number of workers.

pub(super) mod source_hash;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use proxy_api::{BackendHealth, Policy};

use self::source_hash::{rendezvous, source_hash};
use super::endpoint::{Endpoint, Fitness};

/// The current destinations of a listener, replaced as a whole when they change.
#[derive(Debug, Default)]
pub struct Targets {
    /// The backend entries.
    pub entries: Vec<Entry>,
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
    /// Endpoints of the entry.
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

impl Targets {
    /// Picks an entry and an endpoint, avoiding those in `tried` while there are others.
    #[must_use]
    pub fn pick(&self, policy: Policy, draw: Draw, tried: &[SocketAddr]) -> Option<(&Entry, &Arc<Endpoint>)> {
        let fit = self.fittest(draw.now);
        // With no healthy endpoint at all, try all of them, in order of priority.
        let priorities: Vec<u32> = match fit {
            Some((priority, _)) => vec![priority],
            None => self.priorities(),
        };
        let best = fit.map_or(Fitness::Unhealthy, |(_, best)| best);
        let fresh = |endpoint: &Endpoint| !tried.contains(&endpoint.address);
        let good = |endpoint: &Endpoint| endpoint.fitness(draw.now) >= best;
        let among = |usable: &dyn Fn(&Endpoint) -> bool| {
            priorities.iter().find_map(|priority| self.pick_among(*priority, policy, draw, usable))
        };
        among(&|endpoint| good(endpoint) && fresh(endpoint))
            .or_else(|| among(&fresh))
            .or_else(|| among(&good))
            .or_else(|| among(&|_| true))
    }

    /// The priority to use at `now` and the best fitness in it: the lowest priority with a healthy endpoint, or else
    /// the lowest with an endpoint that has not been checked yet.
    fn fittest(&self, now: u64) -> Option<(u32, Fitness)> {
        let open = self.entries.iter().filter(|entry| entry.weight > 0);
        let fit = open.filter_map(|entry| {
            let best = entry.endpoints.iter().map(|endpoint| endpoint.fitness(now)).max()?;
            (best > Fitness::Unhealthy).then_some((entry.priority, best))
        });
        fit.min_by_key(|(priority, best)| (std::cmp::Reverse(*best), *priority))
    }

    fn priorities(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.entries.iter().map(|entry| entry.priority).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Health of the endpoints that may get sessions, at `now` (seconds of the process clock).
    #[must_use]
    pub fn health(&self, now: u64) -> BackendHealth {
        let open = || self.entries.iter().filter(|entry| entry.weight > 0);
        let healthy = |endpoint: &Arc<Endpoint>| endpoint.is_healthy(now);
        let all = open().all(|entry| !entry.endpoints.is_empty() && entry.endpoints.iter().all(healthy));
        if all {
            BackendHealth::All
        } else if open().any(|entry| entry.endpoints.iter().any(healthy)) {
            BackendHealth::Some
        } else {
            BackendHealth::None
        }
    }

    /// Whether another endpoint is healthy at `now` (seconds of the process clock).
    #[must_use]
    pub fn has_healthy_other(&self, address: SocketAddr, now: u64) -> bool {
        let open = self.entries.iter().filter(|entry| entry.weight > 0);
        open.flat_map(|entry| &entry.endpoints).any(|other| other.address != address && other.is_healthy(now))
    }

    fn pick_among(
        &self,
        priority: u32,
        policy: Policy,
        draw: Draw,
        usable: &dyn Fn(&Endpoint) -> bool,
    ) -> Option<(&Entry, &Arc<Endpoint>)> {
        let open = |entry: &&Entry| {
            entry.priority == priority && entry.weight > 0 && entry.endpoints.iter().any(|endpoint| usable(endpoint))
        };
        let total: u64 = self.entries.iter().filter(open).map(|entry| u64::from(entry.weight)).sum();
        let entry = match policy {
            _ if total == 0 => return None,
            Policy::SourceHash => self.entries.iter().filter(open).max_by(|a, b| {
                let score =
                    |entry: &Entry| rendezvous(source_hash(draw.source, self.name_of(entry).as_bytes()), entry.weight);
                score(a).total_cmp(&score(b))
            })?,
            Policy::Random => at_weight(self.entries.iter().filter(open), draw.chance % total)?,
            Policy::RoundRobin | Policy::LeastConnections => {
                at_weight(self.entries.iter().filter(open), interleave(draw.ticket % total, total))?
            }
        };
        let mut usable_endpoints = entry.endpoints.iter().filter(|endpoint| usable(endpoint));
        let endpoint = match policy {
            Policy::RoundRobin => {
                let count = usable_endpoints.clone().count() as u64;
                let turn = entry.stats.turns.fetch_add(1, Relaxed) % count.max(1);
                usable_endpoints.nth(usize::try_from(turn).unwrap_or(0))?
            }
            Policy::Random => {
                let count = usable_endpoints.clone().count() as u64;
                let turn = (draw.chance >> 32) % count.max(1);
                usable_endpoints.nth(usize::try_from(turn).unwrap_or(0))?
            }
            Policy::LeastConnections => least(&usable_endpoints, &entry.stats.turns)?,
            Policy::SourceHash => {
                usable_endpoints.max_by_key(|endpoint| source_hash(draw.source, entry.name_of(endpoint).as_bytes()))?
            }
        };
        Some((entry, endpoint))
    }
}

/// The endpoint with the fewest sessions; equals take turns.
fn least<'a>(
    endpoints: &(impl Iterator<Item = &'a Arc<Endpoint>> + Clone),
    turns: &AtomicU64,
) -> Option<&'a Arc<Endpoint>> {
    let fewest = endpoints.clone().map(|endpoint| endpoint.active.load(Relaxed)).min()?;
    let equals = endpoints.clone().filter(|endpoint| endpoint.active.load(Relaxed) <= fewest);
    let count = equals.clone().count() as u64;
    let turn = turns.fetch_add(1, Relaxed) % count.max(1);
    equals.clone().nth(usize::try_from(turn).unwrap_or(0)).or_else(|| endpoints.clone().next())
}

fn at_weight<'a>(mut entries: impl Iterator<Item = &'a Entry>, mut position: u64) -> Option<&'a Entry> {
    entries.find(|entry| {
        let weight = u64::from(entry.weight);
        let here = position < weight;
        position = position.saturating_sub(weight);
        here
    })
}

/// A permutation of `0..total` that scatters neighbours: steps by a number near the golden ratio and coprime to
/// `total`.
fn interleave(position: u64, total: u64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a starting point for the search; any value in 1..=total works"
    )]
    let mut step = ((total as f64 * 0.618) as u64).max(1);
    while gcd(step, total) != 1 {
        step += 1;
    }
    let product = u128::from(position) * u128::from(step) % u128::from(total.max(1));
    u64::try_from(product).unwrap_or(0)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;
