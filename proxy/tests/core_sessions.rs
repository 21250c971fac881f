//! Around a session: the health of its endpoint, the table of flows, end reasons and the load of a forward.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod document;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use document::template;
use proptest::{collection::vec, prelude::*};
use proxy::core::{
    backends::{
        damped::Damped,
        endpoint::{Checked, Counted, Endpoint},
    },
    limits::{limiter::Refusal, session_room::SessionRoom, session_sources::SessionSources},
    sessions::end::{EndReason, spread},
    udp::flows::{FlowKey, FlowTable, Full},
    workers::{
        load::{ByForward, Counts, Summing},
        rounds::{Occupied, SLICES, first_slice},
    },
};
use proxy_api::{
    AcceptHeader, Backend, BackendHealth, Destinations, Limits, Listener, MAX_LOADS, OnLimit, Outlier, ProxyProtocol,
    SendHeader, Target, Timeouts, Work,
};

fn endpoint() -> Endpoint {
    Endpoint::new(SocketAddr::from(([10, 0, 0, 1], 5432)))
}

fn key(port: u16) -> FlowKey {
    FlowKey { client: SocketAddr::from(([10, 0, 0, 1], port)), local: None }
}

#[test]
fn every_reason_has_its_own_name_and_position() {
    for (at, reason) in EndReason::ALL.iter().enumerate() {
        assert_eq!(reason.as_str(), format!("{reason:?}"));
        assert_eq!(reason.index(), at);
    }
    let names: BTreeSet<&str> = EndReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(names.len(), EndReason::ALL.len());
}

#[test]
fn a_session_is_refused_before_it_could_use_a_backend() {
    let refused = [EndReason::AccessDenied, EndReason::ConnectionLimit, EndReason::BadHeader, EndReason::SourceShare];
    assert!(refused.into_iter().all(EndReason::is_refusal));
    let others = [EndReason::Finished, EndReason::NoBackend, EndReason::NoInstance, EndReason::ClientReset];
    assert!(!others.into_iter().any(EndReason::is_refusal));
}

#[test]
fn a_refusal_ends_a_session_for_the_reason_of_its_limit() {
    assert_eq!(EndReason::from(Refusal::Connections), EndReason::ConnectionLimit);
    assert_eq!(EndReason::from(Refusal::Source), EndReason::SourceLimit);
    assert_eq!(EndReason::from(Refusal::Rate), EndReason::RateLimit);
    assert_eq!(EndReason::from(Refusal::QueueFull), EndReason::QueueFull);
    assert_eq!(EndReason::from(Refusal::Tenant), EndReason::TenantLimit);
}

#[test]
fn only_finished_idle_and_probing_sessions_end_without_a_reset() {
    let clean: Vec<EndReason> = EndReason::ALL.into_iter().filter(|reason| reason.is_clean()).collect();
    assert_eq!(clean, [EndReason::Finished, EndReason::Idle, EndReason::Probe]);
}

fn possible(listener: &Listener) -> BTreeSet<EndReason> {
    EndReason::ALL.into_iter().filter(|reason| reason.is_possible(listener)).collect()
}

const OF_HEADERS: [EndReason; 5] = [
    EndReason::UntrustedPeer,
    EndReason::BadHeader,
    EndReason::HandshakeTimeout,
    EndReason::HandshakeLimit,
    EndReason::Probe,
];

#[test]
fn reasons_of_a_setting_are_possible_only_for_listeners_with_that_setting() {
    let header = |accept| {
        let protocol = ProxyProtocol { accept, trusted: Vec::new(), send: SendHeader::V1 };
        Listener { proxy_protocol: Some(Box::new(protocol)), ..template() }
    };
    let limited = |limits: Limits| Listener { limits: Some(Box::new(limits)), ..template() };
    let usual = possible(&template());
    let no_setting: Vec<EndReason> = EndReason::ALL.into_iter().filter(|reason| !usual.contains(reason)).collect();
    assert_eq!(
        no_setting,
        [
            EndReason::NoInstance,
            EndReason::AccessDenied,
            EndReason::Loop,
            EndReason::UntrustedPeer,
            EndReason::BadHeader,
            EndReason::HandshakeTimeout,
            EndReason::HandshakeLimit,
            EndReason::Probe,
            EndReason::ConnectionLimit,
            EndReason::SourceLimit,
            EndReason::RateLimit,
            EndReason::QueueFull,
            EndReason::QueueTimeout,
            EndReason::TenantLimit,
            EndReason::MaxSession,
        ]
    );
    let timeouts = Timeouts { max_session_seconds: Some(60), ..template().timeouts };
    let target = Target::Tunnel { agent: "u".to_owned(), host: "db.lan".to_owned(), port: 5432 };
    let backends = vec![Backend { target, weight: 1, ..template().backends[0].clone() }];
    let gateway = Destinations { refuse_local: true, ..Destinations::default() };
    for (listener, expected) in [
        (Listener { access: Some(Box::default()), ..template() }, vec![EndReason::AccessDenied]),
        (Listener { backends, ..template() }, vec![EndReason::NoInstance, EndReason::QueueFull]),
        (Listener { destinations: gateway, ..template() }, vec![EndReason::Loop]),
        (header(AcceptHeader::Disabled), vec![]),
        (header(AcceptHeader::Optional), OF_HEADERS.to_vec()),
        (header(AcceptHeader::Required), OF_HEADERS.to_vec()),
        (limited(Limits::default()), vec![]),
        (limited(Limits { max_connections: Some(1), ..Limits::default() }), vec![EndReason::ConnectionLimit]),
        (
            limited(Limits { on_limit: OnLimit::Queue, ..Limits::default() }),
            vec![EndReason::QueueFull, EndReason::QueueTimeout],
        ),
        (limited(Limits { max_connections_per_source: Some(1), ..Limits::default() }), vec![EndReason::SourceLimit]),
        (limited(Limits { new_connections_per_second: Some(1), ..Limits::default() }), vec![EndReason::RateLimit]),
        (Listener { tenant_limits: Some(Box::default()), ..template() }, vec![EndReason::TenantLimit]),
        (Listener { timeouts, ..template() }, vec![EndReason::MaxSession]),
    ] {
        let found: Vec<EndReason> = possible(&listener).difference(&usual).copied().collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn the_sessions_of_a_drain_end_evenly_and_the_last_one_at_its_deadline() {
    assert_eq!([0, 1, 2, 3].map(|at| spread(at, 4, 1000)), [250, 500, 750, 1000]);
    assert_eq!(spread(0, 0, 1000), 1000, "a session outside the count");
    assert_eq!(spread(0, 1, u64::MAX), u64::MAX);
}

#[test]
fn an_endpoint_is_ejected_once_however_many_sessions_fail_meanwhile() {
    let (endpoint, outlier) = (endpoint(), Outlier { consecutive_failures: 2, eject_seconds: 10 });
    assert!(!endpoint.failed(outlier, 0));
    assert!(endpoint.failed(outlier, 0));
    assert!(!endpoint.failed(outlier, 1), "already ejected, and now for longer");
    assert!(!endpoint.is_healthy(11) && endpoint.is_healthy(12), "never too short, although seconds are cut");
}

#[test]
fn the_result_of_a_check_replaces_the_previous_one_which_is_returned() {
    let endpoint = endpoint();
    let mut before = Checked::Not;
    for found in [Checked::Unknown, Checked::Up, Checked::Down, Checked::Not] {
        assert_eq!(endpoint.set_checked(found), before);
        assert_eq!(endpoint.checked(), found);
        before = found;
    }
}

#[test]
fn a_session_counts_for_its_endpoint_until_it_ends() {
    let endpoint = Arc::new(endpoint());
    let (one, two) = (Counted::new(endpoint.clone()), Counted::new(endpoint.clone()));
    assert_eq!(endpoint.active.load(Relaxed), 2);
    drop(one);
    assert_eq!(endpoint.active.load(Relaxed), 1);
    drop(two);
    assert_eq!(endpoint.active.load(Relaxed), 0);
}

#[test]
fn a_flow_is_found_by_its_key_until_it_is_removed() {
    let mut table = FlowTable::new(2);
    assert!(table.is_empty() && table.get(&key(1)).is_none());
    assert_eq!(table.insert(key(1), 'a', 0), Ok(None));
    assert!(!table.is_empty());
    assert_eq!((table.get(&key(1)), table.get(&key(2))), (Some(&'a'), None));
    assert_eq!(table.insert(key(1), 'b', 0), Ok(Some('a')), "the flow that was replaced");
    assert_eq!((table.get(&key(1)), table.len()), (Some(&'b'), 1));
    assert_eq!(table.remove(&key(1)), Some('b'));
    assert!(table.is_empty() && table.remove(&key(1)).is_none());
}

#[test]
fn a_full_table_has_room_once_its_oldest_flow_was_idle_for_a_second() {
    let mut table = FlowTable::new(2);
    assert!(table.has_room(0));
    assert_eq!(table.evict(5000), None);
    assert_eq!(table.insert(key(1), 1, 0), Ok(None));
    assert!(table.has_room(0), "one of two places is free");
    assert_eq!(table.insert(key(2), 2, 500), Ok(None));
    assert!(!table.has_room(999));
    assert_eq!((table.evict(999), table.insert(key(3), 3, 999)), (None, Err(Full)));
    assert!(table.has_room(1000));
    assert_eq!((table.evict(1000), table.len()), (Some(1), 1));
}

#[test]
fn flows_that_match_are_removed_and_the_others_keep_their_order() {
    let mut table = FlowTable::new(9);
    for port in 1..=5 {
        assert_eq!(table.insert(key(port), port, u64::from(port)), Ok(None));
    }
    let listed = |table: &FlowTable<u16>| {
        let mut all: Vec<(u16, u16)> = table.iter().map(|(key, value)| (key.client.port(), *value)).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(listed(&table), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
    let mut removed = table.remove_where(|port| port % 2 == 1);
    removed.sort_unstable();
    assert_eq!(removed, [1, 3, 5]);
    assert_eq!(listed(&table), [(2, 2), (4, 4)]);
    assert_eq!((table.expire(9, 0), table.expire(9, 0), table.expire(9, 0)), (Some(2), Some(4), None));
}

#[test]
fn each_flow_is_in_one_slice_of_the_round_and_no_slice_has_much_more_than_its_share() {
    let count = 20_000;
    let occupied = Rc::new(Occupied::default());
    let mut table = FlowTable::swept(usize::MAX, occupied.clone(), 3);
    for port in 0..count {
        assert_eq!(table.insert(key(port), port, u64::from(port)), Ok(None));
    }
    let mut visited: Vec<(u16, u64)> = Vec::new();
    for slice in 0..SLICES {
        let flows: Vec<(u16, u64)> = table.in_slice(slice).map(|(port, used)| (*port, used)).collect();
        assert!(flows.len() <= usize::from(count).div_ceil(SLICES) + 256, "{}", flows.len());
        assert_eq!(occupied.has(slice), !flows.is_empty());
        visited.extend(flows);
    }
    visited.sort_unstable();
    assert!(visited.into_iter().eq((0..count).map(|port| (port, u64::from(port)))));
    table.remove_where(|port| *port >= 10);
    assert!((0..SLICES).filter(|slice| occupied.has(*slice)).eq([3]), "the first places are in the fourth slice");
}

#[test]
fn many_sockets_with_few_flows_each_are_spread_over_the_round() {
    assert!((0..16).all(|sockets| first_slice(sockets) == 0), "a worker with few sockets wakes once a round");
    let slices: BTreeSet<usize> = (0..16 * SLICES).map(first_slice).collect();
    assert_eq!(slices.len(), SLICES);
}

#[test]
fn the_reported_health_is_the_last_one_that_lasted_three_seconds() {
    let mut damped = Damped::default();
    assert_eq!(damped.reported(), BackendHealth::All);
    let changes: Vec<bool> = (0..4).map(|now| damped.observe(BackendHealth::None, now)).collect();
    assert_eq!((changes, damped.reported()), (vec![false, false, false, true], BackendHealth::None));
    assert!(!damped.observe(BackendHealth::None, 9), "no news");
}

#[test]
fn as_many_forwards_as_allowed_are_reported_one_by_one() {
    let counts = Counts { live: 2, begun: 3, bytes: 5 };
    let forwards: ByForward = (0..MAX_LOADS).map(|n| (format!("ns/{n}"), counts)).collect();
    let (load, _) = Summing::of(ByForward::new(), forwards, 1.0).step(usize::MAX).expect("the only step");
    assert_eq!(load.forwards.len(), MAX_LOADS);
    let all = MAX_LOADS as u64;
    assert_eq!(load.sum, Work { connections: 2 * all, new_per_second: 3 * all, bytes_per_second: 5 * all });
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Sessions that come from a source one by one, until one is refused or the room of `most` is full with `used` before.
fn fill(sources: &SessionSources, source: &str, (used, most): (usize, usize)) -> usize {
    let enter = |at: &usize| sources.enter(ip(source), SessionRoom { most, free: most - used - at });
    (1..=most - used).take_while(enter).count()
}

#[test]
fn a_source_leaves_a_quarter_of_the_sessions_to_others_and_each_next_one_a_larger_part_of_the_rest() {
    let sources = SessionSources::default();
    assert_eq!(fill(&sources, "192.0.2.1", (0, 16)), 12);
    assert!(!sources.enter(ip("192.0.2.1"), SessionRoom { most: 16, free: 3 }));
    assert_eq!(fill(&sources, "192.0.2.2", (12, 16)), 2);
    assert_eq!(fill(&sources, "192.0.2.3", (14, 16)), 1);
    assert_eq!(fill(&sources, "192.0.2.1", (15, 16)), 0, "the last one is for a source without sessions");
    assert_eq!(fill(&sources, "192.0.2.4", (15, 16)), 1);
    assert!(sources.enter(ip("192.0.2.1"), SessionRoom { most: 16, free: 4 }), "there is room again");
}

/// Sessions that are free in a process with room for `most` once so many sources have taken all they can, one by one.
fn free_beside(count: u8, most: usize) -> usize {
    let sources = SessionSources::default();
    let takes = |used: usize, last: u8| used + fill(&sources, &format!("192.0.2.{last}"), (used, most));
    most - (1..=count).fold(0, takes)
}

#[test]
fn fifty_sources_that_take_all_they_can_leave_room_to_others() {
    let most = 25_000;
    assert_eq!([1, 2, 3].map(|count| free_beside(count, most)), [6250, 3354, 2353]);
    assert_eq!([20, 50, 73].map(|count| free_beside(count, most)), [628, 370, 278]);
}

#[test]
fn a_process_with_room_for_a_single_session_serves_it() {
    for most in [0, 1] {
        assert!(SessionSources::default().enter(ip("192.0.2.1"), SessionRoom { most, free: 0 }));
    }
}

// C3
#[test]
fn in_an_ipv6_64_a_source_leaves_sessions_to_its_neighbours_and_all_of_them_leave_some_to_others() {
    let sources = SessionSources::default();
    assert_eq!(fill(&sources, "2001:db8::1", (0, 64)), fill(&SessionSources::default(), "192.0.2.1", (0, 64)));
    assert_eq!(fill(&sources, "2001:db8::2", (48, 64)), 4, "a neighbour has some of the rest");
    assert_eq!(fill(&sources, "2001:db8::3", (52, 64)), 0, "what is left now is for other networks");
    assert_eq!(fill(&sources, "2001:db8:0:1::1", (52, 64)), 5);
    assert_eq!(fill(&sources, "192.0.2.1", (57, 64)), 2);
    (0..24).for_each(|_| sources.leave(ip("2001:db8::1")));
    assert!(sources.enter(ip("2001:db8::3"), SessionRoom { most: 64, free: 28 }), "there is room again");
}

#[test]
fn a_source_is_an_address_and_loopback_is_none() {
    let sources = SessionSources::default();
    let full = SessionRoom { most: 2, free: 0 };
    assert!(sources.enter(ip("2001:db8::1"), full));
    assert!(sources.enter(ip("2001:db8:0:1::1"), full));
    for source in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        assert!((0..9).all(|_| sources.enter(ip(source), full)), "{source}");
        sources.leave(ip(source));
    }
    assert_eq!(sources.len(), 2);
}

#[test]
fn the_table_of_sources_holds_those_with_sessions_only() {
    let sources = SessionSources::default();
    let room = SessionRoom { most: 10_000, free: 10_000 };
    let all = || (0..1000_u32).map(|at| IpAddr::from(at.wrapping_mul(0x0100_0193).to_be_bytes()));
    let clients: BTreeSet<IpAddr> = all().filter(|source| !source.is_loopback()).collect();
    for _ in 0..2 {
        assert!(clients.iter().all(|source| sources.enter(*source, room)));
    }
    assert_eq!(sources.len(), clients.len());
    for _ in 0..2 {
        for source in &clients {
            sources.leave(*source);
        }
    }
    assert!(sources.is_empty());
    sources.leave(ip("192.0.2.1"));
    assert!(sources.is_empty(), "a session that has not entered");
}

proptest! {
    #[test]
    fn what_a_source_counts_for_is_what_it_holds_however_sources_come_and_go(
        steps in vec((0_u8..6, 0_usize..200, any::<bool>()), 0..40),
    ) {
        let (sources, most) = (SessionSources::default(), 128_usize);
        let mut held = [0_usize; 6];
        for (last, sessions, comes) in steps {
            let (source, who) = (IpAddr::from([192, 0, 2, last]), usize::from(last));
            for _ in 0..sessions {
                if comes {
                    let Some(free) = most.checked_sub(held.iter().sum::<usize>() + 1) else { break };
                    let room = SessionRoom { most, free };
                    let is_admitted = sources.enter(source, room);
                    prop_assert_eq!(is_admitted, room.admits(held[who]));
                    held[who] += usize::from(is_admitted);
                } else {
                    // Also for sessions that it does not have: no count falls below none.
                    sources.leave(source);
                    held[who] = held[who].saturating_sub(1);
                }
            }
            prop_assert_eq!(sources.len(), held.iter().filter(|sessions| **sessions > 0).count());
        }
    }
}
