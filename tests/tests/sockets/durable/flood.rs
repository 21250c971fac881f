//! A flood of datagrams while the sink is away.

use std::net::UdpSocket;

use harness::{Listener, forward, free_port, until};
use tempfile::tempdir;

use super::{LOCALHOST, figure, run, until_kept};

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
