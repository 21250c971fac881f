//! A connection of the loop: what its sockets are ready for, and bytes that one of them has not taken yet.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    ops::Range,
};

use rustix::event::epoll::EventFlags;

use crate::poll::now;

/// Most reads of a direction before others have their turn.
const READS: usize = 16;
/// Most buffers that are kept while none needs them.
const KEPT: usize = 16;

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Server,
}

/// What a connection waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Event,
    /// Its next turn: there is more to do.
    Turn,
    /// Nothing: both directions have ended.
    Close,
}

pub(super) struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// From the client to the server.
    up: Direction,
    down: Direction,
    /// It is among those that continue without an event.
    pub(super) is_queued: bool,
}

impl Connection {
    /// Of two sockets whose state the first event of each tells. The server may not be connected yet.
    pub(super) fn new(client: TcpStream, server: TcpStream) -> Self {
        Self { client, server, up: Direction::new(), down: Direction::new(), is_queued: false }
    }

    /// Notes what one of the sockets is ready for. An event tells its whole state.
    pub(super) fn note(&mut self, end: End, flags: EventFlags) {
        let (from, to) = match end {
            End::Client => (&mut self.up, &mut self.down),
            End::Server => (&mut self.down, &mut self.up),
        };
        let gone = EventFlags::HUP | EventFlags::ERR;
        if flags.intersects(EventFlags::RDHUP | gone) {
            from.unread = Unread::End;
        } else if flags.contains(EventFlags::IN) && from.unread == Unread::Nothing {
            from.unread = Unread::Bytes;
        }
        to.is_writable |= flags.intersects(EventFlags::OUT | gone);
        // Where the end was read, no read finds the reset.
        to.has_ended |= from.has_ended && flags.contains(EventFlags::ERR);
    }

    /// Moves what can be moved now.
    pub(super) fn turn(&mut self, buffers: &mut Buffers) -> io::Result<Next> {
        let up = self.up.turn(&self.client, &self.server, buffers)?;
        let down = self.down.turn(&self.server, &self.client, buffers)?;
        Ok(if self.up.has_ended && self.down.has_ended {
            Next::Close
        } else if up || down {
            Next::Turn
        } else {
            Next::Event
        })
    }

    /// Closes both sockets, which removes them from epoll.
    pub(super) fn close(self, buffers: &mut Buffers) {
        buffers.put_held(self.up.held);
        buffers.put_held(self.down.held);
    }
}

/// What a socket has for its reader, as far as is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unread {
    Nothing,
    Bytes,
    /// Perhaps bytes, and then the end or an error. No further event reports these.
    End,
}

/// Bytes that were read and not written yet.
struct Held {
    buffer: Vec<u8>,
    range: Range<usize>,
}

struct Direction {
    unread: Unread,
    is_writable: bool,
    /// Nothing is read before it is written.
    held: Option<Held>,
    /// The end was read and passed on, or nothing can be written any more.
    has_ended: bool,
}

impl Direction {
    fn new() -> Self {
        Self { unread: Unread::Nothing, is_writable: false, held: None, has_ended: false }
    }

    /// Reads and writes until one socket is not ready, or it is the turn of others. Whether there is more to do.
    fn turn(&mut self, mut from: &TcpStream, to: &TcpStream, buffers: &mut Buffers) -> io::Result<bool> {
        for _ in 0..READS {
            self.write(to, buffers)?;
            if !self.is_writable || self.unread == Unread::Nothing || self.has_ended {
                return Ok(false);
            }
            let mut buffer = buffers.take();
            let read = now(from.read(&mut buffer)).transpose();
            if let Ok(Some(read @ 1..)) = read {
                // A read that is not filled has emptied the socket.
                if read < buffer.len() && self.unread == Unread::Bytes {
                    self.unread = Unread::Nothing;
                }
                self.held = Some(Held { buffer, range: 0..read });
                continue;
            }
            buffers.put(buffer);
            if read?.is_some() {
                self.has_ended = true;
                to.shutdown(Shutdown::Write)?;
            } else {
                self.unread = Unread::Nothing;
            }
        }
        Ok(self.held.is_some())
    }

    /// Writes what is held, if the socket takes it. Writable afterwards: nothing is held.
    fn write(&mut self, mut to: &TcpStream, buffers: &mut Buffers) -> io::Result<()> {
        if !self.is_writable {
            return Ok(());
        }
        let Some(held) = &mut self.held else { return Ok(()) };
        let written = now(to.write(&held.buffer[held.range.clone()])).transpose()?;
        held.range.start += written.unwrap_or(0);
        // A write that is not complete has filled the socket.
        self.is_writable = held.range.is_empty();
        if self.is_writable {
            buffers.put_held(self.held.take());
        }
        Ok(())
    }
}

/// Buffers that no direction needs now. All directions read into the same one, as long as no socket is full.
pub(super) struct Buffers {
    bytes: usize,
    free: Vec<Vec<u8>>,
}

impl Buffers {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, free: Vec::with_capacity(KEPT) }
    }

    fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_else(|| vec![0; self.bytes])
    }

    fn put(&mut self, buffer: Vec<u8>) {
        if self.free.len() < KEPT {
            self.free.push(buffer);
        }
    }

    fn put_held(&mut self, held: Option<Held>) {
        if let Some(Held { buffer, .. }) = held {
            self.put(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, TcpListener},
        time::{Duration, Instant},
    };

    use harness::{PATIENCE, until};
    use socket2::SockRef;

    use super::*;

    /// Bytes of a direction: more than the buffers of a socket and its peer hold.
    const BYTES: usize = 16 << 20;

    /// A connection on loopback that does not block.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let near = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (far, _) = listener.accept().expect("accept");
        for socket in [&near, &far] {
            socket.set_nodelay(true).expect("option");
            socket.set_nonblocking(true).expect("option");
        }
        (near, far)
    }

    #[test]
    fn what_a_full_socket_does_not_take_is_written_later_in_order_and_before_the_end() {
        let ((mut client, client_end), (server_end, mut server)) = (pair(), pair());
        let (mut connection, mut buffers) = (Connection::new(client_end, server_end), Buffers::new(64 << 10));
        let bytes: Vec<u8> = (0..=250).cycle().take(BYTES).collect();
        let (mut sent, mut received, mut chunk) = (0, Vec::new(), vec![0; 1 << 20]);
        let (mut was_full, mut has_ended) = (false, false);
        let deadline = Instant::now() + PATIENCE;
        while !has_ended {
            assert!(Instant::now() < deadline, "sent {sent}, received {}, full: {was_full}", received.len());
            if sent < BYTES {
                sent += now(client.write(&bytes[sent..])).map_or(0, |written| written.expect("write"));
                if sent == BYTES {
                    client.shutdown(Shutdown::Write).expect("half-close");
                }
            }
            connection.note(End::Client, EventFlags::IN);
            connection.note(End::Server, EventFlags::OUT);
            // The other direction does not end.
            assert!(connection.turn(&mut buffers).expect("turn") != Next::Close);
            was_full |= !connection.up.is_writable;
            // The server waits until nothing more gets in.
            if was_full && let Some(read) = now(server.read(&mut chunk)) {
                let read = read.expect("read");
                received.extend_from_slice(&chunk[..read]);
                has_ended = read == 0;
            }
        }
        assert!(received == bytes);
    }

    #[test]
    fn nothing_is_read_before_the_server_is_connected() {
        let ((mut client, client_end), (server_end, _server)) = (pair(), pair());
        let (mut connection, mut buffers) = (Connection::new(client_end, server_end), Buffers::new(64));
        client.write_all(b"x").expect("write");
        connection.note(End::Client, EventFlags::IN | EventFlags::OUT);
        assert_eq!(connection.turn(&mut buffers).expect("turn"), Next::Event);
        let mut byte = [0];
        until("the byte is still there", || connection.client.peek(&mut byte).is_ok());
        assert_eq!(byte, *b"x");
    }

    #[test]
    fn a_client_that_is_reset_after_its_end_closes_the_connection() {
        let ((client, client_end), (server_end, _server)) = (pair(), pair());
        let (mut connection, mut buffers) = (Connection::new(client_end, server_end), Buffers::new(64));
        client.shutdown(Shutdown::Write).expect("half-close");
        connection.note(End::Server, EventFlags::OUT);
        until("the end is passed on", || {
            connection.note(End::Client, EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP);
            assert_eq!(connection.turn(&mut buffers).expect("turn"), Next::Event);
            connection.up.has_ended
        });
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("option");
        drop(client);
        connection.note(End::Client, EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        assert_eq!(connection.turn(&mut buffers).expect("turn"), Next::Close);
    }
}
