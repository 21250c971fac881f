//! The system calls of systems other than Linux: what they lack does nothing, or fails so that the caller copies.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    net::UdpSocket,
    os::fd::AsFd,
};

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};

use crate::core::udp::batch::Received;

pub(super) fn unacknowledged(_socket: &impl AsFd) -> usize {
    0
}

pub(super) fn is_at_mark(_socket: &impl AsFd) -> bool {
    false
}

pub(super) fn datagrams(socket: &UdpSocket) -> io::Result<UdpSocketState> {
    UdpSocketState::new(UdpSockRef::from(socket))
}

pub(super) fn receive<const SLOTS: usize>(
    state: &UdpSocketState,
    socket: &impl AsFd,
    slices: &mut [IoSliceMut<'_>; SLOTS],
    received: &mut [Received; SLOTS],
) -> io::Result<usize> {
    let mut metas = [RecvMeta::default(); SLOTS];
    let count = state.recv(UdpSockRef::from(socket), slices, &mut metas)?;
    for (entry, meta) in received.iter_mut().zip(&metas).take(count) {
        let (from, local) = (meta.addr, meta.dst_ip);
        *entry = Received { from, local, len: meta.len, stride: meta.stride, hop_limit: None };
    }
    Ok(count)
}

pub(super) fn dropped(_socket: &impl AsFd) -> Option<u32> {
    None
}

pub(super) fn buffered(_socket: &impl AsFd) -> u64 {
    0
}

pub(super) fn report_errors(_socket: &impl AsFd) {}

pub(super) fn drop_errors(_socket: &impl AsFd) {}

pub(super) fn join_datagrams(_socket: &impl AsFd) {}

pub(super) fn split_datagrams(_socket: &impl AsFd) {}

pub(super) fn send_train(_socket: &impl AsFd, _bytes: &[u8], _segment: u16) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn forbid_fragments(_socket: &impl AsFd) -> bool {
    false
}

pub(super) fn allow_fragments(_socket: &impl AsFd) {}

pub(super) fn begin_write_back(_file: &File, _count: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Stand-in on systems without splice.
#[derive(Debug)]
pub struct Pipe {
    /// Capacity in bytes.
    pub size: usize,
}

impl Pipe {
    /// Always fails, so that bytes are copied instead.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn new(_size: usize) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Never called.
///
/// # Errors
/// `Unsupported`.
pub fn splice_in(_socket: &impl AsFd, _pipe: &Pipe, _most: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Never called.
///
/// # Errors
/// `Unsupported`.
pub fn splice_out(_pipe: &Pipe, _socket: &impl AsFd, _length: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}
