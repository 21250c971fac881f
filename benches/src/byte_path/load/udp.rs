//! Datagrams of many flows, each with a bounded number of datagrams on their way.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use super::{Done, Load};
use crate::{
    poll::{EventFlags, Poll},
    subject::udp_client,
};

/// Bytes of the number at the start of a datagram.
const NUMBER: usize = size_of::<u64>();
/// Time without an answer after which a datagram is lost.
const LOST: Duration = Duration::from_millis(200);
/// Pause between two looks for lost datagrams.
const LOOK: Duration = Duration::from_millis(50);

struct Flow {
    socket: UdpSocket,
    /// Number of the next datagram.
    next: u64,
    /// Number of the next answer, if none is lost.
    expected: u64,
    /// The last answer.
    heard: Instant,
}

/// Flows of one client.
pub(crate) struct Datagrams {
    poll: Poll,
    flows: Vec<Flow>,
    window: u64,
    /// What is sent, with a number at its start, and the place for answers.
    datagram: Vec<u8>,
}

impl Datagrams {
    /// Flows with up to `window` datagrams of so many bytes on their way each.
    pub(crate) fn new(port: u16, count: usize, window: u64, bytes: usize) -> Self {
        let poll = Poll::new();
        let open = |token| {
            let socket = udp_client(port);
            socket.set_nonblocking(true).expect("option");
            poll.add(&socket, token, EventFlags::IN);
            Flow { socket, next: 0, expected: 0, heard: Instant::now() }
        };
        let flows = (0..count).map(open).collect();
        Self { poll, flows, window, datagram: vec![5; bytes] }
    }
}

impl Flow {
    fn fill(&mut self, window: u64, datagram: &mut [u8]) {
        while self.next < self.expected + window {
            datagram[..NUMBER].copy_from_slice(&self.next.to_le_bytes());
            if self.socket.send(datagram).is_err() {
                return;
            }
            self.next += 1;
        }
    }

    /// Takes the answers that are there. The numbers that one skips are lost, unless their answers are only late.
    fn take(&mut self, done: &mut Done, buffer: &mut [u8]) {
        let mut number = [0; NUMBER];
        while self.socket.recv(buffer).is_ok() {
            number.copy_from_slice(&buffer[..NUMBER]);
            let answered = u64::from_le_bytes(number);
            assert!(answered < self.next, "an answer to a datagram that was not sent");
            done.operations += 1;
            if answered < self.expected {
                done.lost = done.lost.saturating_sub(1);
            } else {
                done.lost += answered - self.expected;
                self.expected = answered + 1;
            }
            if self.expected >= self.next {
                break;
            }
        }
    }

    /// Counts the datagrams without an answer that no later answer has counted.
    fn give_up(&mut self, now: Instant) -> u64 {
        if now.saturating_duration_since(self.heard) < LOST {
            return 0;
        }
        let lost = self.next.saturating_sub(self.expected);
        (self.expected, self.heard) = (self.next, now);
        lost
    }
}

impl Load for Datagrams {
    fn run(&mut self, until: Instant) -> Done {
        let mut done = Done::default();
        let mut look = Instant::now();
        for flow in &mut self.flows {
            flow.heard = look;
            flow.fill(self.window, &mut self.datagram);
        }
        loop {
            for ready in self.poll.wait(until.min(look + LOOK)) {
                let Some(flow) = self.flows.get_mut(ready.token) else { continue };
                flow.take(&mut done, &mut self.datagram);
                flow.heard = Instant::now();
                flow.fill(self.window, &mut self.datagram);
            }
            let now = Instant::now();
            if now >= look + LOOK {
                look = now;
                for flow in &mut self.flows {
                    done.lost += flow.give_up(now);
                    flow.fill(self.window, &mut self.datagram);
                }
            }
            if now >= until {
                return done;
            }
        }
    }
}
