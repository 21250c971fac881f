//! Durable listeners that keep their messages in NATS `JetStream`.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod cluster;
mod credentials;
mod drops;
mod kills;
mod roots;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    net::TcpStream,
    path::Path,
    sync::{Arc, Mutex},
    thread,
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

/// Writes the configuration of a NATS server that takes messages of so many bytes.
fn configure(folder: &Path, port: u16, max_payload: usize) {
    let streams = folder.join("streams");
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\nmax_payload: {max_payload}\njetstream: {{store_dir: \"{}\"}}\n",
        streams.display()
    );
    fs::write(folder.join("nats.conf"), text).expect("it is written");
}

/// A NATS server that this configuration is for.
fn configured(folder: &Path, port: u16) -> Server {
    let program = programs::built(KubernetesVersion::Oldest, "nats-server").unwrap_or_else(|error| panic!("{error}"));
    let line = format!("{} --config {}/nats.conf", program.display(), folder.display());
    Server::start(folder, &line, listens(port))
}

/// A forward to `sink`, whose messages the server at `back` keeps.
fn manifests(port: u16, back: u16, sink: u16) -> String {
    framed("Relp", port, back, sink)
}

/// As [`manifests`], for messages of this framing.
fn framed(framing: &str, port: u16, back: u16, sink: u16) -> String {
    let store = format!("{{jetStream: {{url: 'nats://127.0.0.1:{back}', maxBytes: 16777216}}}}");
    let durable = format!("durable: {{framing: {framing}, send: {{relp: {{}}}}, store: {store}}}");
    forward("f", "", &[Listener::tcp("l", port).to(sink).with(&durable)])
}

fn run(manifests: &str, health: u16, data: &Path) -> Program {
    Program::run(manifests, health, &["--data", data.to_str().expect("UTF-8")])
}

fn message(source: &str, number: u64) -> String {
    format!("<13>{source} {number}")
}

fn all(source: &str) -> Vec<String> {
    (0..COUNT).map(|number| message(source, number)).collect()
}

/// Sends all messages of a source over RELP. `kept` hears how many of them are acknowledged, each time that there are more.
fn send(source: &str, port: u16, mut kept: impl FnMut(u64)) {
    let stream = connect(port).expect("a connection");
    let (mut acknowledged, next) = (0, |number: u64| (number < COUNT).then(|| message(source, number)));
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
    send("a", port, |kept| {
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
    until("the sink has the last message", || taken.lock().expect("unpoisoned").last() == all("a").last());
    assert_eq!(*taken.lock().expect("unpoisoned"), all("a"));
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
fn a_message_that_the_server_does_not_take_any_more_is_given_up_and_those_behind_it_arrive() {
    let (folder, data) = (open_folder(), tempfile::tempdir().expect("a folder"));
    let (back, port, sink_port) = (free_port(), free_port(), free_port());
    configure(folder.path(), back, 1 << 20);
    let mut server = configured(folder.path(), back);
    let (_sink, taken) = sink(sink_port);
    let program = run(&framed("Newline", port, back, sink_port), free_port(), data.path());
    program.wait("bound", "default/f/l");
    let mut client = connect(port).expect("a connection");
    client.write_all(b"<13>before\n").expect("it is sent");
    let has = |message: &str| taken.lock().expect("unpoisoned").iter().any(|it| it == message);
    until("the sink has the first message", || has("<13>before"));
    server.crash();
    configure(folder.path(), back, 16 << 10);
    server.come_back();
    let long = "x".repeat(32 << 10);
    client.write_all(format!("<13>first\n<13>{long}\n<13>last\n").as_bytes()).expect("it is sent");
    until("the sink has the last message", || has("<13>last"));
    assert!(has("<13>first"));
    let longest = taken.lock().expect("unpoisoned").iter().map(String::len).max();
    assert_eq!(longest, Some("<13>before".len()));
    until("the message is logged", || {
        program
            .events()
            .iter()
            .any(|event| event.to_string().contains("accepts at most 16384 bytes for a message and its headers"))
    });
    // A connection keeps the bound that was known when it began.
    until("the sink has a message that is as long as the server takes", || {
        let mut next = connect(port).expect("a connection");
        next.write_all(format!("<13>next{long}\n").as_bytes()).expect("it is sent");
        let taken = taken.lock().expect("unpoisoned");
        taken.last().is_some_and(|message| message.starts_with("<13>next") && message.len() == 16384 - 2048)
    });
}

/// The messages of a source, each as it came first.
fn of(source: &str, taken: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let own = taken.iter().filter(|message| message.starts_with(&format!("<13>{source} ")));
    own.filter(|message| seen.insert((*message).clone())).cloned().collect()
}

#[test]
fn two_proxies_share_a_stream_and_if_the_one_that_sends_is_killed_the_other_one_sends_the_messages_of_both() {
    let (folder, data, other) = (open_folder(), tempfile::tempdir(), tempfile::tempdir());
    let (data, other) = (data.expect("a folder"), other.expect("a folder"));
    let (back, port, other_port, sink_port) = (free_port(), free_port(), free_port(), free_port());
    let _server = nats(folder.path(), back);
    let (_sink, taken) = sink(sink_port);
    let has = |message: Option<&String>| message.is_some_and(|it| taken.lock().expect("unpoisoned").contains(it));
    let first = run(&manifests(port, back, sink_port), free_port(), data.path());
    first.wait("bound", "default/f/l");
    send("alone", port, |_| {});
    until("the first proxy sends", || has(all("alone").last()));
    let second = run(&manifests(other_port, back, sink_port), free_port(), other.path());
    second.wait("bound", "default/f/l");
    thread::scope(|scope| {
        scope.spawn(|| send("a", port, |_| {}));
        send("b", other_port, |_| {});
    });
    drop(first.kill());
    until("the sink has all of both", || ["a", "b"].iter().all(|source| has(all(source).last())));
    send("after", other_port, |_| {});
    until("the second proxy sends", || has(all("after").last()));
    let taken = taken.lock().expect("unpoisoned");
    for source in ["alone", "a", "b", "after"] {
        assert_eq!(of(source, &taken), all(source), "{source}");
    }
}
