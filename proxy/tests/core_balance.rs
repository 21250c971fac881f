//! The endpoint of a new session: weights, priorities, health and the address of the client.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod entries;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use entries::{address, entry};
use proxy::core::backends::{
    address::{Address, AgentAddress},
    balance::{DEPARTED_MOST, Draw, Entry, Targets},
    endpoint::{Checked, Counted, Endpoint},
};
use proxy_api::{BackendHealth, Policy};

/// Session number `n`, of client number `n`.
fn draw(n: u32) -> Draw {
    Draw { ticket: u64::from(n), chance: 0, source: IpAddr::V4(Ipv4Addr::from(0x0a01_0000 + n)), now: 0 }
}

fn pick(targets: &Targets, policy: Policy, draw: Draw) -> Address {
    targets.pick(policy, draw, &[]).expect("an endpoint").1.address.clone()
}

/// Number of sessions by endpoint, of one session from each of `clients` clients.
fn shares(targets: &Targets, policy: Policy, clients: u32) -> BTreeMap<Address, u32> {
    let mut shares = BTreeMap::new();
    for n in 0..clients {
        *shares.entry(pick(targets, policy, draw(n))).or_default() += 1;
    }
    shares
}

#[test]
fn sessions_avoid_an_endpoint_whose_checks_fail_while_its_entry_has_healthy_ones() {
    let targets = Targets::new(vec![entry("e", 1, 0, &["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"])]);
    targets.entries[0].endpoints[0].set_checked(Checked::Down);
    let expected = BTreeMap::from([(address("10.0.0.2:1"), 15), (address("10.0.0.3:1"), 15)]);
    assert_eq!(shares(&targets, Policy::RoundRobin, 30), expected);
}

#[test]
fn an_entry_of_weight_zero_keeps_no_session_off_the_standby() {
    let targets = Targets::new(vec![entry("primary", 0, 0, &["10.0.0.1:1"]), entry("standby", 1, 1, &["10.0.0.2:1"])]);
    assert_eq!(pick(&targets, Policy::RoundRobin, draw(0)), address("10.0.0.2:1"));
}

#[test]
fn the_health_of_a_listener_counts_only_entries_that_get_sessions() {
    let targets = Targets::new(vec![entry("open", 1, 0, &["10.0.0.1:1"]), entry("closed", 0, 0, &["10.0.0.2:1"])]);
    assert_eq!(targets.health(0), BackendHealth::All);
    targets.entries[1].endpoints[0].set_checked(Checked::Down);
    assert_eq!(targets.health(0), BackendHealth::All, "the entry of weight 0 is ignored");
    targets.entries[0].endpoints[0].set_checked(Checked::Down);
    targets.entries[1].endpoints[0].set_checked(Checked::Up);
    assert_eq!(targets.health(0), BackendHealth::None, "the entry of weight 0 is ignored");
    let closed = Targets::new(vec![entry("closed", 0, 0, &["10.0.0.1:1"])]);
    assert_eq!(closed.health(0), BackendHealth::None, "no entry gets sessions");
}

#[test]
fn an_entry_without_endpoints_is_not_healthy() {
    let targets = Targets::new(vec![entry("full", 1, 0, &["10.0.0.1:1"]), entry("empty", 1, 0, &[])]);
    assert_eq!(targets.health(0), BackendHealth::Some);
    let targets = Targets::new(vec![entry("empty", 1, 0, &[])]);
    assert_eq!(targets.health(0), BackendHealth::None);
}

#[test]
fn another_healthy_endpoint_is_a_different_one_that_gets_sessions() {
    let targets =
        Targets::new(vec![entry("open", 1, 0, &["10.0.0.1:1", "10.0.0.2:1"]), entry("closed", 0, 0, &["10.0.0.3:1"])]);
    let (one, two) = (address("10.0.0.1:1"), address("10.0.0.2:1"));
    assert!(targets.has_healthy_other(&one, 0) && targets.has_healthy_other(&two, 0));
    targets.entries[0].endpoints[1].set_checked(Checked::Down);
    assert!(!targets.has_healthy_other(&one, 0), "neither the endpoint itself nor an entry of weight 0 counts");
    assert!(targets.has_healthy_other(&two, 0));
}

#[test]
fn a_standby_is_no_other_healthy_endpoint_before_a_pick_finds_it() {
    let targets = Targets::new(vec![entry("primary", 1, 0, &["10.0.0.1:1"]), entry("standby", 1, 1, &["10.0.0.2:1"])]);
    let (primary, standby) = (address("10.0.0.1:1"), address("10.0.0.2:1"));
    assert!(!targets.has_healthy_other(&primary, 0), "a flow that leaves the primary would come back to it");
    assert!(targets.has_healthy_other(&standby, 0));
    targets.entries[0].endpoints[0].set_checked(Checked::Down);
    assert!(targets.has_healthy_other(&primary, 0) && !targets.has_healthy_other(&standby, 0));
}

#[test]
fn endpoints_with_equally_many_sessions_take_turns() {
    let idle = Targets::new(vec![entry("e", 1, 0, &["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1"])]);
    let shares = shares(&idle, Policy::LeastConnections, 40);
    assert_eq!(shares.into_values().collect::<Vec<_>>(), [10, 10, 10, 10]);
}

#[test]
fn random_chooses_the_entry_and_the_endpoint_independently() {
    let targets = Targets::new(vec![
        entry("a", 1, 0, &["10.0.0.1:1", "10.0.0.2:1"]),
        entry("b", 1, 0, &["10.0.1.1:1", "10.0.1.2:1"]),
    ]);
    let chances = [0, 1, 1 << 32, (1 << 32) + 1];
    let picked: BTreeSet<Address> =
        chances.iter().map(|chance| pick(&targets, Policy::Random, Draw { chance: *chance, ..draw(0) })).collect();
    assert_eq!(picked.len(), 4, "{picked:?}");
}

#[test]
fn of_two_equal_entries_the_second_session_goes_to_the_other_one() {
    for weight in 1..=50 {
        let entries = vec![entry("a", weight, 0, &["10.0.0.1:1"]), entry("b", weight, 0, &["10.0.0.2:1"])];
        let targets = Targets::new(entries);
        let picked = [0, 1].map(|ticket| pick(&targets, Policy::RoundRobin, draw(ticket)));
        assert_ne!(picked[0], picked[1], "weight {weight}");
    }
}

/// An endpoint behind an agent, by this instance.
fn behind(instance: &str, port: u16) -> Arc<Endpoint> {
    let (uid, agent) = ("u".into(), "shop/home".into());
    let address = AgentAddress { uid, agent, instance: instance.into(), host: "127.0.0.1".into(), port };
    Arc::new(Endpoint::new(Address::Agent(Arc::new(address))))
}

/// Targets with one entry, which these instances of an agent reach at a port.
fn tunnel(instances: &[&str], port: u16) -> Targets {
    let endpoints = instances.iter().map(|instance| behind(instance, port)).collect();
    Targets::new(vec![Entry { endpoints, ..entry("agent/shop/home/127.0.0.1:1", 1, 0, &[]) }])
}

#[test]
fn the_instances_of_an_agent_take_turns_and_a_retry_goes_to_the_other_one() {
    let targets = tunnel(&["pi4", "nas"], 1);
    let shares = shares(&targets, Policy::RoundRobin, 10);
    let texts: Vec<(String, u32)> = shares.into_iter().map(|(address, count)| (address.to_string(), count)).collect();
    let expected = ["agent/shop/home/nas/127.0.0.1:1", "agent/shop/home/pi4/127.0.0.1:1"];
    assert_eq!(texts, expected.map(|text| (text.to_owned(), 5_u32)));
    for policy in [Policy::RoundRobin, Policy::LeastConnections, Policy::Random, Policy::SourceHash] {
        let first = pick(&targets, policy, draw(0));
        let (_, second) = targets.pick(policy, draw(1), std::slice::from_ref(&first)).expect("the other one");
        assert_ne!(first, second.address, "{policy:?}");
        assert!(!targets.has_untried(0, &[first, second.address.clone()]));
    }
}

/// An entry of weight 1 with one endpoint.
fn entry_of(id: &str, priority: u32, endpoint: &Arc<Endpoint>) -> Entry {
    Entry { endpoints: vec![endpoint.clone()], ..entry(id, 1, priority, &[]) }
}

#[test]
fn an_agent_without_a_connection_gets_new_sessions_only_if_no_other_endpoint_is_healthy() {
    let [first, standby] = [("first", 1), ("standby", 2)].map(|(instance, port)| behind(instance, port));
    for priority in [0, 1] {
        let alone = Targets::new(vec![entry_of("first", 0, &first)]);
        let both = Targets::new(vec![entry_of("first", 0, &first), entry_of("standby", priority, &standby)]);
        let picked = || {
            let all = shares(&both, Policy::RoundRobin, 10);
            [&first, &standby].map(|endpoint| all.contains_key(&endpoint.address))
        };
        let usual = [true, priority == 0];
        assert_eq!(picked(), usual);
        first.set_detached(true);
        assert_eq!(picked(), [false, true], "priority {priority}");
        assert_eq!([&alone, &both].map(|it| it.health(0)), [BackendHealth::None, BackendHealth::Some]);
        assert_eq!(pick(&alone, Policy::RoundRobin, draw(0)), first.address, "a session waits");
        standby.set_detached(true);
        assert_eq!(picked(), usual, "all of them wait");
        standby.set_detached(false);
        standby.set_checked(Checked::Down);
        assert_eq!(picked(), [true, false], "priority {priority}: the other one is known to be dead");
        first.set_checked(Checked::Down);
        assert_eq!(picked(), usual, "both are");
        first.set_checked(Checked::Not);
        standby.set_checked(Checked::Not);
        first.set_detached(false);
        assert_eq!(picked(), usual);
        assert_eq!([&alone, &both].map(|it| it.health(0)), [BackendHealth::All; 2]);
    }
}

#[test]
fn an_agent_that_may_be_back_soon_comes_before_a_dead_endpoint_of_any_priority_and_retries_try_both() {
    for (of_agent, of_other) in [(0, 0), (0, 1), (1, 0)] {
        let [agent, other] = [("agent", 1), ("other", 2)].map(|(instance, port)| behind(instance, port));
        let targets = Targets::new(vec![entry_of("agent", of_agent, &agent), entry_of("other", of_other, &other)]);
        let only = |endpoint: &Arc<Endpoint>| BTreeMap::from([(endpoint.address.clone(), 10)]);
        agent.set_detached(true);
        other.set_checked(Checked::Down);
        for policy in [Policy::RoundRobin, Policy::LeastConnections, Policy::Random, Policy::SourceHash] {
            assert_eq!(shares(&targets, policy, 10), only(&agent), "{of_agent} {of_other} {policy:?}");
        }
        let tried = std::slice::from_ref(&agent.address);
        let (_, next) = targets.pick(Policy::RoundRobin, draw(0), tried).expect("the other one");
        assert!(next.address == other.address && targets.has_untried(0, tried), "{of_agent} {of_other}");
        assert!(!targets.has_healthy_other(&other.address, 0), "no flow moves to an agent that is away");
        other.set_checked(Checked::Unknown);
        assert_eq!(shares(&targets, Policy::RoundRobin, 10), only(&other), "{of_agent} {of_other}");
    }
}

#[test]
fn a_client_keeps_its_instance_on_all_ports_of_an_agent_and_when_another_one_leaves() {
    let instances = ["a", "b", "c", "d"];
    let (one, other, fewer) = (tunnel(&instances, 1), tunnel(&instances, 2), tunnel(&instances[1..], 1));
    assert_eq!(shares(&one, Policy::SourceHash, 300).len(), 4);
    for n in 0..300 {
        let instance = |targets: &Targets| match pick(targets, Policy::SourceHash, draw(n)) {
            Address::Agent(address) => address.instance.clone(),
            Address::Socket(address) => panic!("{address}"),
        };
        assert_eq!(instance(&one), instance(&other), "client {n}");
        assert!(instance(&one) == instance(&fewer) || &*instance(&one) == "a", "client {n}");
    }
}

#[test]
fn source_hash_uses_every_port_of_one_host_whether_entries_or_endpoints() {
    let ports = ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.1:82"];
    let entries = ports.iter().map(|port| entry(&format!("addr/{port}"), 1, 0, &[*port])).collect();
    assert_eq!(shares(&Targets::new(entries), Policy::SourceHash, 600).len(), 3, "entries of one host");
    let entries = vec![entry("svc/shop/pg:80", 1, 0, &ports)];
    assert_eq!(shares(&Targets::new(entries), Policy::SourceHash, 600).len(), 3, "endpoints with one address");
}

#[test]
fn source_hash_moves_only_the_clients_of_the_host_that_left() {
    let hosts = [
        ("addr/a.example:5432", "10.0.0.1:1"),
        ("addr/b.example:5432", "10.0.0.2:1"),
        ("addr/c.example:5432", "10.0.0.3:1"),
    ];
    let with = |hosts: &[(&str, &str)]| {
        Targets::new(hosts.iter().map(|(id, endpoint)| entry(id, 1, 0, &[*endpoint])).collect())
    };
    let (before, after) = (with(&hosts), with(&hosts[1..]));
    let gone = address("10.0.0.1:1");
    assert_eq!(shares(&before, Policy::SourceHash, 300).len(), 3);
    for n in 0..300 {
        let (one, two) = (pick(&before, Policy::SourceHash, draw(n)), pick(&after, Policy::SourceHash, draw(n)));
        assert!(one == two || one == gone, "client {n}");
    }
}

#[test]
fn the_sessions_of_an_endpoint_that_returns_count_and_its_health_is_noticed() {
    let first = Targets::new(vec![entry("e", 1, 0, &["10.0.0.1:1"])]);
    let endpoint = first.entries[0].endpoints[0].clone();
    let _sessions = [Counted::new(endpoint.clone()), Counted::new(endpoint.clone())];
    let without = first.followed_by(vec![entry("e", 1, 0, &["10.0.0.2:1"])], 1);
    let mut both = entry("e", 1, 0, &[]);
    both.endpoints = vec![endpoint.clone(), without.entries[0].endpoints[0].clone()];
    let after = without.followed_by(vec![both], 2);
    assert_eq!(pick(&after, Policy::LeastConnections, draw(0)), address("10.0.0.2:1"));
    after.entries[0].endpoints[1].set_checked(Checked::Down);
    assert_eq!(pick(&after, Policy::LeastConnections, draw(0)), address("10.0.0.1:1"));
    after.entries[0].endpoints[1].set_checked(Checked::Up);
    endpoint.set_checked(Checked::Down);
    assert_eq!(pick(&after, Policy::LeastConnections, draw(0)), address("10.0.0.2:1"));
}

#[test]
fn of_the_endpoints_that_left_with_sessions_a_bounded_number_is_remembered() {
    let mut targets = Targets::default();
    let mut sessions = Vec::new();
    let first = SocketAddr::from(([10, 0, 0, 1], 1));
    let last = u16::try_from(DEPARTED_MOST).expect("a port") + 1;
    for port in 1..=last {
        let joins = Arc::new(Endpoint::new(SocketAddr::new(first.ip(), port)));
        sessions.push(Counted::new(joins.clone()));
        targets = targets.followed_by(vec![Entry { endpoints: vec![joins], ..entry("e", 1, 0, &[]) }], 0);
    }
    let without = targets.followed_by(vec![entry("e", 1, 0, &[])], 0);
    assert_eq!(without.departed(), DEPARTED_MOST);
    drop(sessions);
    assert_eq!(without.followed_by(Vec::new(), 0).departed(), 0);
}
