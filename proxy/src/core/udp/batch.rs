//! The entries that one system call received from a socket: several datagrams, or trains of them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::core::udp::trains::{self, Datagram};

/// Bytes of the buffer for each entry of a batch: the largest datagram, with room to spare; also the largest train of
/// datagrams that GRO joins.
pub const SLOT_BYTES: usize = 65_536;

/// An entry of a batch: a datagram, or a train of datagrams of one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Address of the sender.
    pub from: SocketAddr,
    /// Address that it was sent to, if the system tells it.
    pub local: Option<IpAddr>,
    /// Bytes of all its datagrams.
    pub len: usize,
    /// Bytes of each datagram; the last one may be shorter.
    pub stride: usize,
    /// Hop limit (TTL) that it has arrived with, if the system tells it.
    pub hop_limit: Option<u8>,
}

impl Default for Received {
    /// Nothing, to be overwritten.
    fn default() -> Self {
        let from = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        Self { from, local: None, len: 0, stride: 0, hop_limit: None }
    }
}

/// The result of receiving a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Datagrams; more may wait.
    Full,
    /// Datagrams; the socket was empty after them.
    Last,
    /// No datagrams, or an error.
    Empty,
}

impl Batch {
    /// Creates a batch of `count` entries, received into `slots` of them. With `short_is_last`, a batch that is not
    /// full has found the socket empty, which saves a further system call.
    #[must_use]
    pub fn of(count: usize, slots: usize, short_is_last: bool) -> Self {
        match count {
            0 => Self::Empty,
            _ if count < slots && short_is_last => Self::Last,
            _ => Self::Full,
        }
    }
}

/// Places in the buffer of the entries received into the slots from `first` on.
pub fn places(received: &[Received], first: usize) -> impl Iterator<Item = Datagram> {
    let entries = received.iter().zip(first..);
    entries.flat_map(|(entry, slot)| trains::split(slot * SLOT_BYTES, entry.len, entry.stride))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_batch_with_room_left_has_found_the_socket_empty() {
        let found = [0, 1, 2].map(|count| Batch::of(count, 2, true));
        assert_eq!(found, [Batch::Empty, Batch::Last, Batch::Full]);
    }

    #[test]
    fn where_a_short_batch_says_nothing_the_socket_is_asked_again() {
        let found = [0, 1, 2].map(|count| Batch::of(count, 2, false));
        assert_eq!(found, [Batch::Empty, Batch::Full, Batch::Full]);
    }

    #[test]
    fn each_entry_begins_at_its_slot_and_its_datagrams_follow_each_other() {
        let received =
            [(5, 0), (0, 0), (250, 100)].map(|(len, stride)| Received { len, stride, ..Received::default() });
        let places: Vec<Datagram> = places(&received, 2).collect();
        let at = |slot: usize, from: usize, len: usize| Datagram { at: slot * SLOT_BYTES + from, len };
        assert_eq!(places, [at(2, 0, 5), at(3, 0, 0), at(4, 0, 100), at(4, 100, 100), at(4, 200, 50)]);
    }
}
