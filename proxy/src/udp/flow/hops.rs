//! The hop limits of what a flow sends to its endpoint.

use std::{cell::Cell, io, net::IpAddr, os::fd::AsFd};

use crate::{core::udp::hop_limit, net};

/// Hop limits of the socket of a flow.
#[derive(Debug, Default)]
pub(super) struct Hops {
    /// That of the next datagram; `None` is the one of a new socket.
    next: Cell<Option<u8>>,
    /// Whether a datagram was sent that a router on the way may have dropped for its hop limit.
    may_have_run_out: Cell<bool>,
}

impl Hops {
    /// Has the next datagrams leave with this hop limit. As a rule all datagrams of a flow have the same one, so that the
    /// system is told once.
    pub(super) fn set(&self, socket: &impl AsFd, to: IpAddr, hop_limit: Option<u8>) {
        let Some(hops) = hop_limit.filter(|_| hop_limit != self.next.get()) else { return };
        if net::set_hop_limit(socket, to, hops).is_ok() {
            self.next.set(hop_limit);
        }
        if hop_limit::may_run_out(hops) {
            self.may_have_run_out.set(true);
        }
    }

    /// Sends, and once more if the system reports what became of an earlier datagram instead of sending this one.
    pub(super) fn send(&self, send: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match send() {
            Err(error) if self.may_be_of_a_router(&error) => send(),
            result => result,
        }
    }

    /// Whether an error may be the answer of a router that found the hop limit of an earlier datagram used up.
    pub(super) fn may_be_of_a_router(&self, error: &io::Error) -> bool {
        self.may_have_run_out.get() && error.kind() == io::ErrorKind::HostUnreachable
    }

    /// Whether an error belongs to the endpoint or the way to it. A router that finds a hop limit used up answers as one that
    /// has no way to the endpoint, and the client has chosen the hop limit: no client may have endpoints ejected that way.
    pub(super) fn is_of_the_endpoint(&self, error: &io::Error) -> bool {
        net::is_of_the_endpoint(error) && !self.may_be_of_a_router(error)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_client_that_sends_with_few_hops_has_no_endpoint_ejected() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let set = |hops: &Hops, hop_limit| hops.set(&socket, IpAddr::from([127, 0, 0, 1]), hop_limit);
        let unreachable = io::Error::from(Errno::HOSTUNREACH);
        let hops = Hops::default();
        for many in [None, Some(63), Some(40)] {
            set(&hops, many);
            assert!(hops.is_of_the_endpoint(&unreachable), "{many:?}");
        }
        set(&hops, Some(1));
        assert_eq!(socket.ttl().expect("option"), 1);
        assert!(!hops.is_of_the_endpoint(&unreachable));
        // The answer to the datagram before may come after this one was sent.
        set(&hops, Some(63));
        assert_eq!(socket.ttl().expect("option"), 63);
        assert!(!hops.is_of_the_endpoint(&unreachable));
        assert!(hops.is_of_the_endpoint(&io::Error::from(Errno::CONNREFUSED)), "the endpoint itself has answered");
    }

    #[test]
    fn a_datagram_is_not_lost_to_the_answer_to_one_with_few_hops_before_it() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let hops = Hops::default();
        let tries = Cell::new(0);
        let answered = || match tries.replace(tries.get() + 1) {
            0 => Err(Errno::HOSTUNREACH.into()),
            _ => Ok(()),
        };
        assert!(hops.send(answered).is_err(), "no datagram had few hops: the endpoint is unreachable");
        hops.set(&socket, IpAddr::from([127, 0, 0, 1]), Some(2));
        tries.set(0);
        hops.send(answered).expect("sent at the second attempt");
        assert_eq!(tries.get(), 2);
        assert!(hops.send(|| Err(Errno::HOSTUNREACH.into())).is_err(), "it does not try for ever");
    }
}
