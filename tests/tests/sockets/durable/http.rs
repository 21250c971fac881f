//! Sinks over HTTP.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    sync::{Arc, Mutex},
};

use harness::{Backend, Behaviour, Listener, connect, forward, free_port, until};
use serde_json::{Value, json};
use tempfile::tempdir;

use super::run;

/// Where sinks are, on a port of the system's choice.
const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A sink that answers each body as a function says.
pub(super) fn sink(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Backend {
    sink_at(HERE, answer)
}

/// As [`sink`], at this address.
fn sink_at(address: SocketAddr, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Backend {
    let serve = move |stream: TcpStream| {
        let mut requests = BufReader::new(stream);
        while let Some(body) = posted(&mut requests) {
            let answer = answer(&body);
            if requests.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    };
    Backend::start_at(address, Behaviour::Run(Arc::new(serve)))
}

/// The body of the next request. `None`: the connection has ended.
pub(super) fn posted(requests: &mut BufReader<TcpStream>) -> Option<String> {
    let mut length = 0_usize;
    loop {
        let mut line = String::new();
        requests.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    requests.read_exact(&mut body).ok()?;
    Some(String::from_utf8(body).expect("text"))
}

/// An answer with this status, and these header lines.
pub(super) fn status(status: u16, header: &str) -> String {
    format!("HTTP/1.1 {status} X\r\n{header}Content-Length: 0\r\n\r\n")
}

/// A sink that takes everything.
pub(super) struct Sink {
    pub(super) backend: Backend,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    pub(super) fn start() -> Self {
        Self::start_at(HERE)
    }

    pub(super) fn start_at(address: SocketAddr) -> Self {
        let bodies = Arc::<Mutex<Vec<String>>>::default();
        let kept = bodies.clone();
        let backend = sink_at(address, move |body| {
            kept.lock().expect("unpoisoned").push(body.to_owned());
            status(200, "")
        });
        Self { backend, bodies }
    }

    /// What came, in the order of its arrival.
    pub(super) fn taken(&self) -> Vec<Value> {
        self.bodies.lock().expect("unpoisoned").iter().flat_map(|body| values(body)).collect()
    }
}

/// The values in a body of one form or the other.
fn values(body: &str) -> Vec<Value> {
    if body.starts_with('[') {
        return serde_json::from_str(body).expect("an array");
    }
    body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A listener for syslog that sends objects over HTTP.
fn objects(name: &str, port: u16, http: &str, sink: &Sink) -> Listener {
    let http = format!("send: {{http: {{{http}lingerMillis: 0}}}}, enrich: {{}}");
    let rest = "framing: Syslog, syncMillis: 0, store: {disk: {maxBytes: 16777216}}";
    Listener::tcp(name, port).to(sink.backend.port).with(&format!("durable: {{{http}, {rest}}}"))
}

#[test]
fn plain_lines_of_syslog_come_to_a_sink_that_takes_json_as_objects() {
    let (health, data) = (free_port(), tempdir().expect("a folder"));
    let formats = [("lines", ""), ("array", "format: JsonArray, ")];
    let sinks = formats.map(|(name, http)| (name, http, free_port(), Sink::start()));
    let listeners: Vec<Listener> =
        sinks.iter().map(|(name, http, port, sink)| objects(name, *port, http, sink)).collect();
    let _program = run(&forward("f", "", &listeners), health, data.path());
    let sent = [r#"<34>Oct 11 22:14:15 web su: 'su root' failed for "lonvick""#, "<13>Oct 11 22:14:16 web cron: done"];
    for (name, _, port, sink) in &sinks {
        let mut client = connect(*port).expect("a connection");
        client.write_all((sent.join("\n") + "\n").as_bytes()).expect("it is sent");
        until("the sink has all messages", || sink.taken().len() >= sent.len());
        let taken = sink.taken();
        let messages: Vec<&str> = taken.iter().filter_map(|object| object["message"].as_str()).collect();
        assert_eq!(messages, sent, "{name}");
        for object in taken {
            assert_eq!((&object["client"], &object["forward"]), (&json!("127.0.0.1"), &json!("default/f")), "{object}");
            assert!(object["receivedAt"].is_string() && object["pod"].is_string(), "{object}");
        }
    }
}

#[test]
fn plain_lines_of_syslog_come_to_a_sink_without_a_format_as_they_are() {
    let (health, port, data, sink) = (free_port(), free_port(), tempdir().expect("a folder"), Sink::start());
    let durable = "durable: {framing: Syslog, syncMillis: 0, store: {disk: {maxBytes: 16777216}}, \
                   send: {http: {lingerMillis: 0}}}";
    let listener = Listener::tcp("plain", port).to(sink.backend.port).with(durable);
    let _program = run(&forward("f", "", &[listener]), health, data.path());
    let sent = "<34>Oct 11 22:14:15 web su: failed\n<13>Oct 11 22:14:16 web cron: done";
    connect(port).expect("a connection").write_all(format!("{sent}\n").as_bytes()).expect("it is sent");
    until("the sink has all messages", || sink.bodies.lock().expect("unpoisoned").join("\n") == sent);
}
