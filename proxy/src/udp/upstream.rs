//! The way of a flow to its endpoint: a socket, or queues to the thread of the tunnels. If there is none, the flow goes to
//! another endpoint.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use rustix::io::Errno;
use tokio::net::UdpSocket;

use crate::{
    agents::FlowEnd,
    core::backends::{
        address::Address,
        agent_refusal::AgentRefusal,
        balance::{Draw, EntryStats},
        endpoint::Endpoint,
    },
    log::Level,
    net,
    shared::{Dropped, Shared},
    worker::Worker,
};

/// Endpoints that are tried for one datagram. Each try costs a few system calls, and those that fail are ejected soon.
const MOST_TRIES: usize = 4;
/// Errors of a connected socket that the system has disconnected: `ss -K` does, and network plugins do when a backend of
/// a Service is gone. The socket sends and receives nothing any more. No ICMP error has these numbers.
const CLOSED: [Errno; 3] = [Errno::CONNABORTED, Errno::DESTADDRREQ, Errno::NOTCONN];

/// What passes the datagrams of a flow to its endpoint and back.
pub(super) enum Way {
    /// A connected socket.
    Socket(UdpSocket),
    /// An agent, by way of the thread of the tunnels. Boxed, so that flows with sockets are no larger for it.
    Agent(Box<ToAgent>),
}

/// The way of a flow to its agent.
pub(super) struct ToAgent {
    pub(super) end: FlowEnd,
    pub(super) refusal: AgentRefusal,
}

/// A way with the endpoint that it leads to.
pub(super) struct Upstream {
    pub(super) backend: Arc<str>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) stats: Arc<EntryStats>,
    pub(super) way: Way,
}

impl Upstream {
    /// Picks an endpoint, not one of `tried` while there are others, and opens a way to it. An endpoint without a
    /// route is charged, and the next one is tried. What an agent says of its flow comes later.
    pub(super) fn open(
        worker: &Worker,
        listener: &Shared,
        client: SocketAddr,
        mut tried: Vec<Address>,
        offset: u16,
    ) -> Result<Self, Dropped> {
        let spec = listener.spec.load();
        let draw = Draw {
            ticket: listener.tickets.fetch_add(1, Relaxed),
            chance: worker.chance(),
            source: client.ip(),
            now: worker.process.clock.seconds(),
        };
        let targets = listener.targets.load();
        for attempt in 0..MOST_TRIES {
            let (entry, endpoint) = targets.pick(spec.policy, draw, &tried).ok_or(Dropped::NoBackend)?;
            if attempt > 0 {
                // Where all were tried, a pick repeats one.
                if tried.contains(&endpoint.address) {
                    break;
                }
                listener.counters.retries.fetch_add(1, Relaxed);
            }
            let opened = match endpoint.address.shifted(offset) {
                Address::Socket(to) => net::upstream_udp(to).and_then(UdpSocket::from_std).map(Way::Socket),
                Address::Agent(to) => {
                    let end = worker.process.agents.open_flow(&to, canonical(client));
                    let refusal = AgentRefusal::none(!tried.is_empty());
                    end.map(|end| Way::Agent(Box::new(ToAgent { end, refusal })))
                }
            };
            let error = match opened {
                Ok(way) => {
                    let (backend, stats) = (entry.id.clone(), entry.stats.clone());
                    return Ok(Self { backend, endpoint: endpoint.clone(), stats, way });
                }
                Err(error) => error,
            };
            entry.stats.failures.fetch_add(1, Relaxed);
            if !is_without_route(&error) {
                break;
            }
            charge(worker, listener, &entry.id, endpoint, &error);
            tried.push(endpoint.address.clone());
        }
        Err(Dropped::SendFailed)
    }
}

/// A client as people read it: sockets of IPv6 show those of IPv4 as mapped addresses.
pub(super) fn canonical(client: SocketAddr) -> SocketAddr {
    SocketAddr::new(client.ip().to_canonical(), client.port())
}

/// Whether this error of a new socket is the endpoint's. Unlike on TCP, `EADDRNOTAVAIL` never means that no port is free
/// (that is `EAGAIN`), but that this host has no address to reach the endpoint from.
fn is_without_route(error: &io::Error) -> bool {
    net::is_of_the_endpoint(error) || net::is_absent(error)
}

/// Whether an error says that the system has closed the socket of a flow. The endpoint may be as good as before.
pub(super) fn is_closed(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| CLOSED.iter().any(|errno| errno.raw_os_error() == number))
}

/// Counts a failure of an endpoint, and logs its ejection.
pub(super) fn charge(worker: &Worker, listener: &Shared, backend: &str, endpoint: &Endpoint, error: &io::Error) {
    let outlier = listener.spec.load().outlier;
    if endpoint.failed(outlier, worker.process.clock.seconds()) {
        listener.counters.ejected.fetch_add(1, Relaxed);
        let message = format!(
            "endpoint {} of {backend} is ejected for {} s: it is unreachable (it is still tried while no other is \
             healthy); last error: {error}",
            endpoint.address, outlier.eject_seconds
        );
        worker.process.log.notice(Level::Warn, "ejected", &listener.id, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_charged_for_having_no_route_and_not_for_a_host_without_room() {
        let is_charged = |error: Errno| is_without_route(&io::Error::from(error));
        for error in [Errno::NETUNREACH, Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT, Errno::INVAL] {
            assert!(is_charged(error), "{error}");
        }
        for error in [Errno::MFILE, Errno::AGAIN, Errno::NOBUFS] {
            assert!(!is_charged(error), "{error}");
        }
    }

    #[test]
    fn a_socket_without_a_peer_is_closed_and_one_whose_peer_refuses_is_not() {
        let alone = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let error = alone.send(b"x").expect_err("no destination");
        assert!(is_closed(&error), "{error}");
        assert!(!is_closed(&io::Error::from(Errno::CONNREFUSED)));
    }
}
