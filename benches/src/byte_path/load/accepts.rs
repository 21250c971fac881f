//! New connections beside long streams: from the start of a connect until the answer to its first byte.

use std::{
    thread,
    time::{Duration, Instant},
};

use harness::{connect, round_trip};
use socket2::SockRef;

use super::{Bulk, Done, Load};
use crate::{poll::rest, process::prefer_this_thread};

/// Pause between two connections.
const PAUSE: Duration = Duration::from_millis(2);

/// Streams, and a client beside them.
pub(crate) struct Accepts {
    bulk: Bulk,
    port: u16,
}

impl Accepts {
    /// `port`: of the echo server.
    pub(crate) fn new(bulk: Bulk, port: u16) -> Self {
        Self { bulk, port }
    }
}

impl Load for Accepts {
    fn run(&mut self, until: Instant) -> Done {
        let port = self.port;
        thread::scope(|scope| {
            let client = scope.spawn(move || knock(port, until));
            let _ = self.bulk.run(until);
            client.join().expect("the client ends")
        })
    }
}

fn knock(port: u16, until: Instant) -> Done {
    prefer_this_thread();
    let mut done = Done::default();
    while Instant::now() < until {
        let began = Instant::now();
        let opened = connect(port).and_then(|mut stream| round_trip(&mut stream, b"x").map(|_| stream));
        match opened {
            Ok(stream) => {
                done.complete(began.elapsed());
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
            Err(_) => done.lost += 1,
        }
        rest(PAUSE);
    }
    done
}
