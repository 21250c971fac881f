//! Receives several datagrams of a socket in one system call, into the buffer of the worker.

use std::{
    array,
    io::{self, IoSliceMut},
    os::fd::AsFd,
};

use quinn_udp::{BATCH_SIZE, UdpSocketState};

use crate::{
    core::udp::batch::{Batch, Received, SLOT_BYTES},
    sys,
};

/// What a batch of `count` entries has found, which was received into `slots` of them.
pub(super) fn found(count: usize, slots: usize) -> Batch {
    Batch::of(count, slots, sys::SHORT_BATCH_IS_LAST)
}

/// Receives what waits at a socket into the first `SLOTS` slots of `buffer`, at most [`BATCH_SIZE`]. Returns the number
/// of entries; each is a datagram, or a train of datagrams of one sender.
pub(super) fn receive<const SLOTS: usize>(
    state: &UdpSocketState,
    socket: &impl AsFd,
    buffer: &mut Vec<u8>,
    received: &mut [Received; SLOTS],
) -> io::Result<usize> {
    if buffer.is_empty() {
        // Zeroed pages of the system use no memory until a datagram is written to them.
        *buffer = vec![0; SLOT_BYTES * BATCH_SIZE];
    }
    let mut slots = buffer.chunks_mut(SLOT_BYTES);
    let mut slices: [IoSliceMut<'_>; SLOTS] = array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
    sys::receive(state, socket, &mut slices, received)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn each_datagram_of_a_batch_begins_at_a_slot_of_its_own() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let state = sys::datagrams(&socket).expect("a state");
        socket.set_nonblocking(true).expect("option");
        let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        // Loopback delivers within the call.
        for message in ["one", "", "three"] {
            client.send_to(message.as_bytes(), socket.local_addr().expect("address")).expect("send");
        }
        let (mut buffer, mut received) = (Vec::new(), [Received::default(); 2]);
        let mut next = || {
            let count = receive(&state, &socket, &mut buffer, &mut received);
            count.map(|count| {
                let slots = received.iter().zip(buffer.chunks(SLOT_BYTES)).take(count);
                slots.map(|(entry, bytes)| bytes[..entry.len].to_vec()).collect::<Vec<_>>()
            })
        };
        assert_eq!(next().expect("datagrams"), [&b"one"[..], &b""[..]]);
        assert_eq!(next().expect("datagrams"), [&b"three"[..]]);
        assert_eq!(next().expect_err("nothing is left").kind(), io::ErrorKind::WouldBlock);
    }
}
