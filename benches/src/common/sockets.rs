//! Which ports are open, and what waits at them, without a connection to them: from the tables of the system, for IPv4.

use std::{collections::BTreeSet, fs};

/// The state of a socket that listens, in the table of the system.
const LISTEN: &str = "0A";

/// Ports on which something listens for connections.
pub(crate) fn listening() -> BTreeSet<u16> {
    ports(&table("tcp"))
}

/// Whether a socket takes datagrams at this port.
pub(crate) fn takes_datagrams(port: u16) -> bool {
    table("udp").lines().filter_map(Line::of).any(|line| line.local == port)
}

/// Bytes that were sent to this port and are not read yet. What waits for a datagram to be read counts in bytes of
/// memory.
pub(crate) fn unread(port: u16) -> u64 {
    ["tcp", "udp"].map(|protocol| waiting(&table(protocol), port)).iter().sum()
}

fn table(protocol: &str) -> String {
    fs::read_to_string(format!("/proc/net/{protocol}")).expect("the table of sockets")
}

/// A socket.
struct Line<'a> {
    local: u16,
    remote: u16,
    state: &'a str,
    /// Bytes that the other side has not acknowledged.
    sent: u64,
    /// Bytes that the process has not read.
    received: u64,
}

impl<'a> Line<'a> {
    /// `None`: this is the line with the names.
    fn of(text: &'a str) -> Option<Self> {
        let mut words = text.split_whitespace().skip(1);
        let (local, remote, state, queues) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
        let bytes = |text: &str| u64::from_str_radix(text, 16).ok();
        let (sent, received) = queues.split_once(':')?;
        Some(Self { local: port(local)?, remote: port(remote)?, state, sent: bytes(sent)?, received: bytes(received)? })
    }
}

/// Bytes on their way to this port. The queue of a socket that listens is one of connections.
fn waiting(table: &str, port: u16) -> u64 {
    let lines = table.lines().filter_map(Line::of).filter(|line| line.state != LISTEN);
    let of = |line: Line<'_>| {
        let received = if line.local == port { line.received } else { 0 };
        received + if line.remote == port { line.sent } else { 0 }
    };
    lines.map(of).sum()
}

/// Local ports of the sockets that listen.
fn ports(table: &str) -> BTreeSet<u16> {
    table.lines().filter_map(Line::of).filter(|line| line.state == LISTEN).map(|line| line.local).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_that_listen_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n   \
                     0: 0100007F:1B59 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n   \
                     1: 0100007F:1B5A 0100007F:4E20 01 00000000:00000000 00:00000000 00000000     0\n";
        assert_eq!(ports(table), BTreeSet::from([7001]));
    }

    #[test]
    fn what_is_sent_and_what_is_received_waits_at_a_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n   \
                     0: 0100007F:1B59 00000000:0000 0A 00000000:00000007 00:00000000 00000000     0\n   \
                     1: 0100007F:1B59 0100007F:4E20 01 00000005:00000010 00:00000000 00000000     0\n   \
                     2: 0100007F:4E20 0100007F:1B59 01 00000100:00000003 00:00000000 00000000     0\n   \
                     3: 0100007F:1B5A 0100007F:4E21 01 00001000:00001000 00:00000000 00000000     0\n";
        assert_eq!(waiting(table, 7001), 0x110);
    }
}
