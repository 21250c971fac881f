//! Busy connections: each sends the next message when it has the answer to the last one.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Instant,
};

use harness::{connect, round_trip};

use super::{Done, Load};
use crate::poll::{EventFlags, Poll, now};

/// Bytes of a message.
const MESSAGE: usize = 64;

struct Call {
    stream: TcpStream,
    /// When the message was sent; `None` between two stretches.
    sent: Option<Instant>,
    answered: usize,
}

/// Connections of one client.
pub(crate) struct Calls {
    poll: Poll,
    calls: Vec<Call>,
    /// Open, and without traffic.
    _idle: Vec<TcpStream>,
}

impl Calls {
    /// So many busy connections, and so many idle ones, which are there first.
    pub(crate) fn new(port: u16, count: usize, idle: usize) -> Self {
        let poll = Poll::new();
        let connected = || {
            let mut stream = connect(port).expect("connect");
            stream.set_nodelay(true).expect("option");
            // One after the other, so that no queue of new connections overflows.
            round_trip(&mut stream, &[5; MESSAGE]).expect("echo");
            stream
        };
        let idle = (0..idle).map(|_| connected()).collect();
        let open = |token| {
            let stream = connected();
            stream.set_nonblocking(true).expect("option");
            poll.add(&stream, token, EventFlags::IN);
            Call { stream, sent: None, answered: 0 }
        };
        let calls = (0..count).map(open).collect();
        Self { poll, calls, _idle: idle }
    }
}

impl Call {
    fn send(&mut self, at: Instant) {
        // A connection has no more than one small message on its way, so there is room for it.
        self.stream.write_all(&[5; MESSAGE]).expect("write");
        (self.sent, self.answered) = (Some(at), 0);
    }

    /// Reads what is there. Whether the answer is complete.
    fn read(&mut self) -> bool {
        let mut buffer = [0; MESSAGE];
        let read = now(self.stream.read(&mut buffer)).map_or(0, |read| match read.expect("echo") {
            0 => panic!("the forwarder closed a busy connection"),
            read => read,
        });
        self.answered += read;
        self.answered >= MESSAGE
    }
}

impl Load for Calls {
    fn run(&mut self, until: Instant) -> Done {
        let mut done = Done::default();
        let began = Instant::now();
        self.calls.iter_mut().filter(|call| call.sent.is_none()).for_each(|call| call.send(began));
        loop {
            for ready in self.poll.wait(until) {
                let Some(call) = self.calls.get_mut(ready.token) else { continue };
                if !call.read() {
                    continue;
                }
                let answered = Instant::now();
                if let Some(sent) = call.sent.take() {
                    done.complete(answered - sent);
                }
                call.send(answered);
            }
            if Instant::now() >= until {
                return done;
            }
        }
    }
}
