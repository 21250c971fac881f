//! A socket of a program that uses trains: several datagrams arrive with one call, and leave with one.

use std::{
    io::{self, IoSliceMut},
    net::UdpSocket,
};

use proxy::{
    core::udp::{batch::SLOT_BYTES, trains},
    sys,
};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};

use crate::train;

/// What arrived with one call: a datagram, or a train that the system has not parted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived(RecvMeta);

impl Arrived {
    pub(crate) fn datagrams(self) -> usize {
        trains::split(0, self.0.len, self.0.stride).count()
    }
}

/// The socket, and the place for what arrives.
pub(crate) struct TrainSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    buffer: Vec<u8>,
}

impl TrainSocket {
    /// Lets the system leave trains whole that arrive at this socket.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = sys::datagrams(&socket)?;
        Ok(Self { socket, state, buffer: vec![0; SLOT_BYTES] })
    }

    /// Sends a train of datagrams of `size` bytes to the peer of a connected socket.
    pub(crate) fn send(&self, bytes: &[u8], size: u16) -> io::Result<()> {
        train::send(&self.socket, bytes, size)?;
        Ok(())
    }

    /// Waits for a datagram or a train, for no longer than the timeout of the socket.
    pub(crate) fn receive(&mut self) -> io::Result<Arrived> {
        let mut metas = [RecvMeta::default()];
        // With more than one place, a socket that blocks would wait until all of them are taken.
        let mut places = [IoSliceMut::new(&mut self.buffer)];
        self.state.recv(UdpSockRef::from(&self.socket), &mut places, &mut metas)?;
        let [meta] = metas;
        Ok(Arrived(meta))
    }

    /// Sends what has just arrived back, a train as a train.
    fn answer(&self, Arrived(meta): Arrived) -> io::Result<()> {
        let transmit = Transmit {
            destination: meta.addr,
            ecn: None,
            contents: self.buffer.get(..meta.len).unwrap_or_default(),
            segment_size: Some(meta.stride),
            src_ip: None,
        };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    /// Echoes datagrams and trains until the process ends.
    pub(crate) fn echo(mut self) {
        loop {
            let arrived = self.receive().expect("a datagram");
            // What cannot be sent is lost, which the client counts.
            let _ = self.answer(arrived);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, thread};

    use harness::PATIENCE;

    use super::*;

    const DATAGRAMS: usize = 20;
    const BYTES: u16 = 1200;

    fn bound() -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        socket.set_read_timeout(Some(PATIENCE)).expect("option");
        socket
    }

    fn connected(to: &UdpSocket) -> UdpSocket {
        let socket = bound();
        socket.connect(to.local_addr().expect("address")).expect("connect");
        socket
    }

    /// The number of datagrams of each arrival, until a whole train has arrived.
    fn arrivals(socket: &mut TrainSocket) -> Vec<usize> {
        let mut found = Vec::new();
        while found.iter().sum::<usize>() < DATAGRAMS {
            found.push(socket.receive().expect("a datagram").datagrams());
        }
        found
    }

    /// Whether this system has trains in both directions.
    fn has_trains(socket: &TrainSocket) -> bool {
        socket.state.max_gso_segments() >= DATAGRAMS && socket.state.gro_segments() >= DATAGRAMS
    }

    #[test]
    fn a_train_arrives_whole_and_counts_as_its_datagrams() {
        let receiver = bound();
        let sender = TrainSocket::new(connected(&receiver)).expect("a socket");
        let mut receiver = TrainSocket::new(receiver).expect("a socket");
        if !has_trains(&receiver) {
            return;
        }
        sender.send(&vec![3; DATAGRAMS * usize::from(BYTES)], BYTES).expect("send");
        assert_eq!(arrivals(&mut receiver), [DATAGRAMS]);
    }

    #[test]
    fn datagrams_that_arrive_apart_are_counted_one_by_one() {
        let receiver = bound();
        let sender = connected(&receiver);
        let mut receiver = TrainSocket::new(receiver).expect("a socket");
        for _ in 0..DATAGRAMS {
            sender.send(&vec![3; usize::from(BYTES)]).expect("send");
        }
        assert_eq!(arrivals(&mut receiver), [1_usize; DATAGRAMS]);
    }

    #[test]
    fn a_train_is_answered_with_a_train_of_the_same_bytes_and_a_datagram_with_a_datagram() {
        let server = bound();
        let mut client = TrainSocket::new(connected(&server)).expect("a socket");
        let server = TrainSocket::new(server).expect("a socket");
        if !has_trains(&server) {
            return;
        }
        // The server must not end before the test does.
        server.socket.set_read_timeout(None).expect("option");
        thread::spawn(move || server.echo());
        // The last datagram is shorter than the others.
        let burst: Vec<u8> = (0..=u8::MAX).cycle().take(DATAGRAMS * usize::from(BYTES) - 1).collect();
        client.send(&burst, BYTES).expect("send");
        assert_eq!(arrivals(&mut client), [DATAGRAMS]);
        assert!(client.buffer.starts_with(&burst));
        client.socket.send(b"alone").expect("send");
        assert_eq!(client.receive().expect("an answer").datagrams(), 1);
        assert!(client.buffer.starts_with(b"alone"));
    }
}
