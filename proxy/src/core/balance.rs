//! Load balancing: picks the endpoint of a new session.
//!
//! Weights split sessions between entries; within an entry the policy picks an endpoint. The split is exact: a ticket
//! from one shared counter maps to an entry so that every cycle of `sum of weights` tickets contains each entry exactly
//! `weight` times, whatever the number of workers.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use proxy_api::{BackendHealth, Policy};

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

    /// Name of an entry for the source hash: its host without the port, so that listeners for different ports of the
    /// same hosts agree. Entries of the same host are numbered in order.
    fn name_of<'a>(&self, entry: &'a Entry) -> Cow<'a, str> {
        let host = host_of(&entry.id);
        let before = self.entries.iter().take_while(|other| !std::ptr::eq(*other, entry));
        numbered(host.into(), before.filter(|other| host_of(&other.id) == host).count())
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

impl Entry {
    /// Name of an endpoint for the source hash, as [`Targets::name_of`].
    fn name_of(&self, endpoint: &Arc<Endpoint>) -> Cow<'static, str> {
        let ip = endpoint.address.ip();
        let before = self.endpoints.iter().take_while(|other| !Arc::ptr_eq(other, endpoint));
        numbered(ip.to_string().into(), before.filter(|other| other.address.ip() == ip).count())
    }
}

fn host_of(id: &str) -> &str {
    id.rsplit_once(':').map_or(id, |(host, _)| host)
}

fn numbered(name: Cow<'_, str>, number: usize) -> Cow<'_, str> {
    if number == 0 { name } else { format!("{name}#{number}").into() }
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

/// FNV-1a with the finaliser of `splitmix64`. Depends only on the source and the name, so that listeners with equal
/// backends, and all replicas, agree.
fn source_hash(source: IpAddr, name: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let start = match source.to_canonical() {
        IpAddr::V4(v4) => v4.octets().iter().fold(0xcbf2_9ce4_8422_2325, fold),
        IpAddr::V6(v6) => v6.octets().iter().fold(0xcbf2_9ce4_8422_2325, fold),
    };
    let mut hash = name.iter().fold(start, fold);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Weighted rendezvous hashing: the highest score wins with probability proportional to the weight.
fn rendezvous(hash: u64, weight: u32) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "53 bits of a hash are plenty")]
    let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight) / uniform.ln()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use proxy_api::Outlier;

    use super::*;
    use crate::core::endpoint::Checked;

    #[allow(clippy::cast_possible_truncation, reason = "small numbers")]
    fn targets(shape: &[(u32, usize)]) -> Targets {
        let entry = |(at, (weight, endpoints)): (usize, &(u32, usize))| Entry {
            id: format!("e{at}").into(),
            weight: *weight,
            priority: 0,
            endpoints: (0..*endpoints)
                .map(|n| Arc::new(Endpoint::new(SocketAddr::from(([10, 0, at as u8, n as u8], 1)))))
                .collect(),
            stats: Arc::default(),
        };
        Targets { entries: shape.iter().enumerate().map(entry).collect() }
    }

    #[allow(clippy::cast_possible_truncation, reason = "small numbers")]
    fn draw(ticket: u64) -> Draw {
        let chance = ticket.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Draw { ticket, chance, source: IpAddr::from([192, 0, 2, ticket as u8]), now: 0 }
    }

    fn counts(targets: &Targets, policy: Policy, draws: u64) -> BTreeMap<SocketAddr, u64> {
        let mut counts = BTreeMap::new();
        for ticket in 0..draws {
            let (_, endpoint) = targets.pick(policy, draw(ticket), &[]).expect("an endpoint");
            *counts.entry(endpoint.address).or_default() += 1;
        }
        counts
    }

    #[test]
    fn three_to_one_over_eighty_is_sixty_and_twenty() {
        let counts = counts(&targets(&[(3, 1), (1, 1)]), Policy::RoundRobin, 80);
        assert_eq!(counts.into_values().collect::<Vec<_>>(), [60, 20]);
    }

    #[test]
    fn round_robin_takes_turns_inside_an_entry() {
        let counts = counts(&targets(&[(1, 4)]), Policy::RoundRobin, 40);
        assert!(counts.values().all(|count| *count == 10), "{counts:?}");
    }

    #[test]
    fn least_connections_prefers_the_idle_endpoint() {
        let targets = targets(&[(1, 3)]);
        targets.entries[0].endpoints[0].active.store(2, Relaxed);
        targets.entries[0].endpoints[2].active.store(1, Relaxed);
        for ticket in 0..5 {
            let (_, endpoint) = targets.pick(Policy::LeastConnections, draw(ticket), &[]).expect("one");
            assert_eq!(endpoint.address, targets.entries[0].endpoints[1].address);
        }
    }

    #[test]
    fn an_entry_without_a_healthy_endpoint_gives_its_share_away_and_none_healthy_means_all() {
        let targets = targets(&[(1, 1), (1, 1)]);
        let outlier = Outlier { consecutive_failures: 1, eject_seconds: 10 };
        targets.entries[0].endpoints[0].failed(outlier, 0);
        assert_eq!(counts(&targets, Policy::RoundRobin, 10).len(), 1);
        targets.entries[1].endpoints[0].failed(outlier, 0);
        assert_eq!(counts(&targets, Policy::RoundRobin, 10).len(), 2);
    }

    #[test]
    fn a_standby_is_used_only_while_nobody_before_it_is_healthy() {
        let mut targets = targets(&[(1, 2), (1, 1), (1, 1)]);
        (targets.entries[1].priority, targets.entries[2].priority) = (1, 2);
        let picked = |targets: &Targets| {
            let ids: std::collections::BTreeSet<String> = (0..9)
                .map(|ticket| targets.pick(Policy::RoundRobin, draw(ticket), &[]).expect("one").0.id.to_string())
                .collect();
            ids.into_iter().collect::<Vec<_>>().join(" ")
        };
        let set =
            |entry: usize, endpoint: usize, checked| targets.entries[entry].endpoints[endpoint].set_checked(checked);
        assert_eq!(picked(&targets), "e0");
        set(0, 0, Checked::Down);
        assert_eq!(picked(&targets), "e0");
        // A retry stays off the standby: one refused connection is not a failover.
        let first = targets.entries[0].endpoints[1].address;
        assert_eq!(&*targets.pick(Policy::RoundRobin, draw(0), &[first]).expect("one").0.id, "e0");
        set(0, 1, Checked::Down);
        assert_eq!((picked(&targets).as_str(), targets.health(0)), ("e1", BackendHealth::Some));
        set(1, 0, Checked::Unknown);
        assert_eq!(picked(&targets), "e2", "a healthy endpoint is preferred to an unchecked one");
        set(2, 0, Checked::Down);
        assert_eq!(picked(&targets), "e1");
        set(1, 0, Checked::Down);
        assert_eq!((picked(&targets).as_str(), targets.health(0)), ("e0", BackendHealth::None));
        let all: Vec<SocketAddr> = targets.entries[0].endpoints.iter().map(|endpoint| endpoint.address).collect();
        assert_eq!(&*targets.pick(Policy::RoundRobin, draw(0), &all).expect("one").0.id, "e1", "all are tried");
        set(0, 0, Checked::Up);
        assert_eq!(picked(&targets), "e0");
    }

    #[test]
    fn weight_zero_gets_no_session() {
        assert!(targets(&[(0, 1)]).pick(Policy::RoundRobin, draw(0), &[]).is_none());
        assert_eq!(counts(&targets(&[(0, 1), (2, 1)]), Policy::Random, 20).len(), 1);
    }

    #[test]
    fn source_hash_moves_only_the_clients_of_the_endpoint_that_left() {
        let before = targets(&[(1, 5)]);
        let mut after = targets(&[(1, 5)]);
        let gone = after.entries[0].endpoints.remove(2).address;
        for ticket in 0..200 {
            let one = before.pick(Policy::SourceHash, draw(ticket), &[]).expect("one").1.address;
            let two = after.pick(Policy::SourceHash, draw(ticket), &[]).expect("one").1.address;
            assert!(one == two || one == gone);
        }
    }

    #[test]
    fn listeners_for_different_ports_of_the_same_hosts_agree_and_ports_of_one_host_share() {
        let with = |ports: &[(u8, u16)]| Targets {
            entries: ports
                .iter()
                .map(|(host, port)| Entry {
                    id: format!("addr/10.0.0.{host}:{port}").into(),
                    weight: 1,
                    priority: 0,
                    endpoints: vec![Arc::new(Endpoint::new(SocketAddr::from(([10, 0, 0, *host], *port))))],
                    stats: Arc::default(),
                })
                .collect(),
        };
        let (control, data) = (with(&[(1, 21), (2, 21), (3, 21)]), with(&[(1, 30000), (2, 30000), (3, 30000)]));
        for ticket in 0..200 {
            let picked =
                |targets: &Targets| targets.pick(Policy::SourceHash, draw(ticket), &[]).expect("one").1.address.ip();
            assert_eq!(picked(&control), picked(&data));
        }
        assert_eq!(counts(&with(&[(1, 80), (1, 81)]), Policy::SourceHash, 200).len(), 2);
    }

    #[test]
    fn every_release_hashes_a_source_in_the_same_way_so_that_replicas_agree_during_an_upgrade() {
        let source = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(source_hash(source("192.0.2.1"), b"svc/shop/pg"), 0x8ad6_bbbc_5f69_3c32);
        assert_eq!(source_hash(source("::ffff:192.0.2.1"), b"svc/shop/pg"), 0x8ad6_bbbc_5f69_3c32);
        assert_eq!(source_hash(source("2001:db8::1"), b"svc/shop/pg"), 0x84b3_6786_db75_ad95);
        for (hash, weight, expected) in [
            (0, 1, 0.026_716_574_831_277_1),
            (1 << 11, 1, 0.027_524_449_274_863_395),
            (1 << 62, 1, 0.721_347_520_444_481_8),
            (1 << 63, 1, std::f64::consts::LOG2_E),
            (1 << 63, 3, 4.328_085_122_666_891),
        ] {
            let score = rendezvous(hash, weight);
            assert!((score - expected).abs() < 1e-12, "{hash} {weight}: {score}");
        }
    }

    #[test]
    fn a_retry_goes_to_another_endpoint_while_there_is_one() {
        let targets = targets(&[(1, 2)]);
        let first = targets.pick(Policy::SourceHash, draw(1), &[]).expect("one").1.address;
        let second = targets.pick(Policy::SourceHash, draw(1), &[first]).expect("one").1.address;
        assert_ne!(first, second);
        assert!(targets.pick(Policy::SourceHash, draw(1), &[first, second]).is_some());
    }

    proptest! {
        #[test]
        fn every_cycle_has_each_entry_exactly_weight_times(weights in proptest::collection::vec(0_u32..40, 1..6)) {
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let shape: Vec<(u32, usize)> = weights.iter().map(|weight| (*weight, 1)).collect();
            let targets = targets(&shape);
            prop_assume!(total > 0);
            for policy in [Policy::RoundRobin, Policy::LeastConnections] {
                let counts = counts(&targets, policy, total * 2);
                for (at, weight) in weights.iter().enumerate() {
                    let address = targets.entries[at].endpoints[0].address;
                    prop_assert_eq!(counts.get(&address).copied().unwrap_or(0), u64::from(*weight) * 2);
                }
            }
        }

        #[test]
        fn source_hash_shares_by_weight(heavy in 2_u32..6) {
            let targets = targets(&[(1, 1), (heavy, 1)]);
            let hits = (0..=255_u8).flat_map(|a| (0..8_u8).map(move |b| IpAddr::from([10, b, 0, a])))
                .filter(|source| {
                    let draw = Draw { ticket: 0, chance: 0, source: *source, now: 0 };
                    &*targets.pick(Policy::SourceHash, draw, &[]).expect("one").0.id == "e1"
                })
                .count();
            let expected = 2048.0 * f64::from(heavy) / f64::from(heavy + 1);
            #[allow(clippy::cast_precision_loss, reason = "small")]
            let hits = hits as f64;
            prop_assert!((hits - expected).abs() < 160.0, "{} of {}", hits, expected);
        }
    }
}
