//! The life of a TCP session: its time limits and its lines in the access log.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use harness::{Backend, Behaviour, Listener, connect, free_port, round_trip};

use crate::run_with;

#[test]
fn idle_sessions_end_by_a_clean_close() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let (program, _) = run_with("timeouts: {idleSeconds: 1}", &[Listener::tcp("idle", port).to(backend.port)], &[]);
    let mut client = connect(port).expect("connect");
    round_trip(&mut client, b"x").expect("echo");
    assert_eq!(client.read(&mut [0]).expect("a clean end"), 0);
    assert_eq!(program.wait("session_closed", "idle")["reason"], "Idle");
}

#[test]
fn a_session_that_is_idle_because_its_client_does_not_read_is_cut_and_not_finished() {
    let backend = Backend::start(Behaviour::Run(Arc::new(|mut stream: TcpStream| {
        let _ = stream.write_all(&vec![1; 64 << 20]);
    })));
    let port = free_port();
    let (program, _) = run_with("timeouts: {idleSeconds: 1}", &[Listener::tcp("slow", port).to(backend.port)], &[]);
    let mut client = connect(port).expect("connect");
    assert_eq!(program.wait("session_closed", "slow")["reason"], "Stalled");
    let mut buffer = vec![0; 1 << 20];
    let error = loop {
        match client.read(&mut buffer) {
            Ok(0) => panic!("a clean end: the answer looks complete"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_half_closed_session_has_its_own_limit_from_then_on() {
    let backend = Backend::start(Behaviour::Run(Arc::new(|mut stream: TcpStream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).expect("request");
        // Longer than a sweep interval, shorter than the timeout.
        thread::park_timeout(Duration::from_millis(2500));
        stream.write_all(b"late").expect("answer");
    })));
    let port = free_port();
    let times = "timeouts: {idleSeconds: 60, halfCloseSeconds: 4}";
    let (_program, _) = run_with(times, &[Listener::tcp("late", port).to(backend.port)], &[]);
    let mut client = connect(port).expect("connect");
    thread::park_timeout(Duration::from_millis(4500));
    client.shutdown(Shutdown::Write).expect("finish");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("answer");
    assert_eq!(answer, "late");
}

#[test]
fn the_access_log_records_opened_open_and_closed_sessions() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let spec = "accessLog: {mode: OpenAndClose, intervalSeconds: 1}";
    let (program, _) = run_with(spec, &[Listener::tcp("logged", port).to(backend.port)], &[]);
    let mut client = connect(port).expect("connect");
    round_trip(&mut client, b"12345").expect("echo");
    let opened = program.wait("session_opened", "logged");
    assert_eq!(opened["backend"].as_str(), Some(format!("addr/127.0.0.1:{}", backend.port).as_str()));
    let open = program.wait("session_open", "logged");
    assert_eq!((open["bytesUp"].as_u64(), open["reason"].as_str()), (Some(5), None));
    let own = client.local_addr().expect("address").to_string();
    drop(client);
    let closed = program.wait("session_closed", "logged");
    assert_eq!((closed["client"].as_str(), closed["bytesDown"].as_u64()), (Some(own.as_str()), Some(5)));
    assert!(closed["durationSeconds"].as_f64().is_some_and(|seconds| seconds >= 1.0), "{closed}");
}
