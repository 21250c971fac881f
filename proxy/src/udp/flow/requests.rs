//! From the client of a flow to its endpoint.

use std::io;

use rustix::io::Errno;
use socket2::SockRef;

use super::{Flow, hops::Hops};
use crate::{
    core::udp::trains::{self, Datagram, Sent, Stop},
    shared::Dropped,
    sys,
    udp::{
        UdpListener, drop_datagrams,
        upstream::{self, Way},
    },
    worker::Worker,
};

/// Why a flow cannot send to its endpoint.
pub(in crate::udp) enum Gone {
    /// An earlier datagram was answered with an ICMP error, or this host has no route to the endpoint any more.
    Unreachable(io::Error),
    /// The system has closed the socket, or the flow to the agent is over. That says nothing about the endpoint.
    Closed,
}

/// Why a datagram or a train is dropped after this error, unless the flow cannot send at all.
fn classify(error: io::Error, is_train: bool, hops: &Hops) -> Result<Dropped, Gone> {
    // Many kernels say so of a train whose datagrams are larger than the path takes; a datagram alone is refused so by a
    // route. Sent alone, the datagrams of the train show which of the two it was.
    if is_train && error.raw_os_error().is_some_and(|code| code == Errno::INVAL.raw_os_error()) {
        return Ok(Dropped::SendFailed);
    }
    if upstream::is_closed(&error) {
        return Err(Gone::Closed);
    }
    if hops.is_of_the_endpoint(&error) {
        return Err(Gone::Unreachable(error));
    }
    // A socket that reports errors gets those of a full queue of the network interface too.
    let is_full = error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error().is_some_and(|code| code == Errno::NOBUFS.raw_os_error());
    Ok(if is_full { Dropped::SendBufferFull } else { Dropped::SendFailed })
}

impl Flow {
    /// Sends datagrams, received into `bytes` at `now` (milliseconds), to the endpoint.
    pub(in crate::udp) fn send(
        &self,
        worker: &Worker,
        socket: &UdpListener,
        (bytes, datagrams): (&[u8], &[Datagram]),
        now: u64,
    ) -> Result<(), Stop<Gone>> {
        let limited_at = self.listener.limiter.bytes.is_limited().then_some(now);
        let trains = match self.way {
            Way::Socket(_) => socket.trains(&self.trains_up, limited_at),
            Way::Agent(_) => None,
        };
        trains::pass(datagrams, trains, |train| self.send_train(worker, bytes, train, limited_at))
    }

    /// Sends a train, or a datagram alone.
    fn send_train(&self, worker: &Worker, bytes: &[u8], train: &[Datagram], limited_at: Option<u64>) -> Sent<Gone> {
        let mut scratch = worker.scratch.borrow_mut();
        let joined = trains::join(bytes, train, &mut scratch);
        if limited_at.is_some_and(|now| !self.listener.limiter.bytes.take(joined.len(), now)) {
            drop_datagrams(&self.listener, Dropped::Bandwidth, train.len());
            return Sent::Done;
        }
        let segment = trains::segment(train);
        let sent = match &self.way {
            Way::Socket(upstream) => {
                let attempt = || match segment {
                    Some(segment) => sys::send_train(upstream, joined, segment),
                    None => SockRef::from(upstream).send(joined).map(|_| ()),
                };
                let sent = self.hops.send(|| self.fragments.send(upstream, segment.is_some(), attempt));
                sent.map_err(|error| classify(error, segment.is_some(), &self.hops))
            }
            Way::Agent(agent) => self.hand_over(worker, agent, joined),
        };
        match sent {
            Ok(()) => {
                self.up.set(self.up.get() + joined.len() as u64);
                Sent::Done
            }
            Err(Ok(Dropped::SendFailed)) if segment.is_some() => Sent::Refused,
            Err(Ok(reason)) => {
                drop_datagrams(&self.listener, reason, train.len());
                Sent::Done
            }
            Err(Err(gone)) => Sent::Stopped(gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_train_says_nothing_about_the_endpoint_and_a_refused_datagram_does() {
        let found = |error: Errno, is_train| classify(error.into(), is_train, &Hops::default()).ok();
        for error in [Errno::INVAL, Errno::IO, Errno::MSGSIZE] {
            assert_eq!(found(error, true), Some(Dropped::SendFailed), "{error}");
        }
        assert_eq!(found(Errno::INVAL, false), None, "a route refuses");
        assert_eq!(found(Errno::CONNREFUSED, true), None);
        assert_eq!(found(Errno::NOBUFS, true), Some(Dropped::SendBufferFull));
    }
}
