//! Many bytes at little cost: sent without a copy, and discarded without one, as if the ends were on other machines.

use std::{io, net::TcpStream, os::fd::OwnedFd};

use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create, sendfile},
    net::{RecvFlags, recv},
};

use crate::poll::now;

/// Bytes of one call.
const PIECE: usize = 1 << 20;

/// A source and a sink of bytes.
pub(crate) struct Bytes {
    file: OwnedFd,
    buffer: Vec<u8>,
}

impl Bytes {
    pub(crate) fn new() -> Self {
        let file = memfd_create("bytes", MemfdFlags::CLOEXEC).expect("a file in memory");
        ftruncate(&file, PIECE as u64).expect("a file in memory");
        Self { file, buffer: vec![0; PIECE] }
    }

    /// Sends what the stream takes at once. The bytes that it took.
    pub(crate) fn send(&self, stream: &TcpStream) -> io::Result<u64> {
        let sent = sendfile(stream, &self.file, Some(&mut 0), PIECE).map_err(io::Error::from);
        Ok(now(sent).transpose()?.unwrap_or(0) as u64)
    }

    /// Discards what has arrived. An end is an error.
    pub(crate) fn discard(&mut self, stream: &TcpStream) -> io::Result<u64> {
        // With this flag TCP discards bytes without a copy.
        let received = recv(stream, &mut self.buffer, RecvFlags::TRUNC).map_err(io::Error::from);
        match now(received).transpose()? {
            Some((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Some((_, length)) => Ok(length as u64),
            None => Ok(0),
        }
    }
}
