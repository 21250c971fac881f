//! The plan of a change, beyond what `diff.rs` states: applied listeners, precedence, and which sessions are concerned.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use proxy::core::changes::diff::{
    Blocked, Concern, Desired, Facts, Lost, Running, Settled, Which, can_follow, desired, diff,
};
use proxy_api::{
    AcceptHeader, Access, Backend, Bind, Configuration, Listener, ListenerId, OnUpdate, ProxyProtocol, SendHeader,
    Sessions, SocketKey, Target, Transport,
};

const V1: &str = include_str!("../../proxy-api/tests/documents/v1.yaml");

fn id(n: u8) -> ListenerId {
    format!("ns/f/l{n}").parse().expect("a listener id")
}

fn socket(port: u16) -> SocketKey {
    SocketKey { transport: Transport::Tcp, bind: Bind::Loopback, port }
}

/// A listener on this port with these backends.
fn listener(port: u16, backends: &[&str]) -> Listener {
    let configuration = Configuration::decode(V1.as_bytes()).expect("a document of version 1");
    let template = configuration.supported().next().expect("a listener").1.clone();
    let backend = |name: &&str| Backend {
        id: (*name).to_owned(),
        weight: 1,
        priority: 0,
        check_port: None,
        target: Target::Endpoints((*name).to_owned()),
    };
    Listener { socket: socket(port), backends: backends.iter().map(backend).collect(), ..template }
}

fn world(listeners: Vec<(u8, Listener)>) -> Desired {
    listeners.into_iter().map(|(n, listener)| (id(n), Some(Arc::new(listener.sealed())))).collect()
}

fn settle(running: &Running, desired: &Desired) -> Settled {
    diff(running, desired).settle(&BTreeSet::new())
}

/// The running state after an idle proxy applied these listeners.
fn running(listeners: Vec<(u8, Listener)>) -> Running {
    settle(&Running::default(), &world(listeners)).next
}

fn client(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn with_access(allow: &[&str], deny: &[&str]) -> Listener {
    let nets = |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|text| text.parse().expect("a network")).collect() };
    let access = Access { allow: nets(allow), deny: nets(deny) };
    Listener { access: Some(Box::new(access)), ..listener(1, &["a"]) }
}

fn only(mut concerned: Vec<Concern>) -> Concern {
    assert_eq!(concerned.len(), 1, "{concerned:?}");
    concerned.remove(0)
}

#[test]
fn the_desired_state_names_every_listener_and_has_no_spec_for_an_unsupported_one() {
    let shop: ListenerId = "shop/shop-db/pg".parse().expect("a listener id");
    let configuration = Configuration::decode(V1.as_bytes()).expect("a document of version 1");
    let listener = configuration.supported().next().expect("a listener").1.clone();
    assert_eq!(desired(&configuration), BTreeMap::from([(shop.clone(), Some(Arc::new(listener)))]));
    let newer = V1.replace("policy: LeastConnections", "policy: Fastest");
    let configuration = Configuration::decode(newer.as_bytes()).expect("a document of a newer operator");
    assert_eq!(desired(&configuration), BTreeMap::from([(shop, None)]));
}

#[test]
fn the_sockets_of_ranges_are_those_of_several_ports_that_are_not_open_yet() {
    let before = running(vec![(1, listener(4, &["a"]))]);
    let range = Listener { end_port: Some(4), ..listener(3, &["a"]) };
    let wanted = world(vec![(1, range), (2, listener(9, &["a"]))]);
    let plan = diff(&before, &wanted);
    assert_eq!(plan.bind, BTreeSet::from([socket(3), socket(9)]));
    assert_eq!(plan.of_ranges(), BTreeSet::from([socket(3)]));
}

#[test]
fn the_holder_of_a_socket_keeps_it_although_a_newcomer_is_first_by_name() {
    let before = running(vec![(2, listener(1, &["a"]))]);
    let after = settle(&before, &world(vec![(1, listener(1, &["a"])), (2, listener(1, &["b"]))]));
    assert_eq!(after.blocked, BTreeMap::from([(id(1), Blocked::Held(socket(1), id(2)))]));
    assert_eq!(after.applied, BTreeSet::from([id(2)]));
    assert_eq!(after.next.sockets[&socket(1)], BTreeSet::from([id(2)]));
}

#[test]
fn of_two_newcomers_on_one_socket_the_first_by_name_gets_it() {
    let after = settle(&Running::default(), &world(vec![(1, listener(1, &["a"])), (2, listener(1, &["b"]))]));
    assert_eq!(after.blocked, BTreeMap::from([(id(2), Blocked::Held(socket(1), id(1)))]));
    assert_eq!(after.applied, BTreeSet::from([id(1)]));
}

#[test]
fn new_and_changed_listeners_are_applied_and_unchanged_ones_are_not() {
    let before = running(vec![(1, listener(1, &["a"])), (2, listener(2, &["a"]))]);
    let wanted = vec![(1, listener(1, &["a"])), (2, listener(2, &["a", "b"])), (3, listener(3, &["a"]))];
    let after = settle(&before, &world(wanted));
    assert_eq!(after.applied, BTreeSet::from([id(2), id(3)]));
    assert!(after.blocked.is_empty() && after.close.is_empty() && after.concerned.is_empty());
}

#[test]
fn a_removed_listener_concerns_all_its_sessions_by_its_last_policy_and_closes_its_socket() {
    let before = running(vec![(1, listener(1, &["a"]))]);
    let after = settle(&before, &Desired::new());
    let concern = only(after.concerned);
    assert_eq!((concern.listener, concern.which), (id(1), Which::All));
    assert_eq!(concern.policy, before.listeners[&id(1)]);
    assert_eq!(after.close, BTreeSet::from([socket(1)]));
    assert_eq!(after.next, Running::default());
}

#[test]
fn a_change_of_the_proxy_header_or_of_the_protocol_concerns_all_sessions_by_the_new_policy() {
    let protocol = ProxyProtocol { accept: AcceptHeader::Disabled, trusted: Vec::new(), send: SendHeader::V2 };
    let header = Listener { proxy_protocol: Some(Box::new(protocol)), ..listener(1, &["a"]) };
    let tls = Listener { hostnames: vec!["a.example".to_owned()], ..listener(1, &["a"]) };
    let plain = running(vec![(1, listener(1, &["a"]))]);
    for changed in [header, tls] {
        let wanted = world(vec![(1, changed.clone())]);
        let after = settle(&plain, &wanted);
        let concern = only(after.concerned);
        assert_eq!(concern.which, Which::All);
        assert_eq!(Some(&concern.policy), wanted[&id(1)].as_ref());
        let back = settle(&running(vec![(1, changed)]), &world(vec![(1, listener(1, &["a"]))]));
        assert_eq!(only(back.concerned).which, Which::All, "and back");
    }
}

#[test]
fn sessions_follow_a_listener_to_another_port_and_not_into_a_range_or_to_another_transport() {
    let before = listener(1, &["b"]);
    let range = Listener { end_port: Some(9), ..before.clone() };
    let udp = Listener { socket: SocketKey { transport: Transport::Udp, ..socket(1) }, ..before.clone() };
    assert!(can_follow(&before, &listener(2, &["c"])));
    assert!(!can_follow(&before, &range) && !can_follow(&range, &before) && !can_follow(&before, &udp));
}

#[test]
fn a_new_access_list_concerns_the_sessions_of_clients_that_it_denies() {
    let before = running(vec![(1, listener(1, &["a"]))]);
    let after = settle(&before, &world(vec![(1, with_access(&[], &["192.0.2.0/24"]))]));
    let which = only(after.concerned).which;
    let facts = |text: &str| Facts { client: client(text), backend: Some("a"), offset: 0, name: None };
    assert!(which.has(facts("192.0.2.7")));
    assert!(!which.has(facts("198.51.100.7")));
}

#[test]
fn an_access_list_that_stays_or_is_lifted_concerns_no_session() {
    let before = running(vec![(1, with_access(&["192.0.2.0/24"], &[]))]);
    let more = Listener { backends: listener(1, &["a", "b"]).backends, ..with_access(&["192.0.2.0/24"], &[]) };
    assert!(settle(&before, &world(vec![(1, more)])).concerned.is_empty());
    assert!(settle(&before, &world(vec![(1, listener(1, &["a"]))])).concerned.is_empty());
}

#[test]
fn each_loss_by_itself_selects_the_sessions_that_it_concerns_and_no_others() {
    let usual = Facts { client: client("192.0.2.1"), backend: Some("a"), offset: 1, name: Some("a.example") };
    let access = Access { allow: Vec::new(), deny: vec!["198.51.100.0/24".parse().expect("a network")] };
    let losses = [
        (Lost { gone: BTreeSet::from(["b".to_owned()]), ..Lost::default() }, Facts { backend: Some("b"), ..usual }),
        (Lost { access: Some(access), ..Lost::default() }, Facts { client: client("198.51.100.1"), ..usual }),
        (Lost { last_offset: Some(1), ..Lost::default() }, Facts { offset: 2, ..usual }),
        (
            Lost { names: Some(vec!["a.example".to_owned()]), ..Lost::default() },
            Facts { name: Some("b.example"), ..usual },
        ),
    ];
    for (lost, concerned) in losses {
        let which = Which::Some(lost);
        assert!(which.has(concerned), "{which:?}");
        assert!(!which.has(usual), "{which:?}");
    }
    assert!(Which::All.has(usual));
    assert!(!Which::Some(Lost::default()).has(usual));
}

#[test]
fn a_session_without_a_backend_or_a_server_name_is_not_concerned_by_a_lost_backend_or_name() {
    let early = Facts { client: client("192.0.2.1"), backend: None, offset: 0, name: None };
    let lost =
        Lost { gone: BTreeSet::from(["a".to_owned()]), names: Some(vec!["a.example".to_owned()]), ..Lost::default() };
    assert!(!Which::Some(lost).has(early));
}

fn with_policy(on_update: OnUpdate, drain_seconds: u32, plain: Listener) -> Listener {
    let sessions = Sessions { on_update, drain_seconds, ..plain.sessions };
    Listener { sessions, ..plain }
}

#[test]
fn a_later_policy_concerns_the_sessions_that_an_earlier_one_kept() {
    // T24: the listener went from `a` to `b` by `Keep` before.
    let now = |on_update, drain_seconds| with_policy(on_update, drain_seconds, listener(1, &["b"]));
    let settled = |before, after| settle(&running(vec![(1, before)]), &world(vec![(1, after)])).concerned;
    let usual = Facts { client: client("192.0.2.1"), backend: Some("b"), offset: 0, name: None };
    let changes = [
        (now(OnUpdate::Keep, 9), now(OnUpdate::Drain, 9)),
        (now(OnUpdate::Keep, 9), now(OnUpdate::Close, 9)),
        (now(OnUpdate::Drain, 9), now(OnUpdate::Close, 9)),
        (now(OnUpdate::Drain, 9), now(OnUpdate::Drain, 1)),
    ];
    for (before, after) in changes {
        let policy = after.sessions;
        let concern = only(settled(before, after));
        assert_eq!(concern.policy.sessions, policy);
        assert!(concern.which.has(Facts { backend: Some("a"), ..usual }), "the old backend");
        assert!(!concern.which.has(usual) && !concern.which.has(Facts { backend: None, ..usual }));
    }
    assert!(settled(now(OnUpdate::Drain, 9), now(OnUpdate::Keep, 9)).is_empty());
}

#[test]
fn a_listener_would_not_accept_sessions_of_other_clients_ports_and_names() {
    let names = vec!["a.example".to_owned()];
    let limited = Listener { end_port: Some(2), hostnames: names, ..with_access(&[], &["198.51.100.0/24"]) };
    let which = Which::Unfit(Arc::new(limited));
    let fits = Facts { client: client("192.0.2.1"), backend: Some("a"), offset: 1, name: Some("a.example") };
    assert!(!which.has(fits) && !which.has(Facts { name: None, ..fits }));
    assert!(which.has(Facts { client: client("198.51.100.1"), ..fits }));
    assert!(which.has(Facts { offset: 2, ..fits }));
    assert!(which.has(Facts { name: Some("b.example"), ..fits }));
    assert!(!Which::Unfit(Arc::new(listener(1, &["a"]))).has(Facts { offset: 0, ..fits }), "no hostnames, no names");
}
