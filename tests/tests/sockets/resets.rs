//! Resets of clients and servers: what was received is delivered, the reset is passed on, the session is freed.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use harness::{Backend, Behaviour, Listener, connect, free_port, until};
use socket2::SockRef;

use crate::run;

#[test]
fn a_reset_after_one_mib_arrives_as_one_mib_and_then_a_reset() {
    const SENT: usize = 1 << 20;
    let backend = Backend::start(Behaviour::SendAndReset(SENT));
    let port = free_port();
    let (program, _) = run(&[Listener::tcp("cut", port).to(backend.port)]);
    for round in 0..5 {
        let mut client = connect(port).expect("connect");
        let mut received = 0;
        let mut buffer = vec![0; 10_000 + round];
        let error = loop {
            match client.read(&mut buffer) {
                Ok(0) => panic!("a clean end after {received} bytes: a truncated answer looks complete"),
                Ok(read) => received += read,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        // The backend's kernel drops unsent bytes at the reset, so fewer may arrive, but never with a clean end.
        assert!(received <= SENT);
    }
    assert_eq!(program.wait("session_closed", "cut")["reason"], "BackendReset");
}

#[test]
fn every_byte_that_was_received_before_a_reset_is_delivered() {
    const SENT: usize = 1 << 20;
    // Resets only once the proxy has received everything, so every byte must be delivered.
    let backend = Backend::start(Behaviour::Run(Arc::new(|mut stream: TcpStream| {
        stream.write_all(&vec![7; SENT]).expect("write");
        let unsent = || rustix::io::ioctl_fionread(&stream).is_err() || outstanding(&stream) > 0;
        until("the proxy has received everything", || !unsent());
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("option");
    })));
    let port = free_port();
    let (_program, _) = run(&[Listener::tcp("cut", port).to(backend.port)]);
    for _ in 0..10 {
        let mut client = connect(port).expect("connect");
        let mut received = 0;
        let mut buffer = vec![0; 3000];
        let error = loop {
            match client.read(&mut buffer) {
                Ok(0) => panic!("a clean end after {received} bytes"),
                Ok(read) => received += read,
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), received), (ErrorKind::ConnectionReset, SENT));
    }
}

/// Bytes not acknowledged by the peer, as shown by `ss`.
fn outstanding(stream: &TcpStream) -> u64 {
    let local = stream.local_addr().expect("address");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let wanted = format!(":{:04X}", local.port());
    let remote = format!(":{:04X}", stream.peer_addr().expect("address").port());
    let queues = table.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (own, peer) = (words.next()?, words.next()?);
        let found = own.ends_with(&wanted) && peer.ends_with(&remote);
        found.then(|| words.nth(1).map(str::to_owned))?
    });
    queues.and_then(|queues| u64::from_str_radix(queues.split(':').next()?, 16).ok()).unwrap_or(0)
}

#[test]
fn a_client_that_resets_frees_the_session_although_the_server_does_not_read() {
    let backend = Backend::start(Behaviour::Hold);
    let port = free_port();
    let (program, _) = run(&[Listener::tcp("stuck", port).to(backend.port)]);
    let mut client = connect(port).expect("connect");
    client.set_write_timeout(Some(Duration::from_millis(500))).expect("option");
    let chunk = vec![1; 1 << 20];
    while client.write(&chunk).is_ok() {}
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("option");
    let reset = Instant::now();
    drop(client);
    assert_eq!(program.wait("session_closed", "stuck")["reason"], "ClientReset");
    assert!(reset.elapsed() < Duration::from_secs(10), "held for {:?}", reset.elapsed());
}

#[test]
fn a_server_that_resets_frees_the_session_although_the_client_does_not_read() {
    let backend = Backend::start(Behaviour::Run(Arc::new(|mut stream: TcpStream| {
        stream.set_write_timeout(Some(Duration::from_millis(500))).expect("option");
        let chunk = vec![1; 1 << 20];
        while stream.write(&chunk).is_ok() {}
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("option");
    })));
    let port = free_port();
    let (program, _) = run(&[Listener::tcp("stuck", port).to(backend.port)]);
    let client = connect(port).expect("connect");
    assert_eq!(program.wait("session_closed", "stuck")["reason"], "BackendReset");
    drop(client);
}
