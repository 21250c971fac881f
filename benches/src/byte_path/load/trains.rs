//! Bursts of large datagrams of one client, each sent after the answers to the previous one: datagram by datagram, or as
//! a train that the system parts.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use super::{Done, Load};
use crate::{subject::udp_client, train};

/// Time without an answer after which a datagram is lost.
const LOST: Duration = Duration::from_millis(200);

/// One client.
pub(crate) struct Trains {
    client: UdpSocket,
    burst: Vec<u8>,
    is_train: bool,
}

impl Trains {
    /// Datagrams of a burst, few enough for every buffer on the way.
    pub(crate) const DATAGRAMS: usize = 20;
    /// Size of the datagrams, in bytes.
    pub(crate) const BYTES: u16 = 1200;

    pub(crate) fn new(port: u16, is_train: bool) -> Self {
        let client = udp_client(port);
        client.set_read_timeout(Some(LOST)).expect("option");
        Self { client, burst: vec![3; Self::DATAGRAMS * usize::from(Self::BYTES)], is_train }
    }

    fn send(&self) {
        if self.is_train {
            train::send(&self.client, &self.burst, Self::BYTES).expect("send");
        } else {
            self.burst.chunks(usize::from(Self::BYTES)).for_each(|datagram| {
                self.client.send(datagram).expect("send");
            });
        }
    }
}

impl Load for Trains {
    fn run(&mut self, until: Instant) -> Done {
        let mut done = Done::default();
        let mut answer = vec![0; usize::from(Self::BYTES)];
        while Instant::now() < until {
            self.send();
            let answers = (0..Self::DATAGRAMS).take_while(|_| self.client.recv(&mut answer).is_ok()).count();
            done.operations += answers as u64;
            done.lost += (Self::DATAGRAMS - answers) as u64;
        }
        done
    }
}
