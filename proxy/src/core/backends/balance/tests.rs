//! Tests of load balancing: shares, priorities, the source hash, and how many endpoints a pick looks at (D8).

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::atomic::Ordering::Relaxed,
};

use proptest::prelude::*;
use proxy_api::Outlier;

use super::{
    source_hash::{rendezvous, source_hash},
    *,
};
use crate::core::backends::endpoint::{Checked, Counted};

thread_local! {
    /// Looks at endpoints by the picks of this thread.
    pub(super) static LOOKS: Cell<usize> = const { Cell::new(0) };
}

/// Entries with a weight and a number of endpoints, at most 65,536.
fn entries(shape: &[(u32, usize)]) -> Vec<Entry> {
    let endpoint = |entry: usize, n: usize| {
        let [.., third, fourth] = n.to_be_bytes();
        let entry = u8::try_from(entry).expect("few entries");
        Arc::new(Endpoint::new(SocketAddr::from(([10, entry, third, fourth], 1))))
    };
    let entry = |(at, (weight, endpoints)): (usize, &(u32, usize))| Entry {
        id: format!("e{at}").into(),
        weight: *weight,
        priority: 0,
        endpoints: (0..*endpoints).map(|n| endpoint(at, n)).collect(),
        stats: Arc::default(),
    };
    shape.iter().enumerate().map(entry).collect()
}

fn targets(shape: &[(u32, usize)]) -> Targets {
    Targets::new(entries(shape))
}

#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
fn draw(ticket: u64) -> Draw {
    let chance = ticket.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Draw { ticket, chance, source: IpAddr::from([192, 0, 2, ticket as u8]), now: 0 }
}

fn counts(targets: &Targets, policy: Policy, draws: u64) -> BTreeMap<Address, u64> {
    let mut counts = BTreeMap::new();
    for ticket in 0..draws {
        let (_, endpoint) = targets.pick(policy, draw(ticket), &[]).expect("an endpoint");
        *counts.entry(endpoint.address.clone()).or_default() += 1;
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
    let mut entries = entries(&[(1, 2), (1, 1), (1, 1)]);
    (entries[1].priority, entries[2].priority) = (1, 2);
    let targets = Targets::new(entries);
    let picked = |targets: &Targets| {
        let ids: BTreeSet<String> = (0..9)
            .map(|ticket| targets.pick(Policy::RoundRobin, draw(ticket), &[]).expect("one").0.id.to_string())
            .collect();
        ids.into_iter().collect::<Vec<_>>().join(" ")
    };
    let set = |entry: usize, endpoint: usize, checked| targets.entries[entry].endpoints[endpoint].set_checked(checked);
    assert_eq!(picked(&targets), "e0");
    set(0, 0, Checked::Down);
    assert_eq!(picked(&targets), "e0");
    // A retry stays off the standby: one refused connection is not a failover.
    let first = targets.entries[0].endpoints[1].address.clone();
    assert_eq!(&*targets.pick(Policy::RoundRobin, draw(0), &[first]).expect("one").0.id, "e0");
    set(0, 1, Checked::Down);
    assert_eq!((picked(&targets).as_str(), targets.health(0)), ("e1", BackendHealth::Some));
    set(1, 0, Checked::Unknown);
    assert_eq!(picked(&targets), "e2", "a healthy endpoint is preferred to an unchecked one");
    set(2, 0, Checked::Down);
    assert_eq!(picked(&targets), "e1");
    set(1, 0, Checked::Down);
    assert_eq!((picked(&targets).as_str(), targets.health(0)), ("e0", BackendHealth::None));
    let all: Vec<Address> = targets.entries[0].endpoints.iter().map(|endpoint| endpoint.address.clone()).collect();
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
    let mut fewer = entries(&[(1, 5)]);
    let gone = fewer[0].endpoints.remove(2).address.clone();
    let after = Targets::new(fewer);
    for ticket in 0..200 {
        let one = &before.pick(Policy::SourceHash, draw(ticket), &[]).expect("one").1.address;
        let two = &after.pick(Policy::SourceHash, draw(ticket), &[]).expect("one").1.address;
        assert!(one == two || *one == gone);
    }
}

#[test]
fn listeners_for_different_ports_of_the_same_hosts_agree_and_ports_of_one_host_share() {
    let with = |ports: &[(u8, u16)]| {
        let entry = |(host, port): &(u8, u16)| Entry {
            id: format!("addr/10.0.0.{host}:{port}").into(),
            weight: 1,
            priority: 0,
            endpoints: vec![Arc::new(Endpoint::new(SocketAddr::from(([10, 0, 0, *host], *port))))],
            stats: Arc::default(),
        };
        Targets::new(ports.iter().map(entry).collect())
    };
    let (control, data) = (with(&[(1, 21), (2, 21), (3, 21)]), with(&[(1, 30000), (2, 30000), (3, 30000)]));
    for ticket in 0..200 {
        let picked =
            |all: &Targets| all.pick(Policy::SourceHash, draw(ticket), &[]).expect("one").1.address.with_port(0);
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
    let pool = targets(&[(1, 5)]);
    let picked: Vec<usize> = (0..12)
        .map(|client| {
            let picked = pool.pick(Policy::SourceHash, draw(client), &[]).expect("one").1;
            pool.entries[0].endpoints.iter().position(|endpoint| Arc::ptr_eq(endpoint, picked)).expect("its position")
        })
        .collect();
    assert_eq!(picked, [0, 1, 2, 4, 0, 3, 4, 2, 2, 0, 3, 2]);
}

#[test]
fn a_retry_goes_to_another_endpoint_while_there_is_one() {
    let targets = targets(&[(1, 2)]);
    let pick = |tried: &[Address]| Some(targets.pick(Policy::SourceHash, draw(1), tried)?.1.address.clone());
    let first = pick(&[]).expect("one");
    let second = pick(std::slice::from_ref(&first)).expect("one");
    assert_ne!(first, second);
    assert!(pick(&[first, second]).is_some());
}

/// Opens this many sessions, which stay; returns the live sessions of each entry.
fn hold(targets: &Targets, sessions: u64, held: &mut Vec<Counted>) -> Vec<u32> {
    for ticket in 0..sessions {
        let (_, endpoint) = targets.pick(Policy::LeastConnections, draw(ticket), &[]).expect("an endpoint");
        held.push(Counted::new(endpoint.clone()));
    }
    let live = |entry: &Entry| entry.endpoints.iter().map(|endpoint| endpoint.active.load(Relaxed)).sum::<u32>();
    targets.entries.iter().map(live).collect()
}

/// As [`hold`], with no session before.
fn held(shape: &[(u32, usize)], sessions: u64) -> Vec<u32> {
    hold(&targets(shape), sessions, &mut Vec::new())
}

#[test]
fn least_connections_sends_new_sessions_to_the_entry_that_has_fewer() {
    let pair = targets(&[(1, 1), (1, 1)]);
    let mut held: Vec<Counted> = (0..20).map(|_| Counted::new(pair.entries[0].endpoints[0].clone())).collect();
    assert_eq!(hold(&pair, 20, &mut held), [20, 20]);
    assert_eq!(hold(&pair, 10, &mut held), [25, 25]);
}

#[test]
fn live_sessions_are_shared_by_weight_however_many_endpoints_an_entry_has() {
    for (shape, expected) in [
        ([(3, 1), (1, 1)], [60, 20]),
        ([(3, 2), (1, 1)], [60, 20]),
        ([(3, 2), (1, 5)], [60, 20]),
        ([(1, 3), (1, 1)], [40, 40]),
        ([(0, 3), (7, 1)], [0, 80]),
        ([(1_000_000, 1), (1, 1)], [79, 1]),
    ] {
        assert_eq!(held(&shape, 80), expected, "{shape:?}");
    }
}

#[test]
fn an_endpoint_that_joins_gets_new_sessions_until_it_has_as_many_as_the_others() {
    let mut pool = entries(&[(1, 3)]);
    let late = pool[0].endpoints.pop().expect("the third");
    let few = Targets::new(pool);
    let mut held = Vec::new();
    hold(&few, 20, &mut held);
    let Targets { entries: mut pool, .. } = few;
    pool[0].endpoints.push(late);
    let more = Targets::new(pool);
    hold(&more, 10, &mut held);
    let live: Vec<u32> = more.entries[0].endpoints.iter().map(|endpoint| endpoint.active.load(Relaxed)).collect();
    assert_eq!(live, [10, 10, 10]);
}

#[test]
fn among_many_endpoints_two_random_ones_are_compared_and_loads_stay_close() {
    let many = targets(&[(3, 100), (1, 100)]);
    let mut held = Vec::new();
    let entries = hold(&many, 4000, &mut held);
    assert!((2850..=3150).contains(&entries[0]), "by weight: {entries:?}");
    // Each endpoint of the first entry should have 30 sessions; random choices alone would leave some below 18.
    let loads = many.entries[0].endpoints.iter().map(|endpoint| endpoint.active.load(Relaxed));
    assert!(loads.clone().all(|load| (24..=36).contains(&load)), "{:?}", loads.collect::<Vec<_>>());
}

#[test]
fn a_pick_looks_at_no_more_endpoints_among_thousands_than_among_few() {
    for policy in [Policy::RoundRobin, Policy::Random, Policy::LeastConnections, Policy::SourceHash] {
        for endpoints in [1, COMPARED_MOST - 1, COMPARED_MOST, 4000] {
            let targets = targets(&[(1, endpoints), (1, 1)]);
            for ticket in 0..200 {
                let mut tried = Vec::new();
                for attempt in 0..3 {
                    LOOKS.set(0);
                    let (_, endpoint) = targets.pick(policy, draw(ticket), &tried).expect("an endpoint");
                    tried.push(endpoint.address.clone());
                    let most = if attempt == 0 { COMPARED_MOST } else { 300 };
                    assert!(LOOKS.get() <= most, "{policy:?}, {endpoints}, attempt {attempt}: {}", LOOKS.get());
                }
            }
        }
    }
}

#[test]
fn an_endpoint_of_the_other_family_is_found_among_thousands_as_among_few() {
    for policy in [Policy::RoundRobin, Policy::Random, Policy::LeastConnections, Policy::SourceHash] {
        for endpoints in [1, COMPARED_MOST, 4000] {
            let mut shape = entries(&[(1, endpoints)]);
            let sixes = (0..endpoints).map(|n| {
                let host = u16::try_from(n).expect("few");
                Arc::new(Endpoint::new(SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, host], 1))))
            });
            shape[0].endpoints.extend(sixes);
            let dual = Targets::new(shape);
            for ticket in 0..200 {
                let (entry, first) = dual.pick(policy, draw(ticket), &[]).expect("an endpoint");
                let mut tried = vec![first.address.clone()];
                for last in [first, &entry.endpoints[0]] {
                    LOOKS.set(0);
                    let Some(other) = dual.other_family(policy, draw(ticket), (&entry.id, last), &tried) else {
                        continue;
                    };
                    let is_ipv4 = |it: &Endpoint| it.address.socket().expect("an address").is_ipv4();
                    assert!(is_ipv4(other) != is_ipv4(last) && !tried.contains(&other.address));
                    tried.push(other.address.clone());
                    assert!(LOOKS.get() <= 300, "{policy:?}, {endpoints}: {}", LOOKS.get());
                }
            }
        }
    }
}

#[test]
fn what_is_prepared_is_used_until_health_changes_or_an_ejection_ends() {
    let pair = targets(&[(1, 2)]);
    let made = |now| pair.planned(now, |plan| std::ptr::from_ref(plan) as usize);
    let first = made(0);
    assert_eq!(first, made(9));
    let outlier = Outlier { consecutive_failures: 1, eject_seconds: 10 };
    pair.entries[0].endpoints[0].failed(outlier, 9);
    let seen = |now| {
        let draws = (0..8).map(|ticket| Draw { now, ..draw(ticket) });
        let picked = draws.filter_map(|draw| Some(&pair.pick(Policy::RoundRobin, draw, &[])?.1.address));
        picked.collect::<BTreeSet<_>>().len()
    };
    // Seconds are cut: the ejection lasts ten whole ones.
    assert_eq!([9, 19, 20].map(seen), [1, 1, 2], "ejected for ten seconds");
}

#[test]
fn new_targets_learn_of_the_health_of_endpoints_that_they_share_with_earlier_ones() {
    let before = targets(&[(1, 2)]);
    let Targets { entries, .. } = before;
    let after = Targets::new(entries);
    assert_eq!(after.health(0), BackendHealth::All);
    after.entries[0].endpoints[1].set_checked(Checked::Down);
    assert_eq!(after.health(0), BackendHealth::Some);
}

#[test]
fn source_hash_shares_the_endpoints_of_an_entry_evenly() {
    let pool = targets(&[(1, 16)]);
    let clients = (0..8000_u32).map(|n| IpAddr::from((0x0a02_0000 + n).to_be_bytes()));
    let mut counts: BTreeMap<&Address, u32> = BTreeMap::new();
    for source in clients {
        let draw = Draw { ticket: 0, chance: 0, source, now: 0 };
        *counts.entry(&pool.pick(Policy::SourceHash, draw, &[]).expect("one").1.address).or_default() += 1;
    }
    assert!(counts.len() == 16 && counts.values().all(|count| (350..=650).contains(count)), "{counts:?}");
}

#[test]
fn source_hash_moves_only_the_clients_of_an_unhealthy_endpoint_and_takes_them_back() {
    let pool = targets(&[(1, 5), (1, 3)]);
    let picked = || -> Vec<Address> {
        let draws = (0..200).map(draw);
        draws.map(|draw| pool.pick(Policy::SourceHash, draw, &[]).expect("one").1.address.clone()).collect()
    };
    let before = picked();
    let sick = &pool.entries[0].endpoints[3];
    sick.set_checked(Checked::Down);
    for (one, two) in before.iter().zip(picked()) {
        assert_ne!(two, sick.address);
        assert!(*one == two || *one == sick.address);
    }
    sick.set_checked(Checked::Up);
    assert_eq!(picked(), before);
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
                let address = &targets.entries[at].endpoints[0].address;
                prop_assert_eq!(counts.get(address).copied().unwrap_or(0), u64::from(*weight) * 2);
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
