//! Receives batches of datagrams with what the system tells of each of them.
//!
//! `quinn-udp` does the same, but leaves out the hop limit.

use std::{
    io::{self, IoSliceMut},
    iter, mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use quinn_udp::UdpSocketState;

use crate::core::udp::batch::Received;

/// Bytes of the longest address of a sender.
const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();
/// A control message begins at a multiple of so many bytes (`cmsg(3)`).
const WORD: usize = size_of::<usize>();
/// Bytes before the value of a control message: its length and two numbers, as the kernel has them.
pub(super) const CONTROL_HEADER: usize = WORD + 2 * size_of::<libc::c_int>();
/// Room for the control messages of an entry: a local address of 20 bytes, a hop limit and the size of the datagrams of a
/// train take 88 bytes with their headers.
const CONTROL_BYTES: usize = 96;

/// Control messages of an entry. The kernel writes headers of words into it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Receives what waits at a socket, an entry for each slice.
#[allow(unsafe_code, reason = "recvmmsg has no safe wrapper; each call states its invariant")]
pub(super) fn receive<const SLOTS: usize>(
    _state: &UdpSocketState,
    socket: &impl AsFd,
    slices: &mut [IoSliceMut<'_>; SLOTS],
    received: &mut [Received; SLOTS],
) -> io::Result<usize> {
    let (mut names, mut controls) = ([[0_u8; NAME_BYTES]; SLOTS], [Control([0; CONTROL_BYTES]); SLOTS]);
    // SAFETY: the fields are numbers and pointers, for which zero and null are values.
    let mut headers: [libc::mmsghdr; SLOTS] = unsafe { mem::zeroed() };
    for (((header, slice), name), control) in headers.iter_mut().zip(slices).zip(&mut names).zip(&mut controls) {
        let header = &mut header.msg_hdr;
        header.msg_name = name.as_mut_ptr().cast();
        header.msg_namelen = convert(NAME_BYTES);
        // An `IoSliceMut` is an `iovec`, as its documentation says.
        header.msg_iov = ptr::from_mut(slice).cast();
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = convert(CONTROL_BYTES);
    }
    let fd = socket.as_fd().as_raw_fd();
    let count = loop {
        // SAFETY: the descriptor is open while `socket` is borrowed. There are `SLOTS` headers, each with one slice and with
        // room of the stated lengths for a name and control messages. All of these outlive the call, and nothing else uses
        // them meanwhile. Without a timeout, the last pointer is not followed.
        let result = unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), convert(SLOTS), 0, ptr::null_mut()) };
        if let Ok(count) = usize::try_from(result) {
            break count;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    let entries = received.iter_mut().zip(&headers).zip(&names).zip(&controls);
    for (((entry, header), name), control) in entries.take(count) {
        let from = address(name).ok_or(io::ErrorKind::InvalidData)?;
        let length: usize = convert(header.msg_hdr.msg_controllen);
        *entry = told(from, convert(header.msg_len), control.0.get(..length).unwrap_or_default());
    }
    Ok(count)
}

/// A number in another type: C libraries have different ones for the same field. All of these numbers are small.
fn convert<T, U: TryFrom<T> + Default>(number: T) -> U {
    U::try_from(number).unwrap_or_default()
}

/// The address in a `sockaddr_in` or `sockaddr_in6`.
fn address(name: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(take(name, 2)?);
    match libc::c_int::from(u16::from_ne_bytes(take(name, 0)?)) {
        libc::AF_INET => Some(SocketAddr::from((Ipv4Addr::from(take::<4>(name, 4)?), port))),
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(take::<16>(name, 8)?);
            let (flow, scope) = (u32::from_ne_bytes(take(name, 4)?), u32::from_ne_bytes(take(name, 24)?));
            Some(SocketAddrV6::new(ip, port, flow, scope).into())
        }
        _ => None,
    }
}

/// An entry of `len` bytes, with what its control messages tell.
fn told(from: SocketAddr, len: usize, control: &[u8]) -> Received {
    let mut received = Received { from, local: None, len, stride: len, hop_limit: None };
    let number = |value: &[u8]| take(value, 0).map(libc::c_int::from_ne_bytes);
    for (level, kind, value) in messages(control) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // An interface and another address come first.
                received.local = take::<4>(value, 8).map(|bytes| Ipv4Addr::from(bytes).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                received.local = take::<16>(value, 0).map(|bytes| Ipv6Addr::from(bytes).into());
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                received.hop_limit = number(value).and_then(|hops| u8::try_from(hops).ok());
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                received.stride = number(value).and_then(|size| usize::try_from(size).ok()).unwrap_or(len);
            }
            _ => {}
        }
    }
    received
}

/// The control messages in these bytes, each with its level, its kind and its value.
fn messages(control: &[u8]) -> impl Iterator<Item = (libc::c_int, libc::c_int, &[u8])> {
    let mut rest = control;
    iter::from_fn(move || {
        let length = usize::from_ne_bytes(take(rest, 0)?);
        let level = libc::c_int::from_ne_bytes(take(rest, WORD)?);
        let kind = libc::c_int::from_ne_bytes(take(rest, WORD + size_of::<libc::c_int>())?);
        let value = rest.get(CONTROL_HEADER..length)?;
        rest = rest.get(length.next_multiple_of(WORD)..).unwrap_or_default();
        Some((level, kind, value))
    })
}

/// The bytes from this position on, if there are as many.
fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: libc::c_int, kind: libc::c_int, value: &[u8]) -> Vec<u8> {
        let mut bytes = (CONTROL_HEADER + value.len()).to_ne_bytes().to_vec();
        bytes.extend([level.to_ne_bytes(), kind.to_ne_bytes()].concat());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(WORD), 0);
        bytes
    }

    #[test]
    fn a_control_message_that_was_cut_off_tells_nothing_and_those_before_it_count() {
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 7));
        let hops = message(libc::IPPROTO_IP, libc::IP_TTL, &9_i32.to_ne_bytes());
        let train = message(libc::SOL_UDP, libc::UDP_GRO, &100_i32.to_ne_bytes());
        let both = [hops.clone(), train].concat();
        let of = |control: &[u8]| (told(from, 250, control).hop_limit, told(from, 250, control).stride);
        assert_eq!(of(&both), (Some(9), 100));
        for end in hops.len()..hops.len() + CONTROL_HEADER + 4 {
            assert_eq!(of(&both[..end]), (Some(9), 250), "{end}");
        }
        assert_eq!([of(&hops[..hops.len() - 5]), of(&[]), of(&[0; 64])], [(None, 250); 3]);
    }

    #[test]
    fn an_address_of_an_unknown_family_is_none() {
        assert_eq!(address(&[0; NAME_BYTES]), None);
    }
}
