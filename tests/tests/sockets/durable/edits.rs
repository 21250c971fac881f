//! A listener changes again and again while a client sends over RELP. The oracle of the kills knows what may come.

use std::{
    net::TcpStream,
    sync::{Arc, Mutex},
};

use harness::{
    Backend, Behaviour, Listener, forward, free_port,
    kills::{BETWEEN, Client, Oracle, serve},
    until,
};
use tempfile::tempdir;

use super::run;

/// Times that each of the changes is made.
const ROUNDS: usize = 2;

/// The part of a listener that is not about the sink or a full log.
const PLAIN: &str = "syncMillis: 0, store: {disk: {maxBytes: 16777216}}, send: {relp: {}}";

/// What differs between the manifests.
#[derive(Clone, Copy)]
struct Version {
    spec: &'static str,
    sink: u16,
    when_full: &'static str,
    rest: &'static str,
}

impl Version {
    const fn plain(sink: u16) -> Self {
        Self { spec: "", sink, when_full: "Block", rest: PLAIN }
    }

    /// What each change leads to, with these two sinks.
    const fn changed([sink, other]: [u16; 2]) -> [Self; 6] {
        let plain = Self::plain(sink);
        [
            // Of the log, which is closed and opened again.
            Self {
                rest: "syncMillis: 20, maxMessageBytes: 4096, store: {disk: {maxBytes: 33554432}}, send: {relp: {}}",
                ..plain
            },
            Self { when_full: "DropOldest", ..plain },
            // Of how messages are taken: connections are closed.
            Self { spec: "timeouts: {idleSeconds: 600}\nlimits: {maxConnections: 100}", ..plain },
            // Of the sink.
            Self { sink: other, ..plain },
            Self {
                rest: "syncMillis: 0, store: {disk: {maxBytes: 16777216}}, send: {relp: {windowMessages: 7}}",
                ..plain
            },
            // Of all at once.
            Self {
                spec: "timeouts: {idleSeconds: 300}",
                sink: other,
                when_full: "DropNewest",
                rest: "oversize: Drop, store: {disk: {maxBytes: 50331648}}, send: {relp: {windowMessages: 32}}",
            },
        ]
    }

    fn manifest(self, port: u16) -> String {
        let Self { spec, sink, when_full, rest } = self;
        let durable = format!("durable: {{framing: Relp, whenFull: {when_full}, {rest}}}");
        forward("f", spec, &[Listener::tcp("l", port).to(sink).with(&durable)])
    }
}

#[test]
fn every_message_that_was_answered_arrives_in_order_however_often_the_listener_changes() {
    let (port, data) = (free_port(), tempdir().expect("a folder"));
    let oracle = Arc::<Mutex<Oracle>>::default();
    // Two sinks, of which one has the messages at a time.
    let sinks = [(); 2].map(|()| {
        let asked = oracle.clone();
        Backend::start(Behaviour::Run(Arc::new(move |stream: TcpStream| serve(stream, &asked))))
    });
    let ports = [sinks[0].port, sinks[1].port];
    let plain = Version::plain(ports[0]);
    let arrived = || oracle.lock().expect("unpoisoned").next;
    let program = run(&plain.manifest(port), free_port(), data.path());
    let client = Client::start(port);
    for changed in [Version::changed(ports); ROUNDS].into_iter().flatten() {
        for version in [changed, plain] {
            program.edit_and_wait(&version.manifest(port), "swapped", "default/f/l");
            let (answered, last) = (client.answered(), arrived());
            until("messages are answered, and others arrive", || {
                client.answered() >= answered + BETWEEN && arrived() > last
            });
        }
    }
    let answered = client.stop();
    until("every message that was answered arrives", || arrived() >= answered);
    let oracle = oracle.lock().expect("unpoisoned");
    assert!(oracle.faults.is_empty(), "{} faults: {:?}", oracle.faults.len(), oracle.faults.iter().take(8));
    assert!(sinks.iter().all(|sink| sink.count() > 0), "both sinks had messages");
}
