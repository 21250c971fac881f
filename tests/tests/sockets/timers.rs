//! Time limits from outside: never early, at most a second late, and an end that cuts an answer is a reset. What came
//! while the program was frozen counts before any limit.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream, UdpSocket},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use harness::{
    Backend, Behaviour, Listener, PATIENCE, Program, UdpEcho, connect, free_port, http_get, metric, round_trip, until,
};
use rustix::process::Signal;
use socket2::SockRef;

use crate::{run_with, sessions_odd::Stuck};

/// The limit of these tests: the shortest that can be set.
const LIMIT: Duration = Duration::from_secs(1);
/// An end is at most a second late; a busy machine may need another.
const LATEST: Duration = Duration::from_secs(3);
/// Longer than any limit of these tests, and than a round of the sweep.
const FREEZE: Duration = Duration::from_millis(3500);

/// Stops the program for longer than its limits; does something meanwhile.
fn freeze(program: &Program, meanwhile: impl FnOnce()) {
    program.signal(Signal::STOP);
    meanwhile();
    thread::park_timeout(FREEZE);
    program.signal(Signal::CONT);
}

#[track_caller]
fn assert_in_time(since: Instant) {
    let passed = since.elapsed();
    assert!((LIMIT..LATEST).contains(&passed), "{passed:?}");
}

#[test]
fn a_client_that_sends_within_the_limit_is_never_idle_and_a_silent_one_ends_after_it() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let (program, _) = run_with("timeouts: {idleSeconds: 1}", &[Listener::tcp("idle", port).to(backend.port)], &[]);
    let mut client = connect(port).expect("connect");
    let mut last = Instant::now();
    for _ in 0..12 {
        let now = Instant::now();
        if let Err(error) = round_trip(&mut client, b"x") {
            let passed = last.elapsed();
            // On a busy machine, a pause of the test itself may have been too long to tell.
            assert!(passed >= LIMIT, "{error} after {passed:?}");
            return;
        }
        last = now;
        thread::park_timeout(Duration::from_millis(350));
    }
    assert_eq!(client.read(&mut [0]).expect("a clean end"), 0);
    assert_in_time(last);
    assert_eq!(program.wait("session_closed", "idle")["reason"], "Idle");
}

#[test]
fn a_half_closed_session_goes_on_while_the_server_sends_within_the_limit() {
    const LINES: usize = 9;
    let backend = Backend::start(Behaviour::Run(Arc::new(|mut stream: TcpStream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).expect("request");
        for _ in 0..LINES {
            thread::park_timeout(Duration::from_millis(450));
            if stream.write_all(b"line\n").is_err() {
                return;
            }
        }
    })));
    let port = free_port();
    let times = "timeouts: {idleSeconds: 60, halfCloseSeconds: 1}";
    let (_program, _) = run_with(times, &[Listener::tcp("lines", port).to(backend.port)], &[]);
    let mut client = connect(port).expect("connect");
    client.write_all(b"lines?").expect("request");
    let mut last = Instant::now();
    client.shutdown(Shutdown::Write).expect("finish");
    for number in 0..LINES {
        let mut line = [0; 5];
        if let Err(error) = client.read_exact(&mut line) {
            let passed = last.elapsed();
            assert!(passed >= LIMIT, "{error} after {number} lines and {passed:?}");
            return;
        }
        last = Instant::now();
    }
    assert_eq!(client.read(&mut [0]).expect("a clean end"), 0);
}

#[test]
fn a_half_closed_session_that_is_silent_for_too_long_is_reset_because_its_answer_may_be_cut() {
    let backend = Backend::start(Behaviour::Run(Arc::new(|mut stream: TcpStream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).expect("request");
        stream.write_all(b"half an answer").expect("answer");
        until("the server is reset too", || !matches!(stream.take_error(), Ok(None)));
    })));
    let port = free_port();
    let times = "timeouts: {idleSeconds: 60, halfCloseSeconds: 1}";
    let (program, _) = run_with(times, &[Listener::tcp("half", port).to(backend.port)], &[]);
    let mut client = connect(port).expect("connect");
    let finished = Instant::now();
    client.shutdown(Shutdown::Write).expect("finish");
    let mut answer = Vec::new();
    let error = client.read_to_end(&mut answer).expect_err("the answer would look complete");
    assert_eq!((error.kind(), answer.as_slice()), (ErrorKind::ConnectionReset, b"half an answer".as_slice()));
    assert_in_time(finished);
    assert_eq!(program.wait("session_closed", "half")["reason"], "HalfClosed");
}

#[test]
fn a_drain_and_a_session_that_are_over_cut_by_a_reset_and_not_early() {
    let backend = Backend::start(Behaviour::Echo);
    let (drained, old) = (free_port(), free_port());
    let listener = Listener::tcp("l", old).to(backend.port);
    let (program, _) = run_with("timeouts: {maxSessionSeconds: 1}", &[listener], &[]);
    let began = Instant::now();
    let mut client = connect(old).expect("connect");
    round_trip(&mut client, b"x").expect("echo");
    assert_eq!(client.read(&mut [0]).expect_err("a cut").kind(), ErrorKind::ConnectionReset);
    assert_in_time(began);
    assert_eq!(program.wait("session_closed", "l")["reason"], "MaxSession");

    let (program, _) = run_with("", &[Listener::tcp("l", drained).to(backend.port)], &["--drain-seconds", "1"]);
    let mut client = connect(drained).expect("connect");
    round_trip(&mut client, b"x").expect("echo");
    let asked = Instant::now();
    program.signal(Signal::TERM);
    assert_eq!(client.read(&mut [0]).expect_err("a cut").kind(), ErrorKind::ConnectionReset);
    assert_in_time(asked);
}

#[test]
fn a_flow_that_nobody_uses_does_not_end_early() {
    let server = UdpEcho::start();
    let port = free_port();
    let (program, _) = run_with("timeouts: {udpIdleSeconds: 1}", &[Listener::udp("u", port).to(server.port)], &[]);
    let client = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    client.connect(("127.0.0.1", port)).expect("connect");
    let sent = Instant::now();
    client.send(b"one").expect("send");
    assert_eq!(program.wait("session_closed", "u")["reason"], "FlowIdle");
    assert_in_time(sent);
}

#[test]
fn a_header_that_does_not_come_is_not_given_up_early() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let listener = Listener::tcp("l", port)
        .to(backend.port)
        .with("proxyProtocol: {accept: Required, trustedCIDRs: [127.0.0.0/8]}");
    let (program, _) = run_with("timeouts: {handshakeSeconds: 1}", &[listener], &[]);
    let began = Instant::now();
    let mut client = connect(port).expect("connect");
    client.write_all(b"PROXY TCP4 192.0.2.1 ").expect("half a header");
    assert_eq!(client.read(&mut [0]).expect_err("an end without an answer").kind(), ErrorKind::ConnectionReset);
    assert_in_time(began);
    assert_eq!(program.wait("session_closed", "l")["reason"], "HandshakeTimeout");
}

#[test]
fn a_connect_that_nobody_takes_is_not_given_up_early() {
    let stuck = Stuck::start("127.0.0.1:0");
    let port = free_port();
    let spec = "timeouts: {connectSeconds: 1}\nretry: {attempts: 1}";
    let (program, _) = run_with(spec, &[Listener::tcp("l", port).to(stuck.port)], &[]);
    let began = Instant::now();
    let mut client = connect(port).expect("connect");
    assert_eq!(client.read(&mut [0]).expect_err("an end without an answer").kind(), ErrorKind::ConnectionReset);
    assert_in_time(began);
    assert_eq!(program.wait("session_closed", "l")["reason"], "NoBackend");
}

#[test]
fn bytes_that_came_during_a_freeze_are_delivered_and_the_session_lives() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let (program, _) = run_with("timeouts: {idleSeconds: 1}", &[Listener::tcp("l", port).to(backend.port)], &[]);
    let mut client = connect(port).expect("connect");
    round_trip(&mut client, b"x").expect("echo");
    freeze(&program, || client.write_all(b"meanwhile").expect("write"));
    let mut answer = [0; 9];
    client.read_exact(&mut answer).expect("what was sent during the freeze");
    assert_eq!(&answer, b"meanwhile");
    round_trip(&mut client, b"x").expect("the session lives");
}

#[test]
fn an_answer_that_came_during_a_freeze_is_whole() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::start(Behaviour::Run(Arc::new(move |mut stream: TcpStream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).expect("request");
        stream.write_all(b"one ").expect("the first half");
        wait.lock().expect("unpoisoned").recv_timeout(PATIENCE).expect("a freeze");
        stream.write_all(b"two").expect("the second half");
    })));
    let port = free_port();
    let times = "timeouts: {idleSeconds: 60, halfCloseSeconds: 2}";
    let (program, _) = run_with(times, &[Listener::tcp("l", port).to(backend.port)], &[]);
    let mut client = connect(port).expect("connect");
    client.shutdown(Shutdown::Write).expect("finish");
    let mut answer = [0; 4];
    client.read_exact(&mut answer).expect("the first half");
    freeze(&program, || go.send(()).expect("a server"));
    let mut rest = String::new();
    client.read_to_string(&mut rest).expect("a clean end");
    assert_eq!(rest, "two");
}

#[test]
fn a_flow_with_datagrams_that_came_during_a_freeze_is_not_idle() {
    let server = UdpEcho::start();
    let port = free_port();
    let (program, health) = run_with("timeouts: {udpIdleSeconds: 1}", &[Listener::udp("u", port).to(server.port)], &[]);
    let client = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    client.connect(("127.0.0.1", port)).expect("connect");
    client.set_read_timeout(Some(PATIENCE)).expect("option");
    let mut answer = [0; 16];
    client.send(b"one").expect("send");
    assert_eq!(client.recv(&mut answer).expect("answer"), 3);
    freeze(&program, || assert_eq!(client.send(b"three").expect("send"), 5));
    assert_eq!(client.recv(&mut answer).expect("what was sent during the freeze"), 5);
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    let opened =
        "portlane_connections_opened_total{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"u\"}";
    assert_eq!(metric(&text, opened), Some(1.0), "the flow is the same");
}

#[test]
fn a_header_that_came_during_a_freeze_is_not_late() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let listener = Listener::tcp("l", port)
        .to(backend.port)
        .with("proxyProtocol: {accept: Required, trustedCIDRs: [127.0.0.0/8]}");
    let (program, health) = run_with("timeouts: {handshakeSeconds: 2}", &[listener], &[]);
    let mut client = connect(port).expect("connect");
    let active = "portlane_connections_active{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"l\"}";
    until("the handshake has begun", || {
        http_get(health, "/metrics").is_ok_and(|(_, text)| metric(&text, active) == Some(1.0))
    });
    freeze(&program, || client.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 2222\r\n").expect("header"));
    round_trip(&mut client, b"x").expect("the header counts");
}

#[test]
fn a_connection_that_the_backend_took_during_a_freeze_is_not_late() {
    let stuck = Stuck::start("127.0.0.1:0");
    let port = free_port();
    let spec = "timeouts: {connectSeconds: 2}\nretry: {attempts: 1}";
    let (program, health) = run_with(spec, &[Listener::tcp("l", port).to(stuck.port)], &[]);
    let mut client = connect(port).expect("connect");
    client.write_all(b"request").expect("write");
    client.shutdown(Shutdown::Write).expect("finish");
    let active = "portlane_connections_active{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"l\"}";
    until("the connect has begun", || {
        http_get(health, "/metrics").is_ok_and(|(_, text)| metric(&text, active) == Some(1.0))
    });
    let mut server = None;
    // The kernel repeats the connect meanwhile, and the backend takes it.
    freeze(&program, || server = Some(stuck.recover()));
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("the connection counts");
    assert_eq!(answer, "request");
    server.expect("a server").join().expect("the server should end");
}

// D21
#[test]
fn a_session_that_waits_for_bandwidth_sees_a_reset_at_once() {
    let (sent, received) = mpsc::channel();
    let backend = Backend::start(Behaviour::Run(Arc::new(move |mut stream: TcpStream| {
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
            let _ = sent.send(());
        }
    })));
    let port = free_port();
    let (program, _) = run_with("limits: {bytesPerSecond: 3000}", &[Listener::tcp("l", port).to(backend.port)], &[]);
    let mut client = connect(port).expect("connect");
    // Twenty seconds' worth.
    client.write_all(&vec![7; 60_000]).expect("write");
    received.recv_timeout(PATIENCE).expect("the relay has begun");
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("option");
    let reset = Instant::now();
    drop(client);
    assert_eq!(program.wait("session_closed", "l")["reason"], "ClientReset");
    assert!(reset.elapsed() < Duration::from_secs(8), "{:?}", reset.elapsed());
}
