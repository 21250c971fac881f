//! One thread for all connections, without epoll: it asks for the state of every socket each time, by `poll(2)` or by
//! trying to read and write.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    ops::Range,
    os::fd::AsFd,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::retry_on_intr,
};

use crate::poll::now;

/// Bytes of the buffer of a direction.
const BUFFER: usize = 16 << 10;

/// Forwards until the process ends. Unless it sleeps in `poll`, it takes every socket for ready.
pub(super) fn run(pairs: &[(TcpListener, u16)], sleeps: bool) {
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        let found = if sleeps { wait(pairs, &connections) } else { Vec::new() };
        let mut found = found.into_iter();
        let mut next = || found.next().unwrap_or(if sleeps { PollFlags::empty() } else { PollFlags::all() });
        connections.retain_mut(|connection| {
            let (client, server) = (next(), next());
            connection.turn(client, server).unwrap_or(false)
        });
        for (listener, to) in pairs {
            if next().intersects(PollFlags::IN) {
                accept(listener, *to, &mut connections);
            }
        }
    }
}

/// Waits, and tells what was found: of client and server of each connection, and of each listener.
fn wait(pairs: &[(TcpListener, u16)], connections: &[Connection]) -> Vec<PollFlags> {
    let mut files = Vec::with_capacity(2 * connections.len() + pairs.len());
    for Connection { client, server, up, down } in connections {
        for (socket, flags) in [(client, wanted(up, down)), (server, wanted(down, up))] {
            // The end of a socket without interest would be reported again and again. A listener has none.
            let unwanted = pairs.first().filter(|_| flags.is_empty()).map(|(listener, _)| listener.as_fd());
            files.push(PollFd::from_borrowed_fd(unwanted.unwrap_or(socket.as_fd()), flags));
        }
    }
    files.extend(pairs.iter().map(|(listener, _)| PollFd::new(listener, PollFlags::IN)));
    retry_on_intr(|| poll(&mut files, None)).expect("poll");
    files.iter().map(PollFd::revents).collect()
}

/// The interest in a socket, by the direction that reads from it and the one that writes to it.
fn wanted(from: &Direction, to: &Direction) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, from.held.is_empty() && !from.has_ended);
    flags.set(PollFlags::OUT, !to.held.is_empty());
    flags
}

fn accept(listener: &TcpListener, to: u16, connections: &mut Vec<Connection>) {
    while let Ok((client, _)) = listener.accept() {
        // A connection that does not get to the server is closed.
        if let Ok(connection) = Connection::open(client, to) {
            connections.push(connection);
        }
    }
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// From the client to the server.
    up: Direction,
    down: Direction,
}

impl Connection {
    fn open(client: TcpStream, to: u16) -> io::Result<Self> {
        // On loopback the system completes this at once.
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, to))?;
        for socket in [&client, &server] {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
        }
        Ok(Self { client, server, up: Direction::new(), down: Direction::new() })
    }

    /// Moves what can be moved now, given what was found of client and server. Whether the connection continues.
    fn turn(&mut self, client: PollFlags, server: PollFlags) -> io::Result<bool> {
        let (client, server) = ((&self.client, client), (&self.server, server));
        self.up.turn(client, server)?;
        self.down.turn(server, client)?;
        Ok(!(self.up.has_ended && self.down.has_ended))
    }
}

struct Direction {
    buffer: Vec<u8>,
    /// What is in the buffer. Nothing is read before it is written.
    held: Range<usize>,
    /// The end was read, and passed on.
    has_ended: bool,
}

impl Direction {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER], held: 0..0, has_ended: false }
    }

    /// Reads once and writes once, if what was found of the sockets allows it.
    fn turn(&mut self, from: (&TcpStream, PollFlags), to: (&TcpStream, PollFlags)) -> io::Result<()> {
        let ((mut from, readable), (mut to, writable)) = (from, to);
        let gone = PollFlags::HUP | PollFlags::ERR;
        if self.held.is_empty() {
            if self.has_ended || !readable.intersects(PollFlags::IN | gone) {
                return Ok(());
            }
            match now(from.read(&mut self.buffer)).transpose()? {
                None => return Ok(()),
                Some(0) => {
                    self.has_ended = true;
                    return to.shutdown(Shutdown::Write);
                }
                Some(read) => self.held = 0..read,
            }
        } else if !writable.intersects(PollFlags::OUT | gone) {
            return Ok(());
        }
        let written = now(to.write(&self.buffer[self.held.clone()])).transpose()?;
        self.held.start += written.unwrap_or(0);
        Ok(())
    }
}
