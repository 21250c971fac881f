//! The sink that messages are delivered to: a thread that counts them, over lines or RELP.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use durable_core::intake::{
    Limits, Oversize,
    relp::{Received, Server},
};

use crate::{
    poll::{EventFlags, Poll},
    rows::Row,
};

/// Bytes that are read at once.
const READ: usize = 256 << 10;
/// Pause between two looks whether the sink should end.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait for a forwarder that is readable, or should read.
const SILENCE: Duration = Duration::from_secs(10);
/// Longest message.
const MESSAGE: usize = 64 << 10;

/// What a sink has heard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) messages: u64,
    /// When the first ones were read.
    pub(crate) first: Option<Instant>,
    /// When the last ones were read.
    pub(crate) last: Option<Instant>,
}

/// A sink, until it is dropped.
pub(crate) struct Sink {
    heard: Arc<Mutex<Heard>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on this port for what a forwarder sends in this row.
    ///
    /// # Panics
    /// The port is taken.
    pub(crate) fn start(port: u16, row: Row) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("bind");
        listener.set_nonblocking(true).expect("option");
        let (heard, ends) = (Arc::<Mutex<Heard>>::default(), Arc::<AtomicBool>::default());
        let (counted, stop) = (Arc::clone(&heard), Arc::clone(&ends));
        let thread = thread::spawn(move || serve(&listener, row == Row::Relp, &counted, &stop));
        Self { heard, ends, thread: Some(thread) }
    }

    pub(crate) fn heard(&self) -> Heard {
        *self.heard.lock().expect("unpoisoned")
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, speaks_relp: bool, heard: &Mutex<Heard>, ends: &AtomicBool) {
    let mut poll = Poll::new();
    poll.add(listener, 0, EventFlags::IN);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut buffer = vec![0; READ];
    while !ends.load(Relaxed) {
        for ready in poll.wait(Instant::now() + LOOK) {
            let Some(at) = ready.token.checked_sub(1) else {
                while let Ok((stream, _)) = listener.accept() {
                    connections.push(Some(Connection::new(stream, speaks_relp)));
                    if let Some(Some(connection)) = connections.last() {
                        poll.add(&connection.stream, connections.len(), EventFlags::IN);
                    }
                }
                continue;
            };
            let Some(slot) = connections.get_mut(at) else { continue };
            let Some(connection) = slot else { continue };
            match connection.read(&mut buffer) {
                Some(messages) => hear(heard, messages),
                None => *slot = None,
            }
        }
    }
}

fn hear(heard: &Mutex<Heard>, messages: u64) {
    if messages == 0 {
        return;
    }
    let now = Instant::now();
    let mut heard = heard.lock().expect("unpoisoned");
    heard.messages += messages;
    heard.first.get_or_insert(now);
    heard.last = Some(now);
}

/// A connection of a forwarder.
struct Connection {
    stream: TcpStream,
    counter: Counter,
}

impl Connection {
    fn new(stream: TcpStream, speaks_relp: bool) -> Self {
        stream.set_nonblocking(false).expect("option");
        stream.set_read_timeout(Some(SILENCE)).expect("option");
        stream.set_write_timeout(Some(SILENCE)).expect("option");
        stream.set_nodelay(true).expect("option");
        Self { stream, counter: Counter::new(speaks_relp) }
    }

    /// Reads once, and answers. The messages that end in what was read; `None`: the connection has ended.
    fn read(&mut self, buffer: &mut [u8]) -> Option<u64> {
        let count = self.stream.read(buffer).ok().filter(|count| *count > 0)?;
        let mut out = Vec::new();
        let messages = self.counter.count(&buffer[..count], &mut out)?;
        self.stream.write_all(&out).ok()?;
        Some(messages)
    }
}

/// Counts the messages of a connection.
enum Counter {
    Lines,
    Relp(Box<Server>),
}

impl Counter {
    fn new(speaks_relp: bool) -> Self {
        if !speaks_relp {
            return Self::Lines;
        }
        Self::Relp(Box::new(Server::new(Limits { max_message_bytes: MESSAGE, oversize: Oversize::Truncate })))
    }

    /// The messages that end in these bytes, with the answers to them. `None`: this is no RELP.
    fn count(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<u64> {
        match self {
            Self::Lines => Some(bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()),
            Self::Relp(server) => {
                let mut received = Vec::new();
                server.feed(bytes, &mut received, out).ok()?;
                for Received { transaction, .. } in &received {
                    server.answer(*transaction, out);
                }
                Some(received.len() as u64)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_wherever_they_are_cut() {
        let (mut counter, mut out) = (Counter::new(false), Vec::new());
        assert_eq!(counter.count(b"a\nb", &mut out), Some(1));
        assert_eq!(counter.count(b"\nc\n", &mut out), Some(2));
        assert!(out.is_empty());
    }

    #[test]
    fn messages_of_relp_are_counted_and_answered() {
        let (mut counter, mut out) = (Counter::new(true), Vec::new());
        let open = b"1 open 30 relp_version=0\ncommands=syslog\n2 syslog 1 a\n3 sys";
        assert_eq!(counter.count(open, &mut out), Some(1));
        assert_eq!(counter.count(b"log 1 b\n", &mut out), Some(1));
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("2 rsp 6 200 OK\n3 rsp 6 200 OK\n"), "{text}");
    }
}
