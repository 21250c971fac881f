//! A backend that leads back to the proxy through an address that is not the proxy's own, as a load balancer does, or a
//! proxy of another fleet.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
};

use harness::{
    Backend, Behaviour, Program, UdpEcho, client_hello, connect, free_port, http_get, metric, round_trip, until,
};
use socket2::{Domain, Socket, Type};

/// The address from which the load balancer connects to the proxy: that of another pod of the fleet.
const POD: [u8; 4] = [127, 0, 0, 2];

/// A load balancer that sends every connection to this port of the proxy and reads until the proxy ends it.
fn balancer(port: u16) -> Backend {
    balancer_at(POD, port, Vec::new())
}

/// A load balancer that connects from this address and first sends these bytes.
fn balancer_at(address: [u8; 4], port: u16, first: Vec<u8>) -> Backend {
    let forward = move |_client: TcpStream| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.bind(&SocketAddr::from((address, 0)).into()).expect("bind");
        if socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).is_ok() {
            let mut stream = TcpStream::from(socket);
            let _ = stream.write_all(&first);
            let _ = stream.set_read_timeout(Some(harness::PATIENCE));
            let _ = stream.read(&mut [0; 1]);
        }
    };
    Backend::start(Behaviour::Run(Arc::new(forward)))
}

/// A configuration of one listener whose backend is the load balancer, with one reserved endpoint set.
fn document(port: u16, balancer: u16, set: &str, address: &str) -> String {
    document_with(port, balancer, (set, address), "")
}

/// As [`document`], with more fields of the listener.
fn document_with(port: u16, balancer: u16, set: (&str, &str), more: &str) -> String {
    configuration(&listener("ns/f/l", ("TCP", port), balancer, more), set)
}

/// A configuration of these listeners with one reserved endpoint set.
fn configuration(listeners: &str, (set, address): (&str, &str)) -> String {
    format!("contract: 1\nlisteners:\n{listeners}endpoints:\n  {set}: {{addresses: ['{address}']}}\n")
}

/// A listener of a configuration, with the port of its backend and more of its fields.
fn listener(id: &str, (transport, port): (&str, u16), backend: u16, more: &str) -> String {
    format!(
        "  {id}:
    revision: r1
    socket: {{transport: {transport}, bind: Loopback, port: {port}}}
    backends:
    - {{id: 'addr/127.0.0.1:{backend}', weight: 1, target: {{address: {{host: 127.0.0.1, port: {backend}}}}}}}
    policy: RoundRobin
    outlier: {{consecutiveFailures: 5, ejectSeconds: 30}}
    timeouts: {{connectSeconds: 5, idleSeconds: 3600, halfCloseSeconds: 300, udpIdleSeconds: 60, keepaliveSeconds: 60}}
    retry: {{attempts: 1, initialBackoffMillis: 50, maxBackoffMillis: 2000}}
    sessions: {{onUpdate: Keep, onUnhealthy: Keep, drainSeconds: 300}}
    accessLog: {{mode: Close, intervalSeconds: 0}}
    destinations: {{refuseLocal: false, cidrs: []}}
{more}"
    )
}

/// Labels of the series of the listener.
const LABELS: &str = "kind=\"PortForward\",namespace=\"ns\",forward=\"f\",listener=\"l\"";

fn count(health: u16, family: &str, reason: &str) -> Option<f64> {
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    metric(&text, &format!("{family}{{{LABELS},reason=\"{reason}\"}}"))
}

/// Waits until the report of a proxy, as its operator gets it, says this of a listener.
fn reports(admin: u16, what: &str) {
    until("it is reported", || http_get(admin, "/listeners").expect("a report").1.contains(what));
}

/// What a report says of a listener that ended a loop.
const LOOPED: &str = "\"looped\": true";

/// The sessions that the listener has begun, with those that it has refused.
fn opened(health: u16) -> Option<f64> {
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    metric(&text, &format!("portlane_connections_opened_total{{{LABELS}}}"))
}

// D1, T16
#[test]
fn a_load_balancer_in_front_of_the_own_fleet_is_not_connected_to() {
    let (port, health) = (free_port(), free_port());
    let balancer = balancer(port);
    let front = format!("127.0.0.1:{}", balancer.port);
    let program = Program::proxy(&document(port, balancer.port, "fronts", &front), health, free_port(), &[]);
    connect(port).and_then(|mut client| round_trip(&mut client, b"x")).expect_err("there is no other backend");
    until("the session has ended", || count(health, "portlane_connections_closed_total", "NoBackend") == Some(1.0));
    assert_eq!(count(health, "portlane_backend_endpoints_refused", "Loop"), Some(1.0));
    assert_eq!(balancer.count(), 0, "the load balancer is left alone");
    drop(program);
}

// D1, T16
#[test]
fn a_connection_that_comes_back_through_a_load_balancer_that_nobody_knows_ends_there_and_is_reported() {
    let (port, health, admin) = (free_port(), free_port(), free_port());
    let balancer = balancer(port);
    let pod = SocketAddr::from((POD, 0)).to_string();
    let program = Program::proxy(&document(port, balancer.port, "fleet", &pod), health, admin, &[]);
    let mut client = connect(port).expect("connect");
    until("the connection that came back is closed", || {
        count(health, "portlane_connections_closed_total", "Loop") == Some(1.0)
    });
    assert!(client.read(&mut [0; 1]).map_or(0, |read| read) == 0, "nothing answers");
    assert_eq!(balancer.count(), 1, "it went round once");
    reports(admin, LOOPED);
    drop(program);
}

/// A socket of this address for the datagrams of one flow to this port.
fn datagrams(address: [u8; 4], port: u16) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::from((address, 0))).expect("bind");
    socket.connect(("127.0.0.1", port)).expect("connect");
    socket.set_read_timeout(Some(harness::PATIENCE)).expect("option");
    socket
}

// D1, T16
#[test]
fn a_datagram_that_comes_back_through_a_load_balancer_that_nobody_knows_is_dropped_there_and_reported() {
    let (port, health, admin) = (free_port(), free_port(), free_port());
    let balancer = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    balancer.set_read_timeout(Some(harness::PATIENCE)).expect("option");
    let to = balancer.local_addr().expect("address").port();
    let pod = SocketAddr::from((POD, 0)).to_string();
    let document = configuration(&listener("ns/f/l", ("UDP", port), to, ""), ("fleet", &pod));
    let program = Program::proxy(&document, health, admin, &[]);
    let client = datagrams([127, 0, 0, 1], port);
    client.send(b"x").expect("send");
    assert_eq!(balancer.recv(&mut [0; 8]).expect("the load balancer has the datagram"), 1);
    let back = datagrams(POD, port);
    back.send(b"x").expect("send");
    until("the datagram that came back is dropped", || {
        count(health, "portlane_datagrams_dropped_total", "Loop") == Some(1.0)
    });
    assert_eq!(opened(health), Some(1.0), "it went round once");
    reports(admin, LOOPED);
    drop(program);
}

/// The header of a load balancer that names this client.
fn header(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.9 1111 443\r\n").into_bytes()
}

/// Sends `said` to a proxy with these fields of its listener, behind a load balancer, and waits until the connection that
/// came back is closed.
fn goes_round_once(more: &str, said: &[u8], balancer: impl Fn(u16) -> Backend) {
    let (port, health) = (free_port(), free_port());
    let balancer = balancer(port);
    let pod = SocketAddr::from((POD, 0)).to_string();
    let document = document_with(port, balancer.port, ("fleet", &pod), more);
    let program = Program::proxy(&document, health, free_port(), &[]);
    let mut client = connect(port).expect("connect");
    client.write_all(said).expect("write");
    until("the connection that came back is closed", || {
        count(health, "portlane_connections_closed_total", "Loop") == Some(1.0)
    });
    assert_eq!(balancer.count(), 1, "it went round once");
    drop(program);
}

#[test]
fn a_connection_that_comes_back_ends_also_if_only_the_header_of_the_load_balancer_tells() {
    let more = "    proxyProtocol: {accept: Required, trusted: [127.0.0.0/8]}\n";
    let balancer = |port| balancer_at([127, 0, 0, 3], port, header("127.0.0.2"));
    goes_round_once(more, &header("192.0.2.1"), balancer);
}

#[test]
fn a_connection_that_comes_back_to_a_server_name_ends_although_its_header_names_another_client() {
    let more = "    hostnames: [a.example]\n    proxyProtocol: {accept: Required, trusted: [127.0.0.0/8]}\n";
    let said = [header("192.0.2.1"), client_hello(b"a.example")].concat();
    let again = said.clone();
    goes_round_once(more, &said, move |port| balancer_at(POD, port, again.clone()));
}

// D1, T16
#[test]
fn a_loop_that_hides_its_source_ends_before_it_has_taken_all_sessions_and_its_limit_is_reported() {
    let (port, health, admin) = (free_port(), free_port(), free_port());
    // As a node that translates source addresses: no address of the fleet, and always the same one.
    let balancer = balancer_at([127, 0, 0, 3], port, header("192.0.2.77"));
    let more = "    proxyProtocol: {accept: Required, trusted: [127.0.0.0/8]}\n";
    let document = document_with(port, balancer.port, ("fleet", "127.0.0.2:0"), more);
    let arguments = ["--max-sessions", "16", "--workers", "1"];
    let program = Program::proxy(&document, health, admin, &arguments);
    let mut client = connect(port).expect("connect");
    client.write_all(&header("192.0.2.1")).expect("write");
    until("the loop is refused", || count(health, "portlane_connections_closed_total", "SourceShare") == Some(1.0));
    assert!(client.read(&mut [0; 1]).map_or(0, |read| read) == 0, "the loop ends with its last session");
    assert_eq!(balancer.count(), 12, "a quarter of the sessions is left to others");
    reports(admin, "\"reached\": \"Source\"");
    drop(program);
}

#[test]
fn a_loop_through_two_fleets_ends_before_it_has_taken_all_sessions_of_either() {
    let (ports, healths) = ([free_port(), free_port()], [free_port(), free_port()]);
    // The client that the headers name is the one source of all rounds.
    let more = "    proxyProtocol: {accept: Required, trusted: [127.0.0.0/8], send: V1}\n";
    // Each proxy knows its own fleet only, and leads to the other proxy.
    let start = |at: usize| {
        let document = document_with(ports[at], ports[1 - at], ("fleet", "127.0.0.2:0"), more);
        Program::proxy(&document, healths[at], free_port(), &["--max-sessions", "16", "--workers", "1"])
    };
    let programs = [start(0), start(1)];
    let mut client = connect(ports[0]).expect("connect");
    client.write_all(&header("192.0.2.1")).expect("write");
    until("the loop is refused", || count(healths[0], "portlane_connections_closed_total", "SourceShare") == Some(1.0));
    assert!(client.read(&mut [0; 1]).map_or(0, |read| read) == 0, "the loop ends with its last session");
    let is_bounded = || healths.map(opened) == [Some(13.0), Some(12.0)];
    until("twelve sessions of sixteen are all that each proxy has admitted", is_bounded);
    drop(programs);
}

/// One datagram of this client, which is not sent again, and its answer.
fn asks(client: &UdpSocket) {
    client.send(b"question").expect("send");
    let length = client.recv(&mut [0; 16]).expect("an answer");
    assert_eq!(length, b"question".len());
}

/// A proxy that leads from a port to another one, and serves a server at a further port, with its health and admin
/// ports. It knows its own fleet only.
fn leads((from, to): (u16, u16), others: (u16, u16), (health, admin): (u16, u16), arguments: &[&str]) -> Program {
    let (other, server) = others;
    let listeners = listener("ns/f/l", ("UDP", from), to, "") + &listener("ns/other/l", ("UDP", other), server, "");
    Program::proxy(&configuration(&listeners, ("fleet", "127.0.0.2:0")), health, admin, arguments)
}

fn dropped(health: u16, reason: &str) -> Option<f64> {
    count(health, "portlane_datagrams_dropped_total", reason)
}

#[test]
fn a_datagram_in_a_loop_through_two_fleets_ends_with_its_hop_limit_and_others_are_answered_meanwhile() {
    let server = UdpEcho::start();
    let (ports, healths) = ([free_port(), free_port()], [free_port(), free_port()]);
    let others = [free_port(), free_port()];
    let admins = [free_port(), free_port()];
    let start =
        |at: usize| leads((ports[at], ports[1 - at]), (others[at], server.port), (healths[at], admins[at]), &[]);
    let programs = [start(0), start(1)];
    let client = datagrams([127, 0, 0, 1], ports[0]);
    // No sender has its datagrams go round more often.
    client.set_ttl(255).expect("option");
    for round in [1.0, 2.0] {
        client.send(b"round").expect("send");
        for port in others {
            asks(&datagrams([127, 0, 0, 3], port));
        }
        until("the datagram has no hop left", || dropped(healths[1], "Loop") == Some(round));
        assert_eq!(healths.map(opened), [Some(32.0), Some(31.0)], "the second datagram goes the same way");
    }
    assert_eq!(dropped(healths[0], "Loop"), Some(0.0), "a datagram ends once");
    reports(admins[1], LOOPED);
    assert!(!http_get(admins[0], "/listeners").expect("a report").1.contains(LOOPED), "only where it ends");
    drop(programs);
}

#[test]
fn a_chain_of_two_fleets_passes_on_each_datagram_that_has_hops_left() {
    let server = UdpEcho::start();
    let (ports, healths) = ([free_port(), free_port()], [free_port(), free_port()]);
    let start =
        |at: usize, to: u16| leads((ports[at], to), (free_port(), server.port), (healths[at], free_port()), &[]);
    let programs = [start(0, ports[1]), start(1, server.port)];
    let client = datagrams([127, 0, 0, 1], ports[0]);
    asks(&client);
    // Each proxy takes a hop. The datagrams are of one flow, and each has its own hop limit.
    for round in [1.0, 2.0] {
        for (hops, at) in [(2, 1), (1, 0)] {
            client.set_ttl(hops).expect("option");
            client.send(b"question").expect("send");
            until("it is dropped where its hops end", || dropped(healths[at], "Loop") == Some(round));
        }
        client.set_ttl(3).expect("option");
        asks(&client);
    }
    assert_eq!(healths.map(opened), [Some(1.0), Some(1.0)]);
    drop(programs);
}

#[test]
fn a_datagram_in_a_loop_through_two_fleets_ends_where_no_further_flow_fits_and_others_are_answered_meanwhile() {
    let server = UdpEcho::start();
    let (ports, healths) = ([free_port(), free_port()], [free_port(), free_port()]);
    let others = [free_port(), free_port()];
    // Room for 24 flows, of which one source with many leaves one free. So the room of both ends before the hops do.
    let arguments = ["--max-sessions", "16", "--workers", "1"];
    let start = |at: usize| {
        leads((ports[at], ports[1 - at]), (others[at], server.port), (healths[at], free_port()), &arguments)
    };
    let programs = [start(0), start(1)];
    let client = datagrams([127, 0, 0, 1], ports[0]);
    client.send(b"round").expect("send");
    for port in others {
        asks(&datagrams([127, 0, 0, 3], port));
    }
    until("a datagram finds no room for a flow", || {
        let has_ended = healths.iter().any(|health| dropped(*health, "SessionLimit") >= Some(1.0));
        if !has_ended {
            // As a rule it has. A machine that is busy for a second has idle flows give way, and the hops may end first.
            client.send(b"round").expect("send");
        }
        has_ended
    });
    assert!(
        healths.map(opened).iter().all(|flows| *flows > Some(12.0)),
        "the flows of the loop have taken most of the room"
    );
    // The flows of the loop stay until they are idle, and give way to another client at once.
    for port in others {
        asks(&datagrams([127, 0, 0, 4], port));
    }
    drop(programs);
}
