//! A stream or a flow, from the request to its end.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::select;
use tokio::task::JoinSet;
use tunnel_core::{MAX_DATAGRAM, Open, Protocol, Refusal};

use super::counted::{Counted, Live};
use super::targets::{addresses, connect, unreachable};
use super::{Agent, Connector, Drops, Event, Observer};
use crate::{Flow, Incoming, Stream, relay};

thread_local! {
    /// Shared by all flows: datagrams are forwarded at once, so no flow keeps one here.
    static DATAGRAM: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_DATAGRAM].into_boxed_slice());
}

/// Begins a task that serves a request of the far end, until its stream or its flow ends.
pub(super) fn begin<C: Connector>(tasks: &mut JoinSet<()>, agent: Rc<Agent<C>>, incoming: Incoming) {
    match incoming.request().target.protocol {
        Protocol::Tcp => tasks.spawn_local(stream(agent, incoming)),
        Protocol::Udp => tasks.spawn_local(flow(agent, incoming)),
    };
}

/// Connects the target, and relays until the stream ends.
fn stream<C: Connector>(agent: Rc<Agent<C>>, incoming: Incoming) -> impl Future<Output = ()> {
    // Boxed outside of the block, so that a stream has no room for state that only its beginning needs.
    let connected = Box::pin(connected(agent, incoming));
    async move {
        let Some((stream, socket)) = connected.await else { return };
        relay(stream, socket, Counted::unacknowledged).await;
    }
}

async fn connected<C: Connector>(agent: Rc<Agent<C>>, incoming: Incoming) -> Option<(Stream, Counted<C>)> {
    let open = incoming.request().clone();
    match connect(&agent.settings.allow, &open.target, agent.settings.connect_within).await {
        Ok(tcp) => {
            let socket = Counted::new(&agent, tcp, open);
            Some((incoming.accept(), socket))
        }
        Err(refusal) => {
            refuse(&agent, &open, incoming, refusal);
            None
        }
    }
}

/// Associates a socket with the target, and forwards datagrams until the flow ends.
async fn flow<C: Connector>(agent: Rc<Agent<C>>, incoming: Incoming) {
    let open = incoming.request().clone();
    let refusal = match addresses(&agent.settings.allow, &open.target, agent.settings.connect_within).await {
        Ok(addresses) => match associate(&addresses).await {
            Ok(socket) => {
                let _live = Live::new(&agent, open);
                return forward(&incoming.accept_flow(), &socket, &agent.observer).await;
            }
            Err(error) => unreachable(&open.target, &error),
        },
        Err(refusal) => refusal,
    };
    refuse(&agent, &open, incoming, refusal);
}

fn refuse<C>(agent: &Agent<C>, open: &Open, incoming: Incoming, refusal: Refusal) {
    agent.tell(&Event::Refused { open, refusal: &refusal });
    incoming.refuse(refusal);
}

/// A socket connected to the first address that the network has a route to. It keeps its port for the life of the flow,
/// whatever carrier the flow uses.
async fn associate(addresses: &[SocketAddr]) -> io::Result<UdpSocket> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        match socket.connect(address).await {
            Ok(()) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Forwards datagrams both ways until the far end ends the flow. A datagram that a socket does not take at once is
/// dropped, as UDP allows.
async fn forward(flow: &Flow, socket: &UdpSocket, observer: &Observer) {
    let dropped = |reason| observer(&Event::Dropped { reason, count: 1 });
    loop {
        select! {
            datagram = flow.recv() => match datagram {
                Some(datagram) => send(socket, &datagram, dropped),
                None => return,
            },
            ready = socket.ready(Interest::READABLE | Interest::ERROR) => {
                let Ok(ready) = ready else { return };
                if ready.is_error() && refused(socket) {
                    dropped(Drops::Refused);
                }
                let received = DATAGRAM.with_borrow_mut(|buffer| {
                    let length = socket.try_recv(buffer)?;
                    flow.send(&buffer[..length]);
                    io::Result::Ok(())
                });
                // An error reports an ICMP answer to an earlier datagram.
                if received.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
                    dropped(Drops::Refused);
                }
            }
        }
    }
}

/// Whether the network answered an earlier datagram with an error. Such an error does not make the socket readable.
fn refused(socket: &UdpSocket) -> bool {
    // Returning "would block" makes the runtime wait for the next error.
    let look = || socket.take_error()?.map_or_else(|| Err(io::ErrorKind::WouldBlock.into()), Ok);
    socket.try_io(Interest::ERROR, look).is_ok()
}

/// Sends a datagram to the target. Calls the socket directly: the runtime does not know yet whether a new socket is
/// writable.
fn send(socket: &UdpSocket, datagram: &[u8], dropped: impl Fn(Drops)) {
    let attempt = || SockRef::from(socket).send(datagram);
    let mut sent = attempt();
    if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        // The error is the network's answer to an earlier datagram; this one was not sent.
        dropped(Drops::Refused);
        sent = attempt();
    }
    if let Err(error) = sent {
        dropped(if error.kind() == io::ErrorKind::WouldBlock { Drops::Full } else { Drops::Refused });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secure::AgentTls;

    /// The bytes that tokio adds to the future of a task.
    const TASK: usize = 104;

    fn size_of_future<F: Future>(_: fn(Rc<Agent<AgentTls>>, Incoming) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_stream_fits_into_256_bytes() {
        let size = TASK + size_of_future(stream::<AgentTls>);
        assert!(size <= 256, "{size} bytes");
    }
}
