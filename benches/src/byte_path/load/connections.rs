//! New connections: each echoes one byte and is reset, so that no port stays in `TIME_WAIT`.

use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::{Done, Load};
use crate::poll::{EventFlags, Poll};

/// Connections at the same time: enough to keep a forwarder busy, few enough for any queue of new connections.
const AT_ONCE: usize = 32;

/// One client.
pub(crate) struct Connections {
    poll: Poll,
    address: SocketAddr,
    live: Vec<Option<(TcpStream, Instant)>>,
}

impl Connections {
    pub(crate) fn new(port: u16) -> Self {
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Self { poll: Poll::new(), address, live: (0..AT_ONCE).map(|_| None).collect() }
    }

    fn open(&mut self, slot: usize) {
        let began = Instant::now();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.set_linger(Some(Duration::ZERO)).expect("option");
        // On loopback the system completes this at once.
        socket.connect(&self.address.into()).expect("connect");
        socket.send(b"x").expect("send");
        let stream = TcpStream::from(socket);
        self.poll.add(&stream, slot, EventFlags::IN);
        if let Some(place) = self.live.get_mut(slot) {
            *place = Some((stream, began));
        }
    }
}

impl Load for Connections {
    fn run(&mut self, until: Instant) -> Done {
        let mut done = Done::default();
        for slot in 0..AT_ONCE {
            if self.live.get(slot).is_some_and(Option::is_none) {
                self.open(slot);
            }
        }
        loop {
            for ready in self.poll.wait(until) {
                let Some((mut stream, began)) = self.live.get_mut(ready.token).and_then(Option::take) else { continue };
                match stream.read(&mut [0]) {
                    Ok(1) => done.complete(began.elapsed()),
                    Ok(_) | Err(_) => done.lost += 1,
                }
                drop(stream);
                self.open(ready.token);
            }
            if Instant::now() >= until {
                return done;
            }
        }
    }
}
