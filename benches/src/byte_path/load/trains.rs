//! Bursts of large datagrams of one client, each sent after the answers to the previous one: datagram by datagram, or as
//! a train.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use super::{Done, Load};
use crate::{
    subject::udp_client,
    train_socket::{Arrived, TrainSocket},
};

/// Time without an answer after which a datagram is lost.
const LOST: Duration = Duration::from_millis(200);

/// How the client sends a burst and takes the answers.
enum Client {
    /// Datagram by datagram.
    Plain { socket: UdpSocket, answer: Vec<u8> },
    /// As a train; answers that arrive as a train are taken with one call.
    Train(TrainSocket),
}

impl Client {
    fn send(&self, burst: &[u8]) {
        match self {
            Self::Plain { socket, .. } => {
                for datagram in burst.chunks(usize::from(Trains::BYTES)) {
                    socket.send(datagram).expect("send");
                }
            }
            Self::Train(socket) => socket.send(burst, Trains::BYTES).expect("send"),
        }
    }

    /// The number of answers that one call takes, unless none comes in time.
    fn receive(&mut self) -> Option<usize> {
        match self {
            Self::Plain { socket, answer } => socket.recv(answer).is_ok().then_some(1),
            Self::Train(socket) => socket.receive().ok().map(Arrived::datagrams),
        }
    }
}

/// One client.
pub(crate) struct Trains {
    client: Client,
    burst: Vec<u8>,
}

impl Trains {
    /// Datagrams of a burst, few enough for every buffer on the way.
    pub(crate) const DATAGRAMS: usize = 20;
    /// Size of the datagrams, in bytes.
    pub(crate) const BYTES: u16 = 1200;

    pub(crate) fn new(port: u16, is_train: bool) -> Self {
        Self::with_patience(port, is_train, LOST)
    }

    fn with_patience(port: u16, is_train: bool, patience: Duration) -> Self {
        let socket = udp_client(port);
        socket.set_read_timeout(Some(patience)).expect("option");
        let client = if is_train {
            Client::Train(TrainSocket::new(socket).expect("a socket"))
        } else {
            Client::Plain { socket, answer: vec![0; usize::from(Self::BYTES)] }
        };
        Self { client, burst: vec![3; Self::DATAGRAMS * usize::from(Self::BYTES)] }
    }

    /// Sends a burst and waits for the answers. Returns their number, with those of earlier bursts that come late.
    fn turn(&mut self) -> usize {
        self.client.send(&self.burst);
        let mut answers = 0;
        while answers < Self::DATAGRAMS {
            let Some(arrived) = self.client.receive() else { break };
            answers += arrived;
        }
        answers
    }
}

impl Load for Trains {
    fn run(&mut self, until: Instant) -> Done {
        let (mut done, mut sent) = (Done::default(), 0_u64);
        while Instant::now() < until {
            done.operations += self.turn() as u64;
            sent += Self::DATAGRAMS as u64;
        }
        done.lost = sent.saturating_sub(done.operations);
        done
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, thread};

    use harness::PATIENCE;

    use super::*;

    fn bound() -> (UdpSocket, u16) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = socket.local_addr().expect("address").port();
        (socket, port)
    }

    /// Echoes datagram by datagram, and returns the port.
    fn plain_server() -> u16 {
        let (socket, port) = bound();
        thread::spawn(move || {
            let mut buffer = vec![0; usize::from(u16::MAX)];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
        port
    }

    fn train_server() -> u16 {
        let (socket, port) = bound();
        let server = TrainSocket::new(socket).expect("a socket");
        thread::spawn(move || server.echo());
        port
    }

    #[test]
    fn every_datagram_is_answered_and_counted_whoever_uses_trains() {
        for server in [plain_server, train_server] {
            for is_train in [false, true] {
                let mut load = Trains::with_patience(server(), is_train, PATIENCE);
                let answers = [(); 2].map(|()| load.turn());
                assert_eq!(answers, [Trains::DATAGRAMS; 2], "train: {is_train}");
            }
        }
    }

    #[test]
    fn datagrams_without_an_answer_are_lost() {
        let (_silent, port) = bound();
        for is_train in [false, true] {
            let wait = Duration::from_millis(250);
            let mut load = Trains::with_patience(port, is_train, wait);
            // The first wait lasts until the end.
            let done = load.run(Instant::now() + wait);
            assert_eq!((done.operations, done.lost), (0, Trains::DATAGRAMS as u64), "train: {is_train}");
        }
    }
}
