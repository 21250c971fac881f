//! Forwarders that differ in how they wait for sockets and in how bytes get from one to the other, and in little else.

mod epoll;
mod own_loop;
mod polling;
mod threads;

use std::net::TcpListener;

use self::epoll::Carrier;

/// How a forwarder of the bench does I/O. Sizes are in KiB, of one direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Model {
    /// A thread for each direction, which blocks.
    Threads,
    /// One thread, which asks for all sockets again with every `poll`.
    Poll,
    /// One thread, which tries all sockets again and never sleeps.
    Busy,
    /// One thread with epoll, and new buffers for each connection.
    Copy(usize),
    /// The same with buffers that earlier connections have had.
    Reuse(usize),
    /// One thread with epoll and without a runtime, and a buffer that all connections share.
    OwnLoop(usize),
    /// One thread with epoll, and new pipes for each connection.
    Splice(usize),
}

impl Model {
    pub(crate) const ALL: [Self; 12] = [
        Self::Threads,
        Self::Poll,
        Self::Busy,
        Self::Copy(4),
        Self::Copy(16),
        Self::Copy(64),
        Self::Copy(256),
        Self::Reuse(64),
        Self::OwnLoop(64),
        Self::Splice(64),
        Self::Splice(256),
        Self::Splice(1024),
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Self::Threads => "threads".to_owned(),
            Self::Poll => "poll".to_owned(),
            Self::Busy => "busy polling".to_owned(),
            Self::Copy(kib) => format!("epoll, copy {kib} KiB"),
            Self::Reuse(kib) => format!("epoll, copy {kib} KiB, reused buffers"),
            Self::OwnLoop(kib) => format!("epoll, copy {kib} KiB, own loop"),
            Self::Splice(kib) => format!("epoll, splice {kib} KiB"),
        }
    }

    /// The model with this name.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|model| model.name() == name);
        found.ok_or_else(|| format!("expected one of: {}", Self::ALL.map(Self::name).join("; ")))
    }

    /// Forwards what these listeners accept to the port beside each, on loopback, until the process ends.
    pub(super) fn run(self, pairs: Vec<(TcpListener, u16)>) {
        match self {
            Self::Threads => threads::run(pairs),
            Self::Poll => polling::run(&pairs, true),
            Self::Busy => polling::run(&pairs, false),
            Self::Copy(kib) => epoll::run(pairs, Carrier::Buffer { bytes: kib << 10, is_reused: false }),
            Self::Reuse(kib) => epoll::run(pairs, Carrier::Buffer { bytes: kib << 10, is_reused: true }),
            Self::OwnLoop(kib) => own_loop::run(&pairs, kib << 10),
            Self::Splice(kib) => epoll::run(pairs, Carrier::Pipe { bytes: kib << 10 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read, Write},
        net::{Shutdown, TcpStream},
        thread,
        time::Duration,
    };

    use harness::{PATIENCE, connect, until};
    use socket2::SockRef;

    use super::*;
    use crate::servers::listen;

    /// Bytes of a direction: more than the largest pipe holds.
    const BYTES: usize = 4 << 20;

    /// Starts a forwarder to a server on a port of its own. The server, and the port of the forwarder.
    fn start(model: Model) -> (TcpListener, u16) {
        let (server, front) = (listen(0), listen(0));
        let port = |listener: &TcpListener| listener.local_addr().expect("address").port();
        let (to, from) = (port(&server), port(&front));
        thread::spawn(move || model.run(vec![(front, to)]));
        (server, from)
    }

    /// A connection through the forwarder: the ends of client and server.
    fn open(server: &TcpListener, port: u16) -> (TcpStream, TcpStream) {
        let (client, mut accepted) = (connect(port).expect("connect"), None);
        until("the forwarder has connected", || {
            accepted = server.accept().ok();
            accepted.is_some()
        });
        let (peer, _) = accepted.expect("a connection");
        peer.set_read_timeout(Some(PATIENCE)).expect("option");
        peer.set_write_timeout(Some(PATIENCE)).expect("option");
        (client, peer)
    }

    /// Sends bytes and the end of the direction, and reads at the other side until there.
    fn send(mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8]) -> Vec<u8> {
        let mut received = Vec::new();
        thread::scope(|scope| {
            scope.spawn(move || {
                from.write_all(bytes).expect("write");
                from.shutdown(Shutdown::Write).expect("half-close");
            });
            to.read_to_end(&mut received).expect("the end after the bytes");
        });
        received
    }

    #[test]
    fn every_byte_arrives_in_order_before_the_end_of_its_direction() {
        let bytes: Vec<u8> = (0..=250).cycle().take(BYTES).collect();
        for model in Model::ALL {
            let (server, port) = start(model);
            // The second connection may have the buffers of the first one.
            for _ in 0..2 {
                let (client, peer) = open(&server, port);
                assert!(send(&client, &peer, &bytes) == bytes, "{}: up", model.name());
                // The client has finished; the other direction continues.
                assert!(send(&peer, &client, &bytes) == bytes, "{}: down", model.name());
            }
        }
    }

    #[test]
    fn both_directions_move_at_the_same_time() {
        let bytes: Vec<u8> = (0..=250).cycle().take(BYTES).collect();
        for model in Model::ALL {
            let (server, port) = start(model);
            let (client, peer) = open(&server, port);
            let (up, down) = thread::scope(|scope| {
                let up = scope.spawn(|| send(&client, &peer, &bytes));
                (send(&peer, &client, &bytes), up.join().expect("up"))
            });
            assert!(up == bytes && down == bytes, "{}", model.name());
        }
    }

    #[test]
    fn a_connection_that_is_reset_ends_on_the_other_side() {
        for model in Model::ALL {
            let (server, port) = start(model);
            let ((mut client, mut peer), mut byte) = (open(&server, port), [0]);
            client.write_all(b"x").expect("write");
            peer.read_exact(&mut byte).expect("read");
            peer.write_all(&byte).expect("write");
            client.read_exact(&mut byte).expect("read");
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("option");
            drop(client);
            // The end or a reset; a read that has waited for too long is neither.
            match peer.read(&mut byte) {
                Ok(read) => assert_eq!(read, 0, "{}", model.name()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{}", model.name()),
            }
        }
    }

    #[test]
    fn models_are_found_by_their_names() {
        assert!(Model::ALL.into_iter().all(|model| Model::named(&model.name()) == Ok(model)));
        assert!(Model::named("select").is_err());
    }
}
