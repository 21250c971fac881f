//! `portlane run` as a process with real sockets: bytes, half-closes and resets.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use harness::{
    Backend, Behaviour, Listener, PATIENCE, Program, assert_reset, connect, forward, free_port, http_get, metric,
    round_trip, until,
};
use sha2::{Digest, Sha256};
use socket2::SockRef;

fn run(listeners: &[Listener]) -> (Program, u16) {
    run_with("", listeners, &[])
}

fn run_with(spec: &str, listeners: &[Listener], arguments: &[&str]) -> (Program, u16) {
    let health = free_port();
    (Program::run(&forward("f", spec, listeners), health, arguments), health)
}

/// Chunks that differ along the stream, so that lost or repeated parts are detected.
fn pattern(total: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut chunk: Vec<u8> = (0..CHUNK).map(|at| u8::try_from(at * 131 % 251).unwrap_or(0)).collect();
    (0..total / CHUNK).map(move |number| {
        chunk[..8].copy_from_slice(&(number as u64).to_le_bytes());
        chunk.clone()
    })
}

const CHUNK: usize = 256 * 1024;

#[test]
fn one_gib_passes_both_ways_at_once_unchanged() {
    const TOTAL: usize = 1 << 30;
    let (sent, received) = mpsc::channel();
    let server = Behaviour::Run(Arc::new(move |stream: TcpStream| {
        let (writer, hash) = (stream.try_clone().expect("clone"), sent.clone());
        let writing = thread::spawn(move || send(writer, TOTAL));
        hash.send((digest(stream), writing.join().expect("writer"))).expect("the test should be receiving");
    }));
    let backend = Backend::start(server);
    let port = free_port();
    let (_program, health) = run(&[Listener::tcp("bulk", port).to(backend.port)]);
    let client = connect(port).expect("connect");
    let writer = client.try_clone().expect("clone");
    let writing = thread::spawn(move || send(writer, TOTAL));
    let down = digest(client);
    let up = writing.join().expect("writer");
    let (server_got, server_sent) = received.recv_timeout(PATIENCE).expect("server");
    assert_eq!(up, server_got, "client to server");
    assert_eq!(server_sent, down, "server to client");
    until("every byte is counted", || {
        let (_, text) = http_get(health, "/metrics").expect("metrics");
        let bytes = |direction| {
            metric(
                &text,
                &format!(
                    "portlane_bytes_total{{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"bulk\",direction=\"{direction}\"}}"
                ),
            )
        };
        #[allow(clippy::cast_precision_loss, reason = "a power of two")]
        let total = Some(TOTAL as f64);
        bytes("up") == total && bytes("down") == total
    });
}

fn send(mut stream: TcpStream, total: usize) -> Vec<u8> {
    let mut hash = Sha256::new();
    for chunk in pattern(total) {
        stream.write_all(&chunk).expect("write");
        hash.update(&chunk);
    }
    stream.shutdown(Shutdown::Write).expect("finish");
    hash.finalize().to_vec()
}

fn digest(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("option");
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer).expect("read") {
            0 => return hash.finalize().to_vec(),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[test]
fn a_half_closed_session_goes_on_in_the_other_direction() {
    // Answers only after the client has finished, as with `nc -N` and some old protocols.
    let backend = Backend::start(Behaviour::Run(Arc::new(|mut stream: TcpStream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).expect("request");
        stream.write_all(format!("{} bytes", request.len()).as_bytes()).expect("answer");
    })));
    let port = free_port();
    let (program, _) = run(&[Listener::tcp("half", port).to(backend.port)]);
    let mut client = connect(port).expect("connect");
    client.write_all(&[1; 100_000]).expect("write");
    client.shutdown(Shutdown::Write).expect("finish");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("answer");
    assert_eq!(answer, "100000 bytes");
    let closed = program.wait("session_closed", "half");
    assert_eq!((closed["reason"].as_str(), closed["bytesUp"].as_u64()), (Some("Finished"), Some(100_000)));
    assert_eq!(closed["bytesDown"].as_u64(), Some(12));
}

#[test]
fn a_server_that_finishes_first_still_gets_the_rest_of_the_client() {
    let (sent, received) = mpsc::channel();
    let backend = Backend::start(Behaviour::Run(Arc::new(move |mut stream: TcpStream| {
        stream.write_all(b"bye").expect("write");
        stream.shutdown(Shutdown::Write).expect("finish");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("rest");
        sent.send(rest.len()).expect("the test should be receiving");
    })));
    let port = free_port();
    let (_program, _) = run(&[Listener::tcp("half", port).to(backend.port)]);
    let mut client = connect(port).expect("connect");
    let mut bye = String::new();
    client.read_to_string(&mut bye).expect("bye");
    client.write_all(&[1; 500_000]).expect("write");
    drop(client);
    assert_eq!(received.recv_timeout(PATIENCE).expect("server"), 500_000);
}

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

#[test]
fn what_follows_urgent_data_is_not_held_back() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let (_program, _) = run(&[Listener::tcp("urgent", port).to(backend.port)]);
    let mut client = connect(port).expect("connect");
    assert_eq!(round_trip(&mut client, b"before").expect("echo"), b"before");
    SockRef::from(&client).send_out_of_band(b"!").expect("urgent");
    client.write_all(b"after").expect("write");
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"after") {
        client.read_exact(&mut byte).expect("data after urgent data should arrive");
        answer.push(byte[0]);
    }
}

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

#[test]
fn a_dead_backend_is_tried_elsewhere_put_aside_and_taken_back() {
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
fn without_any_backend_a_connection_is_reset_and_says_why() {
    let port = free_port();
    let (program, _) =
        run_with("retry: {attempts: 2, initialBackoffMillis: 1}", &[Listener::tcp("none", port).to(free_port())], &[]);
    assert_reset(connect(port), b"x");
    let closed = program.wait("session_closed", "none");
    assert_eq!((closed["reason"].as_str(), closed["cause"].as_str()), (Some("NoBackend"), Some("connection refused")));
}

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
fn urgent_data_in_a_stream_loses_nothing() {
    const HALF: usize = 16 << 20;
    let (sent, received) = mpsc::channel();
    let backend = Backend::start(Behaviour::Run(Arc::new(move |mut stream: TcpStream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("to the end");
        sent.send(all.len()).expect("the test should be receiving");
    })));
    let port = free_port();
    let (_program, _) = run(&[Listener::tcp("urgent", port).to(backend.port)]);
    let mut client = connect(port).expect("connect");
    client.write_all(&vec![1; HALF]).expect("write");
    SockRef::from(&client).send_out_of_band(b"!").expect("urgent");
    client.write_all(&vec![2; 100_000]).expect("write");
    client.shutdown(Shutdown::Write).expect("finish");
    assert_eq!(received.recv_timeout(PATIENCE).expect("server"), HALF + 1 + 100_000);
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
fn sessions_of_an_endpoint_that_is_put_aside_are_closed_if_asked() {
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

#[test]
fn the_access_log_tells_of_open_living_and_closed_sessions() {
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
