//! One listener: its id, ports and admitted clients.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::net::IpAddr;

use ipnet::IpNet;
use proxy_api::{
    AcceptHeader, Access, Backend, Bind, Configuration, HealthCheck, Listener, ListenerId, Probe, ProxyProtocol,
    Revision, SendHeader, SocketKey, Transport,
};

fn listener() -> Listener {
    let text = include_str!("documents/v1.yaml");
    let configuration = Configuration::decode(text.as_bytes()).expect("a document of version 1");
    configuration.supported().next().expect("a listener").1.clone()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a network")).collect()
}

#[allow(clippy::unnecessary_wraps, reason = "the type of the field")]
fn header(accept: AcceptHeader, trusted: &[&str]) -> Option<Box<ProxyProtocol>> {
    Some(Box::new(ProxyProtocol { accept, trusted: nets(trusted), send: SendHeader::Disabled }))
}

#[test]
fn an_id_has_three_or_four_parts_none_of_them_empty_and_at_most_512_bytes() {
    let id: ListenerId = "shop/shop-db/pg".parse().expect("a listener id");
    assert_eq!(
        (id.origin.namespace.as_str(), id.origin.name.as_str(), id.listener.as_str()),
        ("shop", "shop-db", "pg")
    );
    assert_eq!(id.to_string(), "shop/shop-db/pg");
    assert_eq!(serde_json::to_value(&id).expect("encodes"), "shop/shop-db/pg");
    assert_eq!(serde_json::from_value::<ListenerId>("shop/shop-db/pg".into()).expect("decodes"), id);
    for text in ["", "a", "a/b", "a/b/", "a//c", "/b/c", "a/b/c/", "a/b/c/d/e", "//"] {
        assert!(text.parse::<ListenerId>().is_err(), "{text}");
        assert!(serde_json::from_value::<ListenerId>(text.into()).is_err(), "{text}");
    }
    let with_bytes = |count: usize| format!("a/b/{}", "c".repeat(count - 4)).parse::<ListenerId>();
    assert!(with_bytes(512).is_ok());
    let error = with_bytes(513).expect_err("too long").to_string();
    assert!(error.contains("a/b/ccc") && error.len() < 200, "{error}");
}

#[test]
fn sockets_and_revisions_are_named_as_in_logs_and_messages() {
    let socket = |transport, bind, port| SocketKey { transport, bind, port }.to_string();
    assert_eq!(socket(Transport::Udp, Bind::Loopback, 53), "127.0.0.1:53/UDP");
    assert_eq!(socket(Transport::Tcp, Bind::All, 443), "*:443/TCP");
    assert_eq!(Revision("d2c9".into()).to_string(), "d2c9");
}

#[test]
fn a_listener_has_one_socket_for_each_port_of_its_range() {
    let single = listener();
    assert_eq!((single.further_ports(), single.place().as_str()), (0, "127.0.0.1:5432/TCP"));
    assert_eq!(single.sockets().collect::<Vec<_>>(), [single.socket]);
    let range = Listener { end_port: Some(5434), ..listener() };
    assert_eq!((range.further_ports(), range.place().as_str()), (2, "127.0.0.1:5432-5434/TCP"));
    let ports: Vec<u16> = range.sockets().map(|socket| socket.port).collect();
    assert_eq!(ports, [5432, 5433, 5434]);
    assert!(range.sockets().all(|socket| socket.bind == Bind::Loopback && socket.transport == Transport::Tcp));
    let inverted = Listener { end_port: Some(5431), ..listener() };
    assert_eq!(inverted.further_ports(), 0);
}

#[test]
fn headers_are_read_unless_disabled_and_only_from_trusted_peers() {
    let with = |proxy_protocol| Listener { proxy_protocol, ..listener() };
    assert_eq!(listener().header(), None);
    assert_eq!(with(header(AcceptHeader::Disabled, &["10.0.0.0/8"])).header(), None);
    let optional = with(header(AcceptHeader::Optional, &["10.0.0.0/8"]));
    assert_eq!(optional.header(), Some((AcceptHeader::Optional, &nets(&["10.0.0.0/8"])[..])));
    let protocol = optional.proxy_protocol.expect("header settings");
    assert!(protocol.trusts(ip("10.1.2.3")) && protocol.trusts(ip("::ffff:10.1.2.3")));
    assert!(!protocol.trusts(ip("192.0.2.1")) && !protocol.trusts(ip("2001:db8::1")));
    assert!(!ProxyProtocol::default().trusts(ip("10.1.2.3")), "no peer is trusted by default");
}

#[test]
fn listeners_share_a_port_if_both_have_hostnames_none_in_common_and_read_headers_alike() {
    let named =
        |names: &[&str]| Listener { hostnames: names.iter().map(|name| (*name).to_owned()).collect(), ..listener() };
    let (one, other) = (named(&["a.example", "b.example"]), named(&["*.example", "c.example"]));
    assert!(one.shares_with(&other) && other.shares_with(&one));
    let common = named(&["c.example", "b.example"]);
    assert!(!one.shares_with(&common) && !common.shares_with(&one));
    assert!(!one.shares_with(&listener()) && !listener().shares_with(&one) && !listener().shares_with(&listener()));
    let trusting = |net: &str| Listener { proxy_protocol: header(AcceptHeader::Required, &[net]), ..other.clone() };
    assert!(!one.shares_with(&trusting("10.0.0.0/8")) && !trusting("10.0.0.0/8").shares_with(&one));
    let one = Listener { proxy_protocol: header(AcceptHeader::Required, &["10.0.0.0/8"]), ..one };
    assert!(one.shares_with(&trusting("10.0.0.0/8")) && !one.shares_with(&trusting("172.16.0.0/12")));
}

#[test]
fn an_empty_list_admits_everyone_and_a_denied_network_is_refused_even_if_allowed() {
    let access = |allow: &[&str], deny: &[&str]| Access { allow: nets(allow), deny: nets(deny) };
    assert!(access(&[], &[]).admits(ip("192.0.2.1")));
    let allowing = access(&["192.0.2.0/24"], &[]);
    assert!(allowing.admits(ip("192.0.2.1")) && allowing.admits(ip("::ffff:192.0.2.1")));
    assert!(!allowing.admits(ip("198.51.100.1")));
    let denying = access(&[], &["192.0.2.0/24"]);
    assert!(denying.admits(ip("198.51.100.1")) && !denying.admits(ip("192.0.2.1")));
    let both = access(&["192.0.2.0/24"], &["192.0.2.128/25"]);
    assert!(both.admits(ip("192.0.2.1")) && !both.admits(ip("192.0.2.129")) && !both.admits(ip("198.51.100.1")));
}

#[test]
fn a_check_connects_to_the_port_of_the_backend_or_else_to_that_of_all_checks() {
    let check = |port| HealthCheck {
        probe: Probe::Tcp,
        port,
        interval_seconds: 5,
        timeout_seconds: 2,
        unhealthy_threshold: 3,
        healthy_threshold: 2,
    };
    let checked = |check: Option<HealthCheck>, of_backend| {
        let listener = Listener { health_check: check.map(Box::new), ..listener() };
        let backend = Backend { check_port: of_backend, ..listener.backends[0].clone() };
        listener.checked_port(&backend)
    };
    assert_eq!(checked(Some(check(Some(8008))), None), Some(8008));
    assert_eq!(checked(Some(check(Some(8008))), Some(9009)), Some(9009));
    assert_eq!(checked(Some(check(None)), None), None, "the port of the endpoint");
    assert_eq!(checked(None, Some(9009)), None, "nothing is checked");
}
