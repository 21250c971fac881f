//! Datagrams through a tunnel.

use std::future::poll_fn;
use std::task::Poll;

use tunnel_core::Session;

use super::OpenError;
use super::handle::Handle;

/// Datagrams between two UDP sockets. Dropping it ends the flow.
#[derive(Debug)]
pub struct Flow {
    handle: Handle,
}

impl Flow {
    pub(super) const fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Sends a datagram. A datagram that is too long, or waits for too long, is dropped and counted.
    pub fn send(&self, datagram: &[u8]) {
        self.handle.with(|session, id, now| session.send_datagram(id, datagram, now));
    }

    /// Waits for the answer of the far end; no datagram arrives before it. One task at a time may wait, here or in
    /// [`Flow::recv`].
    pub async fn answered(&self) -> Result<(), OpenError> {
        poll_fn(|cx| self.handle.poll_answer(cx)).await
    }

    /// Whether the session has a carrier. Without one, datagrams wait for a moment, and are then dropped.
    pub fn is_carried(&self) -> bool {
        self.handle.look(|session: &Session, _| session.is_attached())
    }

    /// The next datagram; `None` once the far end has ended the flow. One task at a time may wait.
    pub async fn recv(&self) -> Option<Vec<u8>> {
        poll_fn(|cx| {
            let (datagram, end) = self.handle.with(|session, id, _| match session.take_datagram(id) {
                Some(datagram) => (Some(datagram), None),
                None => (None, session.end(id)),
            });
            if datagram.is_none() && end.is_none() {
                self.handle.wait_to_read(cx);
                return Poll::Pending;
            }
            Poll::Ready(datagram)
        })
        .await
    }
}
