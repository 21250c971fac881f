//! A flood of UDP flows from one source, while connections wait for files: other sources are answered.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::net::{SocketAddr, TcpStream, UdpSocket};

use harness::{
    Backend, Behaviour, Listener, PATIENCE, Program, UdpEcho, connect, forward, free_port, http_get, metric, until,
};

/// Open files of the proxy. Some 160 flows fit, or 90 sessions beside the flows that are kept. Ten places are spare: the
/// flood leaves five of them free, and the two questions that follow it need one each before the flows that give way have
/// ended. Requests for metrics may hold some others on a busy machine.
const FILES: usize = 300;
/// Flows of the flood: more than fit, and fewer than the buffer of a socket holds datagrams.
const FLOOD: usize = 200;
/// Connections, more than fit.
const CONNECTIONS: usize = 130;

/// A client of this address with a source port of its own.
fn client(last: u8, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, last], 0))).expect("bind");
    socket.connect(("127.0.0.1", port)).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("option");
    socket
}

fn paused(health: u16) -> Option<f64> {
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    metric(&text, "portlane_accept_paused_total{reason=\"Files\"}")
}

#[test]
fn one_datagram_of_another_source_is_answered_while_one_source_floods_and_connections_wait() {
    let (server, backend) = (UdpEcho::start(), Backend::start(Behaviour::Hold));
    let (flooded, quiet, tcp, health) = (free_port(), free_port(), free_port(), free_port());
    let listeners = [
        Listener::udp("flooded", flooded).to(server.port),
        Listener::udp("quiet", quiet).to(server.port),
        Listener::tcp("t", tcp).to(backend.port),
    ];
    let manifest = forward("f", "accessLog: {mode: Disabled}", &listeners);
    let _program = Program::run_limited(&manifest, health, &[], Some(FILES));
    let flood: Vec<UdpSocket> = (0..FLOOD).map(|_| client(2, flooded)).collect();
    let floods = || flood.iter().for_each(|socket| assert_eq!(socket.send(b"flood").expect("send"), 5));
    floods();
    // All its flows are in use: no place is free but the spare ones. The answer comes after the flood was read, as the
    // question waits behind it; connections would take the room of a flood that is still unread.
    asks(3, flooded, health);
    let _connections: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(tcp).expect("connect")).collect();
    until("connections get the files of idle flows", || backend.count() >= 40);
    until("the others wait", || paused(health) > Some(0.0));
    // Few sources, whose flows stay: connections leave some 30 flows, and the flood must have most of them.
    for last in 4..7 {
        floods();
        asks(last, quiet, health);
        asks(last, flooded, health);
    }
    assert!(backend.count() < CONNECTIONS, "they waited all the time");
}

/// One datagram, which is not sent again, and its answer.
fn asks(last: u8, port: u16, health: u16) {
    let client = client(last, port);
    client.send(b"question").expect("send");
    let length = client.recv(&mut [0; 16]).unwrap_or_else(|error| {
        panic!("no answer to 127.0.0.{last} at port {port}: {error}\n{}", dropped(health));
    });
    assert_eq!(length, b"question".len());
}

/// The metrics that say where a datagram was lost, and how many flows there are.
fn dropped(health: u16) -> String {
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    let says = |line: &&str| {
        !line.starts_with('#') && ["dropped", "drops", "flows", "files"].iter().any(|it| line.contains(it))
    };
    text.lines().filter(says).collect::<Vec<_>>().join("\n")
}
