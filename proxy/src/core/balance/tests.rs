//! Tests of load balancing: shares, priorities and the source hash.

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
    let set = |entry: usize, endpoint: usize, checked| targets.entries[entry].endpoints[endpoint].set_checked(checked);
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
