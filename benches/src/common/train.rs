//! Datagrams that are sent with one call, and parted by the system.

use std::{io, io::IoSlice, net::UdpSocket};

use socket2::{MsgHdr, SockRef};

/// Level and type of the control message with the size of the datagrams of a train (`linux/udp.h`).
const SEGMENT: [i32; 2] = [17, 103];
/// Most datagrams of a train (`linux/udp.h`).
pub(crate) const MOST: usize = 64;
/// Most bytes of a train: those of the longest datagram.
pub(crate) const MOST_BYTES: usize = 65_507;

/// Sends a train of datagrams of `size` bytes, of which the last one may be shorter.
///
/// # Errors
/// Nothing was sent.
pub(crate) fn send(client: &UdpSocket, train: &[u8], size: u16) -> io::Result<usize> {
    // A control message as in cmsg(3): its length, level, type and value, padded to a word.
    let [level, kind] = SEGMENT.map(i32::to_ne_bytes);
    let header = size_of::<usize>() + size_of::<[i32; 2]>();
    let mut control = (header + size_of_val(&size)).to_ne_bytes().to_vec();
    control.extend(level.into_iter().chain(kind).chain(size.to_ne_bytes()));
    control.resize(header + size_of::<usize>(), 0);
    let parts = [IoSlice::new(train)];
    SockRef::from(client).sendmsg(&MsgHdr::new().with_buffers(&parts).with_control(&control), 0)
}
