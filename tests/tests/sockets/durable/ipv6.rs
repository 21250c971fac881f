//! Clients and sinks that have IPv6 addresses.

use std::{
    io::Write,
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use harness::{Listener, forward, free_port, until};
use serde_json::json;
use tempfile::tempdir;

use super::{COUNT, Sink, http, messages, run, until_kept};

/// What listeners of this test keep, and how soon it is on disk.
const KEPT: &str = "syncMillis: 0, store: {disk: {maxBytes: 16777216}}";

/// A port of this machine by IPv6.
fn at(port: u16) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, port).into()
}

/// A listener that sends in this way to a port of this machine by IPv6.
fn durable(listener: Listener, to: u16, send: &str) -> Listener {
    let listener = listener.backend(&format!("address: {{host: '::1', port: {to}}}"));
    listener.with(&format!("durable: {{{send}, {KEPT}}}"))
}

#[test]
fn messages_of_ipv6_clients_survive_a_crash_and_arrive_at_ipv6_sinks_in_order_with_their_address() {
    if let Err(error) = TcpListener::bind(at(0)) {
        return eprintln!("not tested: no IPv6 on this machine: {error}");
    }
    let (udp, tcp, health, data) = (free_port(), free_port(), free_port(), tempdir().expect("a folder"));
    let (to_relp, to_http) = (free_port(), free_port());
    let listeners = [
        durable(Listener::tcp("t", tcp), to_relp, "send: {relp: {}}"),
        durable(Listener::udp("u", udp), to_http, "send: {http: {lingerMillis: 0}}, enrich: {}"),
    ];
    let manifests = forward("f", "", &listeners);
    let program = run(&manifests, health, data.path());
    let (lines, datagrams) = (messages("line"), messages("datagram"));
    let mut client = TcpStream::connect(at(tcp)).expect("a connection");
    client.write_all((lines.join("\n") + "\n").as_bytes()).expect("it is sent");
    let socket = UdpSocket::bind(at(0)).expect("a port");
    for datagram in &datagrams {
        socket.send_to(datagram.as_bytes(), at(udp)).expect("it is sent");
    }
    until_kept(health, "t", COUNT);
    until_kept(health, "u", COUNT);
    drop(client);
    drop(program.kill());
    let _program = run(&manifests, health, data.path());
    let (over_relp, over_http) = (Sink::start_at(at(to_relp)), http::Sink::start_at(at(to_http)));
    until("the sinks have all messages", || over_relp.taken("").len() >= COUNT && over_http.taken().len() >= COUNT);
    assert_eq!(over_relp.taken(""), lines);
    let taken = over_http.taken();
    let got: Vec<&str> = taken.iter().filter_map(|object| object["message"].as_str()).collect();
    assert_eq!(got, datagrams);
    assert!(taken.iter().all(|object| object["client"] == json!("::1")), "{taken:?}");
}
