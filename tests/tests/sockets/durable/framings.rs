//! What clients delimit in one way arrives at sinks in another: each framing, in what is taken and in what is sent, and
//! messages that are too long.

use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    sync::{Arc, Mutex},
};

use harness::{Backend, Behaviour, Listener, PATIENCE, connect, forward, free_port, until};
use tempfile::tempdir;

use super::{LOCALHOST, figure, run};

/// A listener: its name, the framing of its clients and what they send, the framing of its sink and what arrives there.
/// The messages are `1 ant` and `bee`. One that begins with a digit tells `Newline` from `Syslog`.
type Row = (&'static str, &'static str, &'static [u8], &'static str, &'static [u8]);

const ROWS: [Row; 6] = [
    ("newline", "Newline", b"1 ant\nbee\n", "Nul", b"1 ant\0bee\0"),
    ("nul", "Nul", b"1 ant\0bee\0", "OctetCounting", b"5 1 ant3 bee"),
    ("octets", "OctetCounting", b"5 1 ant3 bee", "Length2", b"\0\x051 ant\0\x03bee"),
    ("syslog", "Syslog", b"5 1 antbee\n", "Length4", b"\0\0\0\x051 ant\0\0\0\x03bee"),
    ("two", "Length2", b"\0\x051 ant\0\x03bee", "Newline", b"1 ant\nbee\n"),
    ("four", "Length4", b"\0\0\0\x051 ant\0\0\0\x03bee", "Newline", b"1 ant\nbee\n"),
];

/// A sink over TCP that reads everything.
struct Sink {
    backend: Backend,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Sink {
    fn start() -> Self {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let kept = bytes.clone();
        let serve = move |mut stream: TcpStream| {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                kept.lock().expect("unpoisoned").extend_from_slice(&buffer[..count]);
            }
        };
        Self { backend: Backend::start(Behaviour::Run(Arc::new(serve))), bytes }
    }

    /// What has arrived, as text, once that is so many bytes.
    fn taken(&self, name: &str, count: usize) -> String {
        let taken = || self.bytes.lock().expect("unpoisoned").clone();
        until(&format!("the sink of {name} has {count} bytes"), || taken().len() >= count);
        taken().escape_ascii().to_string()
    }
}

/// A durable listener that takes and sends messages in these ways.
fn durable(name: &str, port: u16, to: u16, takes: &str, send: &str) -> Listener {
    let kept = "syncMillis: 0, store: {disk: {maxBytes: 16777216}}";
    Listener::tcp(name, port).to(to).with(&format!("durable: {{{takes}, send: {{{send}}}, {kept}}}"))
}

/// Sends these bytes to a port, and returns the connection.
fn send(port: u16, bytes: &[u8]) -> TcpStream {
    let mut client = connect(port).expect("a connection");
    client.write_all(bytes).expect("it is sent");
    client
}

#[test]
fn messages_of_each_framing_arrive_at_a_sink_in_each_framing_and_in_datagrams() {
    let (udp, health, data) = (free_port(), free_port(), tempdir().expect("a folder"));
    let rows = ROWS.map(|row| (row, free_port(), Sink::start()));
    let datagrams = UdpSocket::bind((LOCALHOST, 0)).expect("a port");
    datagrams.set_read_timeout(Some(PATIENCE)).expect("an option");
    let to = datagrams.local_addr().expect("an address").port();
    let framed = rows.iter().map(|((name, takes, _, sends, _), port, sink)| {
        let (takes, send) = (format!("framing: {takes}"), format!("tcp: {{framing: {sends}}}"));
        durable(name, *port, sink.backend.port, &takes, &send)
    });
    let listeners: Vec<Listener> =
        framed.chain([durable("datagrams", udp, to, "framing: Newline", "udp: {}")]).collect();
    let _program = run(&forward("f", "", &listeners), health, data.path());
    // They are open until the end: what ends a message is its framing, not the end of a connection.
    let _clients: Vec<TcpStream> = rows.iter().map(|((_, _, sent, _, _), port, _)| send(*port, sent)).collect();
    let _client = send(udp, b"1 ant\nbee\n");
    for ((name, _, _, _, arrives), _, sink) in &rows {
        assert_eq!(sink.taken(name, arrives.len()), arrives.escape_ascii().to_string(), "{name}");
    }
    for message in [&b"1 ant"[..], b"bee"] {
        let mut buffer = [0; 64];
        let count = datagrams.recv(&mut buffer).expect("a datagram");
        assert_eq!(&buffer[..count], message);
    }
    // `OctetCounting` takes nothing without a count, which `Syslog` does.
    let octets = rows.iter().find(|((name, ..), ..)| *name == "octets").map(|(_, port, _)| *port).expect("a row");
    let _refused = send(octets, b"bee\n");
    until("a client without counts is closed", || {
        figure(health, "connections_closed_total", "octets", ",reason=\"Framing\"") == Some(1)
    });
}

#[test]
fn the_beginning_of_a_message_that_is_too_long_arrives_or_it_is_dropped_and_either_is_counted() {
    let (cut, drop, health, data) = (free_port(), free_port(), free_port(), tempdir().expect("a folder"));
    let sinks = [Sink::start(), Sink::start()];
    let listeners =
        [("cut", cut, "Truncate", &sinks[0]), ("drop", drop, "Drop", &sinks[1])].map(|(name, port, oversize, sink)| {
            let takes = format!("maxMessageBytes: 64, oversize: {oversize}");
            durable(name, port, sink.backend.port, &takes, "tcp: {}")
        });
    let _program = run(&forward("f", "", &listeners), health, data.path());
    let sent = format!("{}\nbee\n", "a".repeat(65));
    let _clients = [cut, drop].map(|port| send(port, sent.as_bytes()));
    assert_eq!(sinks[0].taken("cut", 69), format!("{}\\nbee\\n", "a".repeat(64)));
    assert_eq!(sinks[1].taken("drop", 4), "bee\\n");
    for (name, counts) in [("cut", [2, 1, 0]), ("drop", [1, 0, 1])] {
        until(&format!("the messages that {name} received, truncated and dropped are {counts:?}"), || {
            let figures = [("received_total", ""), ("truncated_total", ""), ("dropped_total", ",reason=\"TooLong\"")];
            figures.map(|(figure_of, more)| figure(health, figure_of, name, more)) == counts.map(Some)
        });
    }
}
