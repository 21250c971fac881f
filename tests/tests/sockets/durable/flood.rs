//! A flood of datagrams while the sink is away, and one source that connects as often as it can.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream, UdpSocket},
};

use harness::{Listener, connect, forward, free_port, until};
use socket2::{Domain, Socket, Type};
use tempfile::tempdir;

use super::{LOCALHOST, durable, figure, run, until_kept};

/// Datagrams that are sent at once, and bytes of each.
const ROUND: u64 = 4_000;
const BYTES: usize = 1_000;
/// What the program may grow by: its queue has 1 MiB, the log 16 MiB on disk, and the rest is what an allocator keeps.
const GROWTH: u64 = 12 << 20;

#[test]
fn a_flood_of_datagrams_costs_little_memory_and_each_one_that_is_lost_is_counted() {
    let (port, health, data) = (free_port(), free_port(), tempdir().expect("a folder"));
    let durable = "durable: {whenFull: DropNewest, store: {disk: {maxBytes: 16777216}}, send: {relp: {}}}";
    // Nobody is at this port.
    let listener = Listener::udp("u", port).to(1).with(durable);
    let program = run(&forward("f", "", &[listener]), health, data.path());
    let socket = UdpSocket::bind((LOCALHOST, 0)).expect("a port");
    let burst = || socket.send_to(&[b'.'; BYTES], (LOCALHOST, port)).expect("it is sent");
    burst();
    // The code that keeps messages is in memory then.
    until_kept(health, "u", 1);
    let before = program.resident_bytes();
    let of = |name: &str, more: &str| figure(health, name, "u", more).unwrap_or(0);
    let (mut sent, mut most) = (1, 0);
    until("the log is full", || {
        for _ in 0..ROUND {
            burst();
        }
        sent += ROUND;
        most = program.resident_bytes().unwrap_or(0).max(most);
        of("dropped_total", ",reason=\"Full\"") > 0
    });
    until("every datagram is kept or counted as dropped", || {
        let unread = of("kernel_drops_total", "") + of("dropped_total", ",reason=\"QueueFull\"");
        let taken = of("backlog_messages", "") + of("dropped_total", ",reason=\"Full\"");
        of("received_total", "") == taken && taken + unread == sent
    });
    let grown = before.map_or(0, |before| most.saturating_sub(before));
    eprintln!("{sent} datagrams of {BYTES} bytes: {} are kept, and memory grew by {grown}", of("backlog_messages", ""));
    assert!(grown <= GROWTH, "{grown}");
}

/// A connection that says nothing, from an address that no other client has.
fn silent(port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).expect("an address");
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("accepted by the system");
    socket.into()
}

// C3
#[test]
fn connections_of_one_source_keep_no_other_out_and_those_beyond_its_places_are_counted() {
    let (port, health, data) = (free_port(), free_port(), tempdir().expect("a folder"));
    // Nobody is at the port of the sink.
    let _program = run(&forward("f", "", &[durable(Listener::tcp("t", port), 1)]), health, data.path());
    let held: Vec<TcpStream> = (0..400).map(|_| silent(port)).collect();
    until("those beyond its 384 places are closed", || {
        figure(health, "connections_closed_total", "t", ",reason=\"SourceLimit\"") == Some(16)
    });
    let mut client = connect(port).expect("a connection");
    client.write_all(b"one\n").expect("it is sent");
    until_kept(health, "t", 1);
    drop(held);
}
