//! A proxy that only drains its folder, as in the pod that works through the volume of one that scale-in has removed.

use std::{fs, net::TcpListener, path::Path, process::Command, time::Duration};

use harness::{Listener, Program, binary, connect, forward, free_port, send_relp};
use rustix::process::Signal;
use tempfile::{TempDir, tempdir};

use super::{LOCALHOST, Sink, messages, run, translated};

/// Longest wait for a proxy that only drains to end.
const ENDS: Duration = Duration::from_secs(10);

/// A listener that answers each message once it is on the disk.
fn listener(name: &str, port: u16, sink: u16) -> Listener {
    let durable = "durable: {framing: Relp, send: {relp: {}}, syncMillis: 0, store: {disk: {maxBytes: 16777216}}}";
    Listener::tcp(name, port).to(sink).with(durable)
}

/// Sends messages over RELP, and waits until each is answered.
fn fill(port: u16, messages: &[String]) {
    let stream = connect(port).expect("a connection");
    let message = |number: u64| messages.get(usize::try_from(number).expect("few")).cloned();
    let mut answered = 0;
    send_relp(stream, messages.len(), 0, message, |through| answered = through + 1).expect("the program answers");
    assert_eq!(answered, messages.len() as u64, "every message was answered");
}

/// A folder in which a program that was killed has left messages of the listeners at these ports.
fn left(manifests: &str, listeners: &[(u16, &[String])]) -> TempDir {
    let data = tempdir().expect("a folder");
    let program = run(manifests, free_port(), data.path());
    for (port, messages) in listeners {
        fill(*port, messages);
    }
    drop(program.kill());
    data
}

/// `portlane-proxy` that only drains this folder.
fn drain(manifests: &str, data: &Path) -> Program {
    let folder = tempdir().expect("a folder");
    let config = folder.path().join("config.yaml");
    fs::write(&config, translated(manifests, data)).expect("a file");
    let mut command = Command::new(binary("portlane-proxy"));
    command.arg("--config").arg(&config).arg("--data").arg(data);
    command.args(["--drain-only", "--health-address", "none", "--admin-address", "none"]);
    Program::start(command, folder)
}

#[test]
fn a_proxy_that_only_drains_sends_what_a_killed_one_has_left_listens_nowhere_and_ends() {
    let (port, sink) = (free_port(), free_port());
    let (manifests, kept) = (forward("f", "", &[listener("l", port, sink)]), messages("message"));
    let data = left(&manifests, &[(port, kept.as_slice())]);
    // A proxy that serves could not run the listener beside this one.
    let _held = TcpListener::bind((LOCALHOST, port)).expect("the port is free");
    let sink = Sink::start(sink);
    let mut proxy = drain(&manifests, data.path());
    assert!(proxy.wait_for_end(ENDS).success());
    assert_eq!(sink.taken(""), kept);
}

#[test]
fn a_proxy_that_only_drains_sends_what_a_listener_has_in_all_lanes_that_it_has_had_in_order() {
    let (port, sink) = (free_port(), free_port());
    let durable =
        "durable: {framing: Relp, send: {relp: {}}, syncMillis: 0, store: {disk: {maxBytes: 67108864}}, lanes: ";
    let manifests =
        |lanes: u32| forward("f", "", &[Listener::tcp("l", port).to(sink).with(&format!("{durable}{lanes}}}"))]);
    let (first, later) = (messages("first"), messages("later"));
    let data = left(&manifests(1), &[(port, first.as_slice())]);
    let program = run(&manifests(4), free_port(), data.path());
    fill(port, &later);
    drop(program.kill());
    let sink = Sink::start(sink);
    assert!(drain(&manifests(4), data.path()).wait_for_end(ENDS).success());
    assert_eq!(sink.taken(""), [first, later].concat());
}

#[test]
fn a_proxy_that_is_asked_to_end_before_the_sink_has_all_fails_and_the_messages_stay() {
    let (port, sink) = (free_port(), free_port());
    let (manifests, kept) = (forward("f", "", &[listener("l", port, sink)]), messages("message"));
    let data = left(&manifests, &[(port, kept.as_slice())]);
    let mut proxy = drain(&manifests, data.path());
    proxy.wait("sink", "default/f/l");
    assert!(proxy.is_running(), "it waits for its sink");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait_for_end(ENDS).code(), Some(1));
    let sink = Sink::start(sink);
    assert!(drain(&manifests, data.path()).wait_for_end(ENDS).success());
    assert_eq!(sink.taken(""), kept);
}

#[test]
fn a_folder_with_a_damaged_message_is_kept_at_every_try_and_the_others_are_sent_once() {
    let (port, sink) = (free_port(), free_port());
    let (manifests, mut kept) = (forward("f", "", &[listener("l", port, sink)]), messages("message"));
    let data = left(&manifests, &[(port, kept.as_slice())]);
    let segment = data.path().join("durable/default/f/l/log-0000000000000000.log");
    let mut bytes = fs::read(&segment).expect("a segment of the log");
    *bytes.last_mut().expect("messages") ^= 1;
    fs::write(&segment, bytes).expect("a file");
    let sink = Sink::start(sink);
    for _ in 0..2 {
        assert_eq!(drain(&manifests, data.path()).wait_for_end(ENDS).code(), Some(1));
    }
    drop(kept.pop());
    assert_eq!(sink.taken(""), kept);
}

#[test]
fn messages_of_a_listener_that_is_gone_are_named_and_kept_and_others_are_sent_first() {
    let (here, gone, sink) = (free_port(), free_port(), free_port());
    let listeners = [listener("here", here, sink), listener("gone", gone, sink)];
    let (sent, kept) = (messages("sent"), messages("kept"));
    let data = left(&forward("f", "", &listeners), &[(here, sent.as_slice()), (gone, kept.as_slice())]);
    let mut proxy = drain(&forward("f", "", &listeners[..1]), data.path());
    let told = proxy.wait("draining", "default/f/gone").to_string();
    assert!(told.contains("20 messages waiting"), "{told}");
    let sink = Sink::start(sink);
    assert_eq!(proxy.wait_for_end(ENDS).code(), Some(1));
    assert_eq!((sink.taken("sent"), sink.taken("kept")), (sent, Vec::new()));
}
