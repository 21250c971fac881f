//! The socket of a target, which reports bytes as they flow.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use super::{Event, Observer};
use crate::Socket;

/// The connection to a target.
pub(super) struct Counted {
    pub(super) tcp: TcpStream,
    pub(super) observer: Observer,
}

impl Socket for Counted {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read_ready(cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_write_ready(cx)
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.tcp.try_read(into)?;
        (self.observer)(&Event::Moved { to_target: 0, from_target: count as u64 });
        Ok(count)
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = self.tcp.try_write_vectored(pieces)?;
        (self.observer)(&Event::Moved { to_target: count as u64, from_target: 0 });
        Ok(count)
    }

    fn finish(&self) -> io::Result<()> {
        Socket::finish(&self.tcp)
    }

    fn is_reset(&self) -> bool {
        Socket::is_reset(&self.tcp)
    }

    fn gone(&self) -> impl Future<Output = ()> {
        Socket::gone(&self.tcp)
    }

    fn reset(&self) {
        Socket::reset(&self.tcp);
    }
}
