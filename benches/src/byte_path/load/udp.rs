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

/// Bytes of a datagram.
const BYTES: usize = 64;
/// A datagram without an answer for so long is lost.
const LOST: Duration = Duration::from_millis(200);
/// Pause between two looks for lost datagrams.
const LOOK: Duration = Duration::from_millis(50);

struct Flow {
    socket: UdpSocket,
    /// Datagrams without an answer.
    open: usize,
    /// The last answer.
    heard: Instant,
}

/// Flows of one client.
pub(crate) struct Datagrams {
    poll: Poll,
    flows: Vec<Flow>,
    window: usize,
}

impl Datagrams {
    /// Flows with up to `window` datagrams on their way each.
    pub(crate) fn new(port: u16, count: usize, window: usize) -> Self {
        let poll = Poll::new();
        let open = |token| {
            let socket = udp_client(port);
            socket.set_nonblocking(true).expect("option");
            poll.add(&socket, token, EventFlags::IN);
            Flow { socket, open: 0, heard: Instant::now() }
        };
        let flows = (0..count).map(open).collect();
        Self { poll, flows, window }
    }
}

impl Flow {
    fn fill(&mut self, window: usize) {
        while self.open < window && self.socket.send(&[5; BYTES]).is_ok() {
            self.open += 1;
        }
    }

    /// Takes the answers that are there; how many.
    fn take(&mut self) -> usize {
        let (mut buffer, mut taken) = ([0; BYTES], 0);
        while self.open > 0 && self.socket.recv(&mut buffer).is_ok() {
            self.open -= 1;
            taken += 1;
        }
        taken
    }

    /// Counts the datagrams that do not come any more.
    fn give_up(&mut self, now: Instant) -> usize {
        if self.open == 0 || now.saturating_duration_since(self.heard) < LOST {
            return 0;
        }
        // Answers that are late after all belong to no datagram of the next window.
        while self.socket.recv(&mut [0; BYTES]).is_ok() {}
        self.heard = now;
        std::mem::take(&mut self.open)
    }
}

impl Load for Datagrams {
    fn run(&mut self, until: Instant) -> Done {
        let mut done = Done::default();
        let mut look = Instant::now();
        for flow in &mut self.flows {
            flow.heard = look;
            flow.fill(self.window);
        }
        loop {
            for ready in self.poll.wait(until.min(look + LOOK)) {
                let Some(flow) = self.flows.get_mut(ready.token) else { continue };
                let taken = flow.take();
                if taken > 0 {
                    flow.heard = Instant::now();
                    done.operations += taken as u64;
                }
                flow.fill(self.window);
            }
            let now = Instant::now();
            if now >= look + LOOK {
                look = now;
                for flow in &mut self.flows {
                    done.lost += flow.give_up(now) as u64;
                    flow.fill(self.window);
                }
            }
            if now >= until {
                return done;
            }
        }
    }
}
