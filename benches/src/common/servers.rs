//! The servers: one thread each, with few system calls, so that they are not what limits a forwarder.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    bytes::Bytes,
    poll::{EventFlags, Poll, Ready},
};

/// Ports of the servers, on loopback.
pub(crate) mod port {
    /// Echoes bytes, and datagrams.
    pub(crate) const ECHO: u16 = 7001;
    /// Discards bytes.
    pub(crate) const SINK: u16 = 7002;
    /// Discards bytes, and sends as many as the peer takes.
    pub(crate) const BOTH: u16 = 7003;
    /// Answers each byte with the next one, so that a client sees which server it has reached.
    pub(crate) const NEXT: u16 = 7004;
    /// Echoes datagrams, and answers a train with a train.
    pub(crate) const TRAINS: u16 = 7005;
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Receive buffer of the UDP server, in bytes: no datagram is lost behind the forwarder.
const UDP_BUFFER: usize = 8 << 20;

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Echo,
    Next,
    Sink,
    Both,
}

struct Connection {
    stream: TcpStream,
    behaviour: Behaviour,
    /// Bytes that the peer did not take at once.
    unsent: Vec<u8>,
}

struct Servers {
    poll: Poll,
    listeners: Vec<(TcpListener, Behaviour)>,
    datagrams: Option<UdpSocket>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    bytes: Bytes,
    buffer: Vec<u8>,
}

/// Serves echoes until the process ends.
pub(crate) fn echo() {
    let socket = datagrams(port::ECHO);
    socket.set_nonblocking(true).expect("option");
    Servers::new(&[(port::ECHO, Behaviour::Echo), (port::NEXT, Behaviour::Next)], Some(socket)).serve();
}

/// A UDP socket on loopback with large buffers.
pub(crate) fn datagrams(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("bind");
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, UDP_BUFFER);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, UDP_BUFFER);
    socket
}

/// Serves bulk until the process ends.
pub(crate) fn sink() {
    Servers::new(&[(port::SINK, Behaviour::Sink), (port::BOTH, Behaviour::Both)], None).serve();
}

/// A listener on loopback that does not block.
pub(crate) fn listen(port: u16) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.set_reuse_address(true).expect("option");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("bind");
    socket.listen(BACKLOG).expect("listen");
    socket.set_nonblocking(true).expect("option");
    socket.into()
}

impl Servers {
    fn new(ports: &[(u16, Behaviour)], datagrams: Option<UdpSocket>) -> Self {
        let listeners: Vec<_> = ports.iter().map(|(port, behaviour)| (listen(*port), *behaviour)).collect();
        let poll = Poll::new();
        for (token, (listener, _)) in listeners.iter().enumerate() {
            poll.add(listener, token, EventFlags::IN);
        }
        if let Some(socket) = &datagrams {
            poll.add(socket, listeners.len(), EventFlags::IN);
        }
        let (connections, free) = (Vec::new(), Vec::new());
        Self { poll, listeners, datagrams, connections, free, bytes: Bytes::new(), buffer: vec![0; 256 << 10] }
    }

    /// Token of the first connection.
    fn first(&self) -> usize {
        self.listeners.len() + usize::from(self.datagrams.is_some())
    }

    fn serve(mut self) {
        loop {
            for ready in self.poll.wait_always() {
                if ready.token < self.listeners.len() {
                    self.accept(ready.token);
                } else if ready.token < self.first() {
                    self.echo_datagrams();
                } else {
                    self.turn(ready);
                }
            }
        }
    }

    fn accept(&mut self, token: usize) {
        let first = self.first();
        let Some((listener, behaviour)) = self.listeners.get(token) else { return };
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).expect("option");
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let flags = if *behaviour == Behaviour::Both { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            if matches!(behaviour, Behaviour::Echo | Behaviour::Next) {
                let _ = stream.set_nodelay(true);
            }
            self.poll.add(&stream, first + slot, flags);
            self.connections[slot] = Some(Connection { stream, behaviour: *behaviour, unsent: Vec::new() });
        }
    }

    fn echo_datagrams(&mut self) {
        let Some(socket) = &self.datagrams else { return };
        while let Ok((length, from)) = socket.recv_from(&mut self.buffer) {
            let _ = socket.send_to(&self.buffer[..length], from);
        }
    }

    /// Lets a connection read and write. One that has ended is closed.
    fn turn(&mut self, ready: Ready) {
        let slot = ready.token - self.first();
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        let (behaviour, readable) = (connection.behaviour, ready.is_readable());
        let continues = match behaviour {
            Behaviour::Echo | Behaviour::Next => {
                let was_waiting = !connection.unsent.is_empty();
                let continues = echo_bytes(connection, &mut self.buffer, readable);
                let waits = !connection.unsent.is_empty();
                if continues && waits != was_waiting {
                    // While the peer does not read, neither does the server.
                    let flags = if waits { EventFlags::OUT } else { EventFlags::IN };
                    self.poll.modify(connection.stream.as_fd(), ready.token, flags);
                }
                continues
            }
            Behaviour::Sink => !readable || self.bytes.discard(&connection.stream).is_ok(),
            Behaviour::Both => {
                let sent = !ready.is_writable() || self.bytes.send(&connection.stream).is_ok();
                sent && (!readable || self.bytes.discard(&connection.stream).is_ok())
            }
        };
        if !continues {
            // A reset leaves no port in TIME_WAIT. What the client waits for has been sent.
            let _ = SockRef::from(&connection.stream).set_linger(Some(Duration::ZERO));
            self.connections[slot] = None;
            self.free.push(slot);
        }
    }
}

/// Echoes what is there. Whether the connection continues.
fn echo_bytes(connection: &mut Connection, buffer: &mut [u8], readable: bool) -> bool {
    if !connection.unsent.is_empty() {
        let Ok(sent) = write(&mut connection.stream, &connection.unsent) else { return false };
        connection.unsent.drain(..sent);
        return true;
    }
    if !readable {
        return true;
    }
    let read = match connection.stream.read(buffer) {
        Ok(0) => return false,
        Ok(read) => read,
        Err(error) => return error.kind() == ErrorKind::WouldBlock,
    };
    let bytes = &mut buffer[..read];
    if connection.behaviour == Behaviour::Next {
        for byte in bytes.iter_mut() {
            *byte = byte.wrapping_add(1);
        }
    }
    let Ok(sent) = write(&mut connection.stream, bytes) else { return false };
    connection.unsent.extend_from_slice(&bytes[sent..]);
    true
}

/// Bytes that the peer took.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
