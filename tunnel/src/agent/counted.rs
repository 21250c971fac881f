//! The socket of a target, which reports bytes as they flow, and its end.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::net::TcpStream;
use tunnel_core::Open;

use super::{Agent, Event};
use crate::{Relayed, Socket};

/// The connection to a target.
pub(super) struct Counted<C> {
    // Dropped first: the end is reported when the connection is closed.
    tcp: TcpStream,
    /// Boxed, so that the task of a stream fits into a block of 256 bytes.
    live: Box<Live<C>>,
}

impl<C> Counted<C> {
    /// Wraps the connection to the target of a request.
    pub(super) fn new(agent: &Rc<Agent<C>>, tcp: TcpStream, open: Open) -> Self {
        Self { tcp, live: Box::new(Live::new(agent, open)) }
    }

    /// How many bytes the target has not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        (self.live.agent.settings.unacknowledged)(&self.tcp)
    }
}

/// A stream or a flow while it lasts. Its end is reported even if the session ends first.
pub(super) struct Live<C> {
    agent: Rc<Agent<C>>,
    open: Open,
    relayed: Cell<Option<Relayed>>,
}

impl<C> Live<C> {
    pub(super) fn new(agent: &Rc<Agent<C>>, open: Open) -> Self {
        agent.tell(&Event::Opened(&open));
        Self { agent: Rc::clone(agent), open, relayed: Cell::new(None) }
    }
}

impl<C> Drop for Live<C> {
    fn drop(&mut self) {
        self.agent.tell(&Event::Closed { open: &self.open, relayed: self.relayed.get() });
    }
}

impl<C> Socket for Counted<C> {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read_ready(cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_write_ready(cx)
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.tcp.try_read(into)?;
        self.live.agent.tell(&Event::Moved { to_target: 0, from_target: count as u64 });
        Ok(count)
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = self.tcp.try_write_vectored(pieces)?;
        self.live.agent.tell(&Event::Moved { to_target: count as u64, from_target: 0 });
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

    fn ended(&self, relayed: &Relayed) {
        self.live.relayed.set(Some(*relayed));
    }
}
