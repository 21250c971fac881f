//! Long streams: as many bytes as the forwarder moves.

use std::{net::TcpStream, time::Instant};

use super::{Done, Load};
use crate::{
    bytes::Bytes,
    poll::{EventFlags, Poll},
};

/// Streams of one client.
pub(crate) struct Bulk {
    poll: Poll,
    streams: Vec<TcpStream>,
    bytes: Bytes,
}

impl Bulk {
    /// Streams up to a server that discards them (`OUT`), down from one that sends (`IN`), or both.
    pub(crate) fn new(port: u16, count: usize, flags: EventFlags) -> Self {
        let poll = Poll::new();
        let open = |token| {
            let stream = harness::connect(port).expect("connect");
            stream.set_nonblocking(true).expect("option");
            poll.add(&stream, token, flags);
            stream
        };
        let streams = (0..count).map(open).collect();
        Self { poll, streams, bytes: Bytes::new() }
    }
}

impl Load for Bulk {
    fn run(&mut self, until: Instant) -> Done {
        let mut done = Done::default();
        while Instant::now() < until {
            for ready in self.poll.wait(until) {
                let Some(stream) = self.streams.get(ready.token) else { continue };
                if ready.is_readable() {
                    done.bytes += self.bytes.discard(stream).expect("the stream continues");
                }
                if ready.is_writable() {
                    done.bytes += self.bytes.send(stream).expect("the stream continues");
                }
            }
        }
        done
    }
}
