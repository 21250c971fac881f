//! Which backend gets a session: weights, retries, ejected endpoints and names with several addresses.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{io::Read, time::Duration};

use harness::{Backend, Behaviour, Listener, assert_reset, connect, forward, free_port, round_trip, until};

use crate::{run, run_with};

#[test]
fn weights_split_eighty_connections_exactly_whatever_the_number_of_workers() {
    let (three, one) = (Backend::start(Behaviour::Echo), Backend::start(Behaviour::Echo));
    for workers in ["1", "2", "3"] {
        let port = free_port();
        let heavy = format!("address: {{host: 127.0.0.1, port: {}}}, weight: 3", three.port);
        let listener = Listener::tcp("split", port).backend(&heavy).to(one.port);
        let (_program, _) = run_with("", &[listener], &["--workers", workers]);
        let before = (three.count(), one.count());
        for _ in 0..80 {
            round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
        }
        assert_eq!((three.count() - before.0, one.count() - before.1), (60, 20), "{workers} workers");
    }
}

/// T18
#[test]
fn least_connections_fills_up_the_backend_that_holds_fewer_sessions() {
    let (full, empty) = (Backend::start(Behaviour::Echo), Backend::start(Behaviour::Echo));
    let port = free_port();
    let only = |port: u16| Listener::tcp("least", port).with("loadBalancing: {policy: LeastConnections}");
    let hold = |sessions: usize| -> Vec<_> {
        let open = |_| {
            let mut stream = connect(port).expect("connect");
            round_trip(&mut stream, b"x").expect("echo");
            stream
        };
        (0..sessions).map(open).collect()
    };
    let (program, _) = run_with("", &[only(port).to(full.port)], &["--workers", "2"]);
    let first = hold(20);
    assert_eq!((full.count(), empty.count()), (20, 0));
    let both = only(port).to(full.port).to(empty.port);
    program.edit_and_wait(&forward("f", "", &[both]), "swapped", "f/least");
    let second = hold(20);
    assert_eq!((full.count(), empty.count()), (20, 20), "the new sessions go to the other backend");
    let third = hold(10);
    assert_eq!((full.count(), empty.count()), (25, 25), "and then to both in turn");
    drop((first, second, third));
}

#[test]
fn a_dead_backend_is_retried_elsewhere_ejected_and_used_again() {
    let (gone, alive) = (free_port(), Backend::start(Behaviour::Echo));
    let port = free_port();
    let listener =
        Listener::tcp("pair", port).to(gone).to(alive.port).with("outlier: {consecutiveFailures: 2, ejectSeconds: 1}");
    let (program, _) = run(&[listener]);
    for _ in 0..8 {
        round_trip(&mut connect(port).expect("connect"), b"x").expect("the other backend answers");
    }
    let ejected = program.wait("ejected", "pair");
    assert!(ejected["message"].as_str().is_some_and(|text| text.contains(&gone.to_string())), "{ejected}");
    let revived = Backend::start_on(gone, Behaviour::Echo);
    until("the revived backend is used", || {
        round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
        revived.count() > 0
    });
}

#[test]
fn without_any_backend_a_connection_is_reset_and_the_log_has_the_cause() {
    let port = free_port();
    let (program, _) =
        run_with("retry: {attempts: 2, initialBackoffMillis: 1}", &[Listener::tcp("none", port).to(free_port())], &[]);
    assert_reset(connect(port), b"x");
    let closed = program.wait("session_closed", "none");
    assert_eq!((closed["reason"].as_str(), closed["cause"].as_str()), (Some("NoBackend"), Some("connection refused")));
}

#[test]
fn a_name_is_resolved_and_all_its_addresses_are_endpoints() {
    // `localhost` is in every hosts file. An address that refuses connections is skipped without backoff.
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let listener =
        Listener::tcp("named", port).backend(&format!("address: {{host: localhost, port: {}}}", backend.port));
    let (program, _) = run_with("retry: {initialBackoffMillis: 60000, maxBackoffMillis: 60000}", &[listener], &[]);
    // A session that arrives before the first answer would wait a minute for its second attempt.
    let is_resolved = || {
        let mut stream = connect(port)?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        round_trip(&mut stream, b"x")
    };
    until("the name is resolved", || is_resolved().is_ok());
    for _ in 0..6 {
        round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
    }
    let unresolved: Vec<_> = program.events().into_iter().filter(|line| line["event"] == "unresolved").collect();
    assert!(unresolved.is_empty(), "{unresolved:?}");
}

#[test]
fn sessions_of_an_ejected_endpoint_are_closed_if_asked() {
    // Accepts one connection, holds it and refuses all others.
    let only = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = only.local_addr().expect("address").port();
    let alive = Backend::start(Behaviour::Echo);
    let port = free_port();
    let listener = Listener::tcp("sick", port)
        .to(address)
        .to(alive.port)
        .with("outlier: {consecutiveFailures: 1, ejectSeconds: 60}");
    let (program, _) = run_with("sessions: {onUnhealthy: Close}", &[listener], &[]);
    let mut first = connect(port).expect("connect");
    let (held, _) = only.accept().expect("accept");
    drop(only);
    for _ in 0..4 {
        round_trip(&mut connect(port).expect("connect"), b"x").expect("the other backend answers");
    }
    first.read(&mut [0]).expect_err("reset");
    let closed = || program.events().into_iter().any(|line| line["reason"] == "BackendUnhealthy");
    until("the reason is logged", closed);
    drop(held);
}
