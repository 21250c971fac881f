//! Durable listeners that keep their messages in NATS `JetStream`.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    io::Write,
    net::TcpStream,
    path::Path,
    sync::{Arc, Mutex},
};

use harness::{
    Backend, Behaviour, Listener, Program, connect, forward, free_port,
    programs::{self, KubernetesVersion},
    send_relp, serve_relp, until,
};

use crate::server::{Server, listens, open_folder};

/// Messages in all.
const COUNT: u64 = 600;
/// Messages that are on their way at once.
const WINDOW: usize = 128;

/// A NATS server with `JetStream`, whose streams are in this folder.
fn nats(folder: &Path, port: u16) -> Server {
    let program = programs::built(KubernetesVersion::Oldest, "nats-server").unwrap_or_else(|error| panic!("{error}"));
    let (program, place) = (program.display(), folder.display());
    let line = format!("{program} --addr 127.0.0.1 --port {port} --jetstream --store_dir {place}/streams");
    Server::start(folder, &line, listens(port))
}

/// A forward to `sink`, whose messages the server at `back` keeps.
fn manifests(port: u16, back: u16, sink: u16) -> String {
    let store = format!("{{jetStream: {{url: 'nats://127.0.0.1:{back}', maxBytes: 16777216}}}}");
    let durable = format!("durable: {{framing: Relp, send: {{relp: {{}}}}, store: {store}}}");
    forward("f", "", &[Listener::tcp("l", port).to(sink).with(&durable)])
}

fn run(manifests: &str, health: u16, data: &Path) -> Program {
    Program::run(manifests, health, &["--data", data.to_str().expect("UTF-8")])
}

fn message(number: u64) -> String {
    format!("<13>message {number}")
}

/// Sends all messages over RELP. `kept` hears how many of them are acknowledged, each time that there are more.
fn send(port: u16, mut kept: impl FnMut(u64)) {
    let stream = connect(port).expect("a connection");
    let (mut acknowledged, next) = (0, |number: u64| (number < COUNT).then(|| message(number)));
    let answered = |through: u64| {
        acknowledged = through + 1;
        kept(acknowledged);
    };
    send_relp(stream, WINDOW, 0, next, answered).expect("the proxy answers");
    assert_eq!(acknowledged, COUNT, "the proxy has closed the connection");
}

/// A sink over RELP, and what it was given.
fn sink(port: u16) -> (Backend, Arc<Mutex<Vec<String>>>) {
    let taken = Arc::<Mutex<Vec<String>>>::default();
    let kept = taken.clone();
    let serve = move |stream: TcpStream| {
        serve_relp(stream, || true, |message| kept.lock().expect("unpoisoned").push(message));
    };
    (Backend::start_on(port, Behaviour::Run(Arc::new(serve))), taken)
}

#[test]
fn what_jetstream_has_acknowledged_arrives_once_and_in_order_after_crashes_of_the_server_and_of_the_proxy() {
    let (folder, data) = (open_folder(), tempfile::tempdir().expect("a folder"));
    let (back, port, away, health) = (free_port(), free_port(), free_port(), free_port());
    let mut server = nats(folder.path(), back);
    let manifests = manifests(port, back, away);
    let program = run(&manifests, health, data.path());
    let mut crashes = 0;
    send(port, |kept| {
        // The rest of the window is on its way.
        if crashes == 0 && kept >= COUNT / 3 {
            crashes += 1;
            server.crash();
            server.come_back();
        }
    });
    assert_eq!(crashes, 1);
    drop(program.kill());
    let (_sink, taken) = sink(away);
    let _program = run(&manifests, health, data.path());
    let all: Vec<String> = (0..COUNT).map(message).collect();
    until("the sink has the last message", || taken.lock().expect("unpoisoned").last() == all.last());
    assert_eq!(*taken.lock().expect("unpoisoned"), all);
}

#[test]
fn a_listener_whose_server_is_away_fails_with_its_url_and_runs_once_the_server_is_there() {
    let (folder, data) = (open_folder(), tempfile::tempdir().expect("a folder"));
    let back = free_port();
    let program = run(&manifests(free_port(), back, free_port()), free_port(), data.path());
    let told = program.wait("failed", "default/f/l").to_string();
    assert!(told.contains(&format!("cannot connect to nats://127.0.0.1:{back}")), "{told}");
    let _server = nats(folder.path(), back);
    program.wait("bound", "default/f/l");
}

#[test]
fn a_proxy_whose_stream_gets_messages_of_another_process_says_so_and_takes_no_more() {
    let (folder, data) = (open_folder(), tempfile::tempdir().expect("a folder"));
    let back = free_port();
    let _server = nats(folder.path(), back);
    let program = run(&manifests(free_port(), back, free_port()), free_port(), data.path());
    program.wait("bound", "default/f/l");
    let mut other = connect(back).expect("a connection");
    let publication = b"CONNECT {\"verbose\":false}\r\nPUB portlane__default__f__l 5\r\nother\r\n";
    other.write_all(publication).expect("it is sent");
    until("the proxy says so", || {
        program.events().iter().any(|event| event.to_string().contains("another process publishes to it"))
    });
}

#[test]
fn a_proxy_that_opens_the_stream_of_another_one_takes_it_over_and_the_other_one_says_so() {
    let (folder, data, other) = (open_folder(), tempfile::tempdir(), tempfile::tempdir());
    let (data, other) = (data.expect("a folder"), other.expect("a folder"));
    let (back, port, sink_port) = (free_port(), free_port(), free_port());
    let _server = nats(folder.path(), back);
    let first = run(&manifests(free_port(), back, sink_port), free_port(), data.path());
    let (_sink, taken) = sink(sink_port);
    let _second = run(&manifests(port, back, sink_port), free_port(), other.path());
    until("the first proxy says so", || {
        first.events().iter().any(|event| event.to_string().contains("another process has taken it over"))
    });
    send(port, |_| {});
    until("the sink has the last message", || taken.lock().expect("unpoisoned").last() == Some(&message(COUNT - 1)));
    let all: Vec<String> = (0..COUNT).map(message).collect();
    assert_eq!(*taken.lock().expect("unpoisoned"), all);
}
