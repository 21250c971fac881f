//! Requests at a fixed rate, whether answers come or not. Latency counts from the time at which a request was due, so
//! that a stall is seen by every request that it delays.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use harness::{connect, round_trip};

use super::{Done, Load};
use crate::poll::{EventFlags, Poll, Ticks, now};

/// Bytes of a message.
const MESSAGE: usize = 64;
/// Longest wait for answers after the end; a request without one has failed.
const LATEST: Duration = Duration::from_secs(5);
/// Most bytes that are read at once.
const READ: usize = 64 * MESSAGE;

struct Lane {
    stream: TcpStream,
    /// When the unanswered requests were due, the oldest first.
    due: VecDeque<Instant>,
    answered: usize,
}

/// Connections of one client, which requests use in turn.
pub(crate) struct OpenLoop {
    poll: Poll,
    lanes: Vec<Lane>,
    interval: Duration,
    next: usize,
    ticks: Ticks,
}

impl OpenLoop {
    pub(crate) fn new(port: u16, connections: usize, per_second: u32) -> Self {
        let (poll, interval) = (Poll::new(), Duration::from_secs(1) / per_second);
        let open = |token| {
            let mut stream = connect(port).expect("connect");
            stream.set_nodelay(true).expect("option");
            round_trip(&mut stream, &[5; MESSAGE]).expect("echo");
            stream.set_nonblocking(true).expect("option");
            poll.add(&stream, token, EventFlags::IN);
            Lane { stream, due: VecDeque::new(), answered: 0 }
        };
        let lanes: Vec<_> = (0..connections).map(open).collect();
        let ticks = Ticks::every(interval);
        poll.add(&ticks, lanes.len(), EventFlags::IN);
        Self { poll, lanes, interval, next: 0, ticks }
    }

    fn send(&mut self, due: Instant) {
        let at = self.next % self.lanes.len();
        self.next += 1;
        if let Some(lane) = self.lanes.get_mut(at) {
            // A forwarder that is so late that nothing fits any more has failed.
            lane.stream.write_all(&[5; MESSAGE]).expect("write");
            lane.due.push_back(due);
        }
    }
}

impl Lane {
    fn read(&mut self, done: &mut Done) {
        let mut buffer = [0; READ];
        let Some(read) = now(self.stream.read(&mut buffer)) else { return };
        let read = read.expect("echo");
        assert!(read > 0, "the forwarder closed a connection");
        let arrived = Instant::now();
        self.answered += read;
        while self.answered >= MESSAGE {
            self.answered -= MESSAGE;
            if let Some(due) = self.due.pop_front() {
                done.complete(arrived.saturating_duration_since(due));
            }
        }
    }
}

impl Load for OpenLoop {
    fn run(&mut self, until: Instant) -> Done {
        let mut done = Done::default();
        let mut due = Instant::now();
        loop {
            for ready in self.poll.wait(until + LATEST) {
                match self.lanes.get_mut(ready.token) {
                    Some(lane) => lane.read(&mut done),
                    None => self.ticks.take(),
                }
            }
            let arrived = Instant::now();
            while due <= arrived && due < until {
                self.send(due);
                due += self.interval;
            }
            // The answers that are late count most, so they are waited for.
            let open: usize = if arrived >= until { self.lanes.iter().map(|lane| lane.due.len()).sum() } else { 0 };
            if arrived >= until && (open == 0 || arrived >= until + LATEST) {
                done.lost += open as u64;
                return done;
            }
        }
    }
}
