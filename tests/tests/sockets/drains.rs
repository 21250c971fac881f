//! The end of the programs: what live sessions, probes, readers and the log see of it.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    io::{self, Write},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use harness::{
    Backend, Behaviour, Listener, Program, binary, connect, forward, free_port, http_get, round_trip, until,
};
use rustix::process::Signal;

use crate::lifecycle::{portlane, text};

#[test]
fn sigterm_lets_live_connections_finish_and_takes_no_new_ones() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    let mut program = Program::run(&manifest, free_port(), &["--drain-seconds", "30"]);
    let mut live = connect(port).expect("connect");
    round_trip(&mut live, b"x").expect("echo");
    program.signal(Signal::TERM);
    let draining = program.wait("draining", "portlane");
    let expected = "1 live session can continue for up to 30 s; press Ctrl-C again to exit now";
    assert_eq!(draining["message"], expected);
    until("no new connection", || connect(port).is_err());
    for _ in 0..10 {
        round_trip(&mut live, b"still").expect("a live session keeps running");
    }
    assert!(program.is_running());
    drop(live);
    assert!(program.wait_for_end(Duration::from_secs(10)).success());
    assert_eq!(program.wait("session_closed", "l")["reason"], "Finished");
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    let mut program = Program::run(&manifest, free_port(), &["--drain-seconds", "1"]);
    let mut live = connect(port).expect("connect");
    round_trip(&mut live, b"x").expect("echo");
    program.signal(Signal::TERM);
    assert!(program.wait_for_end(Duration::from_secs(10)).success());
    round_trip(&mut live, b"x").expect_err("reset");
    assert_eq!(program.wait("session_closed", "l")["reason"], "Drained");
}

#[test]
fn a_second_signal_ends_the_drain_now() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    let mut program = Program::run(&manifest, free_port(), &[]);
    let mut live = connect(port).expect("connect");
    round_trip(&mut live, b"x").expect("echo");
    program.signal(Signal::INT);
    program.wait("draining", "portlane");
    let second = Instant::now();
    program.signal(Signal::INT);
    program.wait_for_end(Duration::from_secs(10));
    assert!(second.elapsed() < Duration::from_secs(5));
}

/// The answer to a request to drain, with this header.
fn ask_to_drain(admin: u16, header: &str) -> String {
    let mut stream = connect(admin).expect("admin");
    write!(stream, "POST /drain?seconds=60 HTTP/1.1\r\nHost: localhost\r\n{header}\r\n").expect("request");
    let mut answer = String::new();
    io::Read::read_to_string(&mut stream, &mut answer).expect("answer");
    answer
}

#[test]
fn a_proxy_that_is_asked_to_drain_says_by_whom_before_it_ends() {
    let (port, health, admin) = (free_port(), free_port(), free_port());
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(9)]);
    let document = text(&portlane(&["translate", "-f", "-"], &manifest).stdout);
    let mut program = Program::proxy(&document, health, admin, &[]);
    assert!(ask_to_drain(admin, "").contains("202"));
    assert!(program.wait_for_end(Duration::from_secs(20)).success());
    let told = program.wait("draining", "process");
    assert_eq!(told["message"], "POST /drain at the admin address: no session is live");
}

#[test]
fn a_drain_by_the_admin_address_starts_at_once_and_hangs_on_no_edit() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, admin) = (free_port(), free_port());
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    let address = format!("127.0.0.1:{admin}");
    let mut program = Program::run(&manifest, free_port(), &["--admin-address", &address]);
    let mut live = connect(port).expect("connect");
    round_trip(&mut live, b"x").expect("echo");
    assert!(ask_to_drain(admin, "Origin: http://example.com\r\n").contains("403"), "refused for web pages");
    assert!(ask_to_drain(admin, "").contains("202"));
    let told = program.wait("draining", "process");
    let expected = "POST /drain at the admin address: 1 live session can continue for up to 60 s";
    assert_eq!(told["message"], expected);
    until("no new connection", || connect(port).is_err());
    let status = portlane(&["status", "--admin-address", &address], "");
    let expected = format!("error: GET /config from {address}: the proxy is shutting down\n");
    assert_eq!((status.status.code(), text(&status.stderr)), (Some(2), expected));
    program.edit(&manifest.replace("name: l", "name: m"));
    round_trip(&mut live, b"x").expect("a live session keeps running");
    drop(live);
    assert!(program.wait_for_end(Duration::from_secs(20)).success());
    let drains: Vec<_> = program.events().into_iter().filter(|event| event["event"] == "draining").collect();
    assert_eq!(drains, [told], "nobody pressed Ctrl-C");
}

/// The configuration of a listener at this port.
fn document(port: u16, backend: u16) -> String {
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend)]);
    text(&portlane(&["translate", "-f", "-"], &manifest).stdout)
}

/// Whether kubelet's probe of this kind succeeds.
fn is_probed(what: &str, socket: &Path) -> bool {
    let mut command = Command::new(binary("portlane-proxy"));
    command.args(["probe", what, "--socket"]).arg(socket).output().expect("the probe should run").status.success()
}

#[test]
fn a_proxy_that_drains_is_not_ready_for_load_balancers_and_passes_the_probes_of_kubelet() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, health, admin) = (free_port(), free_port(), free_port());
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("proxy.sock");
    let arguments = ["--socket", socket.to_str().expect("a path")];
    let mut program = Program::proxy(&document(port, backend.port), health, admin, &arguments);
    let mut live = connect(port).expect("connect");
    round_trip(&mut live, b"x").expect("echo");
    let listeners = || http_get(admin, "/listeners").expect("listeners").1;
    assert!(listeners().contains("\"Bound\""), "{}", listeners());
    program.signal(Signal::TERM);
    let draining = (503, "draining\n".to_owned());
    until("it is not ready", || http_get(health, "/readyz").expect("an answer") == draining);
    assert_eq!(http_get(health, "/livez").expect("an answer").0, 200);
    assert_eq!(["startup", "ready", "live"].map(|what| is_probed(what, &socket)), [true; 3]);
    let shown = listeners();
    assert!(shown.contains("\"Draining\"") && !shown.contains("\"Bound\""), "{shown}");
    drop(live);
    assert!(program.wait_for_end(Duration::from_secs(20)).success());
}

#[test]
fn a_signal_that_ends_a_proxy_is_logged_with_the_sessions_and_the_deadline() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, health, admin) = (free_port(), free_port(), free_port());
    let mut program = Program::proxy(&document(port, backend.port), health, admin, &["--drain-seconds", "30"]);
    let mut live = connect(port).expect("connect");
    round_trip(&mut live, b"x").expect("echo");
    program.signal(Signal::TERM);
    let told = program.wait("draining", "process");
    assert_eq!(told["message"], "SIGTERM: 1 live session can continue for up to 30 s");
    drop(live);
    assert!(program.wait_for_end(Duration::from_secs(20)).success());
}

#[test]
fn a_signal_during_a_drain_that_was_asked_for_promises_no_deadline_of_its_own() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, health, admin) = (free_port(), free_port(), free_port());
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    let address = format!("127.0.0.1:{admin}");
    let mut program = Program::run(&manifest, health, &["--admin-address", &address, "--drain-seconds", "30"]);
    let mut live = connect(port).expect("connect");
    round_trip(&mut live, b"x").expect("echo");
    assert!(ask_to_drain(admin, "").contains("202"));
    until("it drains", || http_get(health, "/readyz").expect("an answer").0 == 503);
    program.signal(Signal::INT);
    let told = program.wait("draining", "portlane");
    let expected =
        "1 live session can continue until the end of the drain that has already begun; press Ctrl-C again to exit now";
    assert_eq!(told["message"], expected);
    round_trip(&mut live, b"x").expect("a live session keeps running");
    program.signal(Signal::INT);
    program.wait_for_end(Duration::from_secs(20));
}

#[test]
fn the_first_signal_lets_sessions_continue_although_an_edit_during_a_drain_could_not_be_applied() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, health, admin) = (free_port(), free_port(), free_port());
    let mut program = Program::proxy(&document(port, backend.port), health, admin, &["--drain-seconds", "60"]);
    let mut live = connect(port).expect("connect");
    round_trip(&mut live, b"x").expect("echo");
    assert!(ask_to_drain(admin, "").contains("202"));
    until("it drains", || http_get(health, "/readyz").expect("an answer").0 == 503);
    // This makes the proxy try to apply the file at once, as after an edit.
    program.signal(Signal::HUP);
    program.wait("reading", "configuration");
    let seen = program.events().len();
    program.signal(Signal::TERM);
    let told = program.wait_after(seen, "draining", "process");
    let expected = "SIGTERM: 1 live session can continue until the end of the drain that has already begun";
    assert_eq!(told["message"], expected);
    round_trip(&mut live, b"x").expect("a live session keeps running");
    program.signal(Signal::TERM);
    program.wait_for_end(Duration::from_secs(20));
}
