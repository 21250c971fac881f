//! Durable listeners from outside: messages in, `portlane run` with a folder, a sink that comes later.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

mod answers;
mod away;
mod draining;
mod edits;
mod examples;
mod flood;
mod framings;
mod http;
mod ipv6;
mod kills;
#[cfg(target_os = "linux")]
mod lanes;
mod refusals;

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use harness::{
    Backend, Behaviour, Listener, Program, binary, connect, forward, free_port, http_get, serve_relp, until,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::tempdir;

/// Messages of each client.
const COUNT: usize = 20;
const LOCALHOST: &str = "127.0.0.1";

/// A sink that speaks RELP and takes everything.
struct Sink {
    _backend: Backend,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    fn start(port: u16) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn start_at(address: SocketAddr) -> Self {
        let taken = Arc::<Mutex<Vec<String>>>::default();
        let kept = taken.clone();
        let serve = move |stream: TcpStream| {
            serve_relp(stream, || true, |message| kept.lock().expect("unpoisoned").push(message));
        };
        Self { _backend: Backend::start_at(address, Behaviour::Run(Arc::new(serve))), taken }
    }

    /// The messages that begin with this word, in the order of their arrival.
    fn taken(&self, word: &str) -> Vec<String> {
        let taken = self.taken.lock().expect("unpoisoned");
        taken.iter().filter(|message| message.starts_with(word)).cloned().collect()
    }
}

/// `portlane run` of these manifests with messages in this folder.
fn run(manifests: &str, health: u16, data: &Path) -> Program {
    Program::run(manifests, health, &["--data", data.to_str().expect("UTF-8")])
}

/// `portlane-proxy` of these manifests with messages in this folder, as in a pod.
fn proxy(manifests: &str, health: u16, data: &Path, arguments: &[&str]) -> Program {
    let arguments = [&["--data", data.to_str().expect("UTF-8")][..], arguments].concat();
    Program::proxy(&translated(manifests, data), health, free_port(), &arguments)
}

/// The configuration of these manifests, which are left in a folder.
fn translated(manifests: &str, folder: &Path) -> String {
    let source = folder.join("forward.yaml");
    fs::write(&source, manifests).expect("a file");
    let translated = Command::new(binary("portlane")).args(["translate", "-f"]).arg(&source).output();
    String::from_utf8(translated.expect("portlane should run").stdout).expect("text")
}

/// A listener that sends over RELP to a port of this machine.
fn durable(listener: Listener, sink: u16) -> Listener {
    listener.to(sink).with("durable: {send: {relp: {}}, syncMillis: 0, store: {disk: {maxBytes: 16777216}}}")
}

fn messages(word: &str) -> Vec<String> {
    (0..COUNT).map(|number| format!("{word} {number}")).collect()
}

fn send_datagrams(port: u16, messages: &[String]) {
    let socket = UdpSocket::bind((LOCALHOST, 0)).expect("a port");
    for message in messages {
        socket.send_to(message.as_bytes(), (LOCALHOST, port)).expect("it is sent");
    }
}

/// A figure of a durable listener at the metrics page. `more` are its other labels, such as `,reason="Full"`.
fn figure(health: u16, name: &str, listener: &str, more: &str) -> Option<u64> {
    let labels = format!("kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"{listener}\"{more}");
    let series = format!("portlane_durable_{name}{{{labels}}} ");
    let (_, page) = http_get(health, "/metrics").ok()?;
    page.lines().find_map(|line| line.strip_prefix(&series)?.split('.').next()?.trim().parse().ok())
}

/// Waits until the log of a listener has so many messages for its sink.
fn until_kept(health: u16, listener: &str, count: usize) {
    until(&format!("{count} messages of {listener} are in the log"), || {
        figure(health, "backlog_messages", listener, "") == Some(count as u64)
    });
}

#[test]
fn messages_that_were_kept_arrive_in_order_after_a_crash_once_the_sink_is_there() {
    let (udp, tcp, sink, health) = (free_port(), free_port(), free_port(), free_port());
    let data = tempdir().expect("a folder");
    let listeners = [durable(Listener::udp("u", udp), sink), durable(Listener::tcp("t", tcp), sink)];
    let manifests = forward("f", "", &listeners);
    let program = run(&manifests, health, data.path());
    let (datagrams, lines) = (messages("datagram"), messages("line"));
    send_datagrams(udp, &datagrams);
    let mut client = connect(tcp).expect("a connection");
    client.write_all((lines.join("\n") + "\n").as_bytes()).expect("it is sent");
    until_kept(health, "u", COUNT);
    until_kept(health, "t", COUNT);
    drop(client);
    drop(program.kill());
    let _program = run(&manifests, health, data.path());
    let sink = Sink::start(sink);
    until("the sink has all messages", || sink.taken("").len() >= 2 * COUNT);
    assert_eq!((sink.taken("datagram"), sink.taken("line")), (datagrams, lines));
}

#[test]
fn portlane_lag_lists_what_waits_for_the_sinks_of_durable_listeners() {
    let (udp, health, admin, data) = (free_port(), free_port(), free_port(), tempdir().expect("a folder"));
    let admin = format!("127.0.0.1:{admin}");
    let listeners = [durable(Listener::udp("u", udp), free_port()), Listener::tcp("t", free_port()).to(free_port())];
    let arguments = ["--data", data.path().to_str().expect("UTF-8"), "--admin-address", &admin];
    let _program = Program::run(&forward("f", "", &listeners), health, &arguments);
    let lag = |arguments: &[&str]| {
        let mut command = Command::new(binary("portlane"));
        command.args(["lag", "--admin-address", &admin]).args(arguments);
        command.output().expect("portlane lag")
    };
    send_datagrams(udp, &messages("datagram"));
    until_kept(health, "u", COUNT);
    let listed = lag(&["f", "-o", "json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed["listeners"].as_array().map(Vec::len), Some(1), "the other listener is not durable: {listed}");
    let listener = &listed["listeners"][0];
    assert_eq!(listener["listener"], "default/f/u");
    assert_eq!(
        (&listener["backlog"], &listener["delivered"], &listener["lanes"]),
        (&json!(COUNT), &json!(0), &json!(1))
    );
    let text = String::from_utf8(lag(&[]).stdout).expect("text");
    assert!(text.contains("OLDEST") && text.contains("1 durable listener, 20 messages not delivered"), "{text}");
    let refused = lag(&["nosuch"]);
    assert!(refused.status.code() == Some(2) && refused.stdout.is_empty(), "{refused:?}");
}

#[test]
fn only_syslog_of_rfc_5424_gets_an_element_on_its_way_to_a_sink_over_relp() {
    let (tcp, to, data) = (free_port(), free_port(), tempdir().expect("a folder"));
    let durable = "durable: {framing: Syslog, syncMillis: 0, store: {disk: {maxBytes: 16777216}}, send: {relp: {}}, \
                   enrich: {structuredDataId: portlane@32473}}";
    let sink = Sink::start(to);
    let _program = run(&forward("f", "", &[Listener::tcp("t", tcp).to(to).with(durable)]), free_port(), data.path());
    let mut client = connect(tcp).expect("a connection");
    client.write_all(b"<34>1 - web su - - - failed\n<13>Oct 11 22:14:16 web cron: done\n").expect("it is sent");
    until("the sink has both messages", || sink.taken("").len() >= 2);
    let taken = sink.taken("");
    let (element, rest) = taken[0].split_once(" client=").expect("the element has the client");
    assert!(element.starts_with("<34>1 - web su - - [portlane@32473 receivedAt=\""), "{taken:?}");
    assert!(rest.starts_with("\"127.0.0.1\" forward=\"default/f\" pod=\""), "{taken:?}");
    assert!(rest.ends_with("\"] failed"), "{taken:?}");
    assert_eq!(taken[1..], ["<13>Oct 11 22:14:16 web cron: done"]);
}

#[test]
fn messages_that_wait_go_to_another_sink_when_the_backend_changes() {
    let (udp, nowhere, health) = (free_port(), free_port(), free_port());
    let data = tempdir().expect("a folder");
    let manifests = |sink| forward("f", "", &[durable(Listener::udp("u", udp), sink)]);
    let program = run(&manifests(nowhere), health, data.path());
    let datagrams = messages("datagram");
    send_datagrams(udp, &datagrams);
    until_kept(health, "u", COUNT);
    let other = free_port();
    let sink = Sink::start(other);
    program.edit_and_wait(&manifests(other), "swapped", "default/f/u");
    until("the other sink has all messages", || sink.taken("").len() >= COUNT);
    assert_eq!(sink.taken("datagram"), datagrams);
}

#[test]
fn a_durable_listener_without_a_folder_fails_and_names_the_option() {
    let manifests = forward("f", "", &[durable(Listener::udp("u", free_port()), free_port())]);
    let program = Program::run(&manifests, free_port(), &[]);
    let told = program.wait("failed", "default/f/u").to_string();
    assert!(told.contains("--data DIR"), "{told}");
}

#[test]
fn a_folder_that_another_process_uses_is_named_and_used_once_it_is_free() {
    let data = tempdir().expect("a folder");
    let manifests = || forward("f", "", &[durable(Listener::udp("u", free_port()), free_port())]);
    let first = run(&manifests(), free_port(), data.path());
    first.wait("bound", "default/f/u");
    let second = run(&manifests(), free_port(), data.path());
    let told = second.wait("failed", "default/f/u").to_string();
    assert!(told.contains("another process keeps messages in"), "{told}");
    drop(first.kill());
    second.wait("bound", "default/f/u");
}

#[test]
fn a_proxy_whose_folder_goes_with_its_pod_sends_what_it_has_before_it_ends() {
    let (udp, sink, health) = (free_port(), free_port(), free_port());
    let data = tempdir().expect("a folder");
    let manifests = forward("f", "", &[durable(Listener::udp("u", udp), sink)]);
    let arguments = ["--data-drain-seconds", "30", "--drain-seconds", "0"];
    let mut proxy = proxy(&manifests, health, data.path(), &arguments);
    let datagrams = messages("datagram");
    send_datagrams(udp, &datagrams);
    until_kept(health, "u", COUNT);
    proxy.signal(Signal::TERM);
    until("the port is closed", || UdpSocket::bind((LOCALHOST, udp)).is_ok());
    let sink = Sink::start(sink);
    assert!(proxy.wait_for_end(Duration::from_secs(10)).success());
    assert_eq!(sink.taken("datagram"), datagrams);
}

#[test]
fn a_second_signal_ends_a_proxy_that_waits_for_a_sink_and_its_messages_stay() {
    let (udp, sink, health) = (free_port(), free_port(), free_port());
    let data = tempdir().expect("a folder");
    let manifests = forward("f", "", &[durable(Listener::udp("u", udp), sink)]);
    let mut proxy = proxy(&manifests, health, data.path(), &["--data-drain-seconds", "600"]);
    send_datagrams(udp, &messages("datagram"));
    until_kept(health, "u", COUNT);
    proxy.signal(Signal::TERM);
    until("the port is closed", || UdpSocket::bind((LOCALHOST, udp)).is_ok());
    assert!(proxy.is_running());
    proxy.signal(Signal::TERM);
    assert!(proxy.wait_for_end(Duration::from_secs(10)).success());
    let _program = run(&manifests, health, data.path());
    until_kept(health, "u", COUNT);
}

#[test]
fn a_listener_whose_log_finds_no_room_in_the_folder_fails_beside_one_that_has_it() {
    let (first, second) = (free_port(), free_port());
    let data = tempdir().expect("a folder");
    let listeners = [("a", first), ("b", second)].map(|(name, port)| durable(Listener::udp(name, port), free_port()));
    // One byte too few for two logs of 16 MiB.
    let arguments = ["--data-bytes", "33554431"];
    let proxy = proxy(&forward("f", "", &listeners), free_port(), data.path(), &arguments);
    let told = proxy.wait("failed", "default/f/b").to_string();
    assert!(told.contains("16777215 of 33554431 bytes are left"), "{told}");
    proxy.wait("bound", "default/f/a");
}
