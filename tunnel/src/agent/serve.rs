//! A stream or a flow, from the request to its end.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::select;
use tunnel_core::{MAX_DATAGRAM, Open, Protocol};

use super::counted::Counted;
use super::targets::{addresses, connect, unreachable};
use super::{Agent, Connector, Drops, Event, Observer};
use crate::{Flow, Incoming, Relayed, relay};

thread_local! {
    /// Shared by all flows: a datagram is sent on at once, so no flow keeps one here.
    static DATAGRAM: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_DATAGRAM].into_boxed_slice());
}

/// A stream or a flow while it lasts. Reports its end even if the session ends first.
struct Live<'a> {
    observer: &'a Observer,
    open: &'a Open,
    relayed: Option<Relayed>,
}

impl<'a> Live<'a> {
    fn new(observer: &'a Observer, open: &'a Open) -> Self {
        observer(&Event::Opened(open));
        Self { observer, open, relayed: None }
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        (self.observer)(&Event::Closed { open: self.open, relayed: self.relayed });
    }
}

/// Connects the target, and relays until the stream ends.
pub(super) async fn serve<C: Connector>(agent: Rc<Agent<C>>, incoming: Incoming) {
    let open = incoming.request().clone();
    let (allow, within) = (&agent.settings.allow, agent.settings.connect_within);
    let refusal = match open.target.protocol {
        // Boxed, so that the memory of the attempt is freed before the relay begins.
        Protocol::Tcp => match Box::pin(connect(allow, &open.target, within)).await {
            Ok(tcp) => {
                let mut live = Live::new(&agent.observer, &open);
                let unacknowledged = agent.settings.unacknowledged;
                let socket = Counted { tcp, observer: agent.observer.clone() };
                let relayed = relay(incoming.accept(), socket, |socket: &Counted| unacknowledged(&socket.tcp)).await;
                live.relayed = Some(relayed);
                return;
            }
            Err(refusal) => refusal,
        },
        Protocol::Udp => match addresses(allow, &open.target, within).await {
            Ok(addresses) => match associate(&addresses).await {
                Ok(socket) => {
                    let _live = Live::new(&agent.observer, &open);
                    return forward(&incoming.accept_flow(), &socket, &agent.observer).await;
                }
                Err(error) => unreachable(&open.target, &error),
            },
            Err(refusal) => refusal,
        },
    };
    agent.tell(&Event::Refused { open: &open, refusal: &refusal });
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
