//! One thread for all connections, with epoll but without a runtime: an event has the number of its connection.
//!
//! Sockets are added once, edge-triggered, and removed by `close`. So a message takes a wait, a read and a write.

mod connection;
mod slots;

use std::{
    io, mem,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::OwnedFd,
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::{Errno, retry_on_intr},
    net::{AddressFamily, SocketFlags, SocketType, accept_with, connect, socket_with},
};

use self::{
    connection::{Buffers, Connection, End, Next},
    slots::{Key, Slots},
};

/// Most events of one wait: as many as tokio takes.
const EVENTS: usize = 1024;
/// What each socket is watched for.
const WATCHED: EventFlags = EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);
/// What each socket is made with.
const NEW: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// Forwards until the process ends, by buffers of so many bytes. The listeners do not block.
pub(super) fn run(pairs: &[(TcpListener, u16)], bytes: usize) {
    let mut own = Loop::new(bytes);
    for (index, (listener, _)) in pairs.iter().enumerate() {
        // Level-triggered, so that connections that wait for want of files are not forgotten.
        let data = EventData::new_u64(Source::Listener(index).number());
        epoll::add(&own.epoll, listener, data, EventFlags::IN).expect("a listener");
    }
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        own.wait(&mut events);
        for key in mem::take(&mut own.again) {
            own.resume(key);
        }
        for event in &events {
            // The fields of the packed struct are copied before use.
            let (data, flags) = (event.data, event.flags);
            match Source::of(data.u64()) {
                Source::Listener(index) => {
                    let (listener, to) = &pairs[index];
                    own.accept(listener, *to);
                }
                Source::Socket(key, end) => own.react(key, end, flags),
            }
        }
    }
}

struct Loop {
    epoll: OwnedFd,
    connections: Slots<Connection>,
    buffers: Buffers,
    /// Connections that had more to do when their turn ended.
    again: Vec<Key>,
}

impl Loop {
    fn new(bytes: usize) -> Self {
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("epoll");
        Self { epoll, connections: Slots::new(), buffers: Buffers::new(bytes), again: Vec::new() }
    }

    /// Waits for events, or only looks for them if there is something to do.
    fn wait(&self, events: &mut Vec<Event>) {
        events.clear();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = (!self.again.is_empty()).then_some(&at_once);
        retry_on_intr(|| epoll::wait(&self.epoll, spare_capacity(events), timeout)).expect("epoll_wait");
    }

    /// Accepts all that wait.
    fn accept(&mut self, listener: &TcpListener, to: u16) {
        while let Ok(client) = accept_with(listener, NEW) {
            // A connection that does not get to the server is closed.
            let _ = self.open(client.into(), to);
        }
    }

    fn open(&mut self, client: TcpStream, to: u16) -> io::Result<()> {
        let server = socket_with(AddressFamily::INET, SocketType::STREAM, NEW, None)?;
        match connect(&server, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, to)) {
            // An event says when it is connected, or that it failed.
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let server = TcpStream::from(server);
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let epoll = &self.epoll;
        self.connections.insert(|key| -> io::Result<Connection> {
            for (socket, end) in [(&client, End::Client), (&server, End::Server)] {
                let data = EventData::new_u64(Source::Socket(key, end).number());
                epoll::add(epoll, socket, data, WATCHED)?;
            }
            Ok(Connection::new(client, server))
        })
    }

    /// Does what an event of a connection allows. An earlier event may have closed it.
    fn react(&mut self, key: Key, end: End, flags: EventFlags) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.note(end, flags);
            self.turn(key);
        }
    }

    /// Continues a connection whose turn had ended.
    fn resume(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.is_queued = false;
            self.turn(key);
        }
    }

    fn turn(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match connection.turn(&mut self.buffers) {
            Ok(Next::Event) => {}
            Ok(Next::Turn) => {
                let was_queued = mem::replace(&mut connection.is_queued, true);
                self.again.extend((!was_queued).then_some(key));
            }
            Ok(Next::Close) | Err(_) => self.close(key),
        }
    }

    fn close(&mut self, key: Key) {
        if let Some(connection) = self.connections.remove(key) {
            connection.close(&mut self.buffers);
        }
    }
}

/// What an event is about. epoll returns it as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Listener(usize),
    Socket(Key, End),
}

impl Source {
    /// From the top: 32 bits of the generation, 30 of the index, two of the kind.
    fn number(self) -> u64 {
        let (Key { index, generation }, kind) = match self {
            Self::Listener(index) => (Key { index, generation: 0 }, 0),
            Self::Socket(key, End::Client) => (key, 1),
            Self::Socket(key, End::Server) => (key, 2),
        };
        (u64::from(generation) << 32) | ((index as u64) << 2) | kind
    }

    fn of(number: u64) -> Self {
        let generation = u32::try_from(number >> 32).expect("32 bits");
        let index = usize::try_from((number & u64::from(u32::MAX)) >> 2).expect("30 bits");
        let key = Key { index, generation };
        match number & 3 {
            0 => Self::Listener(index),
            1 => Self::Socket(key, End::Client),
            _ => Self::Socket(key, End::Server),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_from_its_number() {
        let key = Key { index: (1 << 30) - 1, generation: u32::MAX };
        for source in [Source::Listener(2), Source::Socket(key, End::Client), Source::Socket(key, End::Server)] {
            assert_eq!(Source::of(source.number()), source);
        }
    }
}
