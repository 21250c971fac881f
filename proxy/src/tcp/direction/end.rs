//! One end of a session.

use std::{cell::Cell, io, net::TcpStream, os::fd::OwnedFd, time::Duration};

use socket2::SockRef;
use tokio::{io::Interest, select};

use crate::{
    agents::{Link, Side},
    net,
    sys::Socket,
};

/// Most bytes of a first write that count as one segment. TCP assumes that a segment holds 536 if it knows nothing.
const ONE_SEGMENT: usize = 512;

/// Whether a small segment of a connection may wait until those before it are acknowledged (`TCP_NODELAY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// It may, but nothing was written yet. The first segment has none before it to wait for.
    Fresh,
    /// It may, and there may be one before it.
    Possible,
    /// It never waits.
    Never,
}

/// One end of a session.
#[derive(Debug)]
pub struct End {
    /// The connection.
    pub stream: Socket,
    /// Whether any call has returned an error. The system reports a reset once; after that it looks like a clean end.
    pub broken: Cell<bool>,
    /// Whether a read has reported that the peer has reset the connection. The system has closed it then.
    pub reset_by_peer: Cell<bool>,
    /// Set for one read that ignores readiness.
    pub read_anyway: Cell<bool>,
    /// Whether the connection ends by FIN; otherwise, as after a panic, it is reset.
    pub clean: Cell<bool>,
    /// Whether the bytes that wait unsent in the kernel are bounded. Accepted connections have the bound from their
    /// listener. A connection to a server gets it once it is full, or gets a stream.
    pub is_bounded: Cell<bool>,
    /// Accepted connections never delay, as they have the option from their listener. A connection to a server gets it
    /// before its second write.
    pub delay: Cell<Delay>,
    /// Set for a connection to an agent: reports resets, which its socket does not have.
    side: Option<Side>,
}

impl Drop for End {
    fn drop(&mut self) {
        let is_reset = !self.clean.get();
        if let Some(side) = &self.side {
            side.leave(is_reset);
        } else if is_reset && !self.reset_by_peer.get() {
            // Fails if the connection is already gone.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl End {
    /// Wraps an open connection.
    #[must_use]
    pub fn new(stream: Socket) -> Self {
        Self {
            stream,
            broken: Cell::new(false),
            reset_by_peer: Cell::new(false),
            read_anyway: Cell::new(false),
            clean: Cell::new(false),
            is_bounded: Cell::new(true),
            delay: Cell::new(Delay::Never),
            side: None,
        }
    }

    /// Wraps an open connection to an agent.
    ///
    /// # Errors
    /// See [`Socket::watch`].
    pub fn behind_agent(link: Link) -> io::Result<Self> {
        let Link { side, socket } = link;
        // The calls on a connected socket are the same for every family, except those that return addresses.
        let mut end = Self::new(Socket::watch(TcpStream::from(OwnedFd::from(socket)))?);
        end.side = Some(side);
        Ok(end)
    }

    /// Writes what there is room for. The system sends it at once.
    ///
    /// # Errors
    /// See [`Socket::try_write`].
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.delay.get() {
            Delay::Fresh if bytes.len() <= ONE_SEGMENT => self.delay.set(Delay::Possible),
            Delay::Fresh | Delay::Possible => {
                // Fails if the connection is already gone.
                let _ = SockRef::from(&self.stream).set_tcp_nodelay(true);
                self.delay.set(Delay::Never);
            }
            Delay::Never => {}
        }
        self.stream.try_write(bytes)
    }

    /// Bounds the bytes that wait unsent in the kernel, unless they are.
    pub(super) fn bound_unsent(&self) {
        if !self.is_bounded.replace(true) {
            net::bound_unsent(&SockRef::from(&self.stream));
        }
    }

    /// Waits until the connection is gone, even if nobody reads from it.
    pub async fn gone(&self) {
        let error = self.stream.ready(Interest::ERROR);
        match &self.side {
            // An error means that the runtime has ended.
            None => {
                let _ = error.await;
            }
            Some(side) => select! {
                _ = error => {}
                () = side.reset() => {}
            },
        }
    }

    /// Whether the end of data that was read is a reset, which the socket does not report.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.side.as_ref().is_some_and(Side::is_reset)
    }
}
