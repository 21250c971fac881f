//! The senders: messages as RFC 5424 has them, as fast as the forwarder takes them.

use std::{
    io::Write,
    net::{Ipv4Addr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use socket2::SockRef;

use crate::{poll::now, rows::Row, train};

/// How each message begins.
const HEAD: &[u8] = b"<13>1 2026-01-01T00:00:00Z h a - - - ";
/// Connections of senders.
const CONNECTIONS: usize = 2;
/// Bytes that are sent at once.
const PIECE: usize = 32 << 10;
/// Send buffer of a connection, in bytes.
const BUFFER: usize = 64 << 10;
/// Longest wait for one connection while others may take more.
const TURN: Duration = Duration::from_millis(20);

/// Sends messages of a row to this port until then, and about `most` bytes. The bytes that were sent, of which the last
/// ones may be a part of a message.
///
/// # Panics
/// The forwarder takes no connection, or closes one.
pub(crate) fn send(row: Row, port: u16, until: Instant, most: u64) -> u64 {
    if row.is_udp() { datagrams(row, port, until, most) } else { lines(row, port, until, most) }
}

/// A message of this length without what ends it.
fn message(size: usize) -> Vec<u8> {
    let mut message = HEAD.to_vec();
    message.resize(size, b'x');
    message
}

fn lines(row: Row, port: u16, until: Instant, most: u64) -> u64 {
    let mut line = message(row.size());
    line.push(b'\n');
    let piece = line.repeat((PIECE / line.len()).max(1));
    let mut streams: Vec<(TcpStream, usize)> = (0..CONNECTIONS).map(|_| (connect(port), 0)).collect();
    let mut sent = 0;
    loop {
        for (stream, at) in &mut streams {
            if sent >= most || Instant::now() >= until {
                return sent;
            }
            if let Some(count) = now(stream.write(&piece[*at..])) {
                let count = count.expect("the forwarder reads");
                *at = (*at + count) % piece.len();
                sent += count as u64;
            }
        }
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = harness::connect(port).expect("connect");
    SockRef::from(&stream).set_send_buffer_size(BUFFER).expect("option");
    stream.set_write_timeout(Some(TURN)).expect("option");
    stream
}

fn datagrams(row: Row, port: u16, until: Instant, most: u64) -> u64 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    socket.connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
    // A call for each datagram takes longer than a forwarder needs for it, and would be all that is measured.
    let train = message(row.size()).repeat(train::MOST.min(train::MOST_BYTES / row.size()));
    let size = u16::try_from(row.size()).expect("the size of a datagram");
    let mut sent = 0;
    while sent < most && Instant::now() < until {
        sent += train::send(&socket, &train, size).expect("the port is open") as u64;
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_size_of_its_row_and_no_line_end_within() {
        for row in Row::ALL {
            let message = message(row.size());
            assert_eq!(message.len(), row.size());
            assert!(message.starts_with(HEAD) && !message.contains(&b'\n'));
        }
    }
}
