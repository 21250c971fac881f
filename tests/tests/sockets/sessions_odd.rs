//! Odd sessions: clients that leave early or send urgent data, backends that do not answer, ports that come and go.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use harness::{
    Backend, Behaviour, Listener, Program, client_hello, connect, forward, free_port, http_get, round_trip, until,
};
use rustix::process::Signal;
use socket2::{Domain, SockRef, Socket, Type};

use crate::{run, run_with};

/// A server whose accept queue is full: a new connection is not answered.
pub(super) struct Stuck {
    pub(super) port: u16,
    listener: TcpListener,
    queued: Vec<TcpStream>,
}

impl Stuck {
    pub(super) fn start(address: &str) -> Self {
        let address: SocketAddr = address.parse().expect("an address");
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
        socket.bind(&address.into()).expect("bind");
        socket.listen(0).expect("listen");
        let listener = TcpListener::from(socket);
        let own = listener.local_addr().expect("address");
        let short = Duration::from_millis(300);
        let queued = (0..8).map_while(|_| TcpStream::connect_timeout(&own, short).ok()).collect();
        Self { port: own.port(), listener, queued }
    }

    /// Answers from now on: echoes the first request.
    pub(super) fn recover(self) -> thread::JoinHandle<()> {
        drop(self.queued);
        thread::spawn(move || {
            for stream in self.listener.incoming() {
                let mut stream = stream.expect("accept");
                let mut request = Vec::new();
                if stream.read_to_end(&mut request).is_ok() && !request.is_empty() {
                    return stream.write_all(&request).expect("answer");
                }
            }
        })
    }
}

#[test]
fn a_client_that_closes_while_the_proxy_connects_frees_its_session() {
    let stuck = Stuck::start("127.0.0.1:0");
    let port = free_port();
    let spec = "timeouts: {connectSeconds: 20}\nretry: {attempts: 3}";
    let (program, _) = run_with(spec, &[Listener::tcp("left", port).to(stuck.port)], &[]);
    let client = connect(port).expect("connect");
    let left = Instant::now();
    drop(client);
    assert_eq!(program.wait("session_closed", "left")["reason"], "ClientLeft");
    assert!(left.elapsed() < Duration::from_secs(10), "held for {:?}", left.elapsed());
}

#[test]
fn a_client_of_a_tls_listener_that_closes_while_it_waits_frees_its_session() {
    let stuck = Stuck::start("127.0.0.1:0");
    let (port, queue) = (free_port(), free_port());
    let named = |name: &str, port: u16| Listener::tls(name, port).to(stuck.port).with("tls: {hostnames: [a.example]}");
    let limits = "limits: {maxConnections: 1, maxQueued: 2, queueSeconds: 60}";
    let spec = format!("timeouts: {{connectSeconds: 60}}\nretry: {{attempts: 1}}\n{limits}");
    let (program, health) = run_with(&spec, &[named("gone", port), named("l", queue)], &[]);
    let greeted = |port: u16| {
        let mut client = connect(port).expect("connect");
        client.write_all(&client_hello(b"a.example")).expect("hello");
        client
    };
    drop(greeted(port));
    assert_eq!(program.wait("session_closed", "gone")["reason"], "ClientLeft");
    let _holder = greeted(queue);
    until("the first session is admitted", || sum(health, "portlane_connections_active") == 1);
    let second = greeted(queue);
    until("the second waits", || sum(health, "portlane_connections_active") == 2);
    drop(second);
    assert_eq!(program.wait("session_closed", "l")["reason"], "ClientLeft");
}

#[test]
fn a_client_that_has_sent_its_request_and_finished_waits_for_a_slow_connect() {
    let stuck = Stuck::start("127.0.0.1:0");
    let port = free_port();
    let spec = "timeouts: {connectSeconds: 20}";
    let (_program, _) = run_with(spec, &[Listener::tcp("patient", port).to(stuck.port)], &[]);
    let mut client = connect(port).expect("connect");
    client.write_all(b"request").expect("write");
    client.shutdown(Shutdown::Write).expect("finish");
    // Longer than it takes to notice a client that has left.
    thread::park_timeout(Duration::from_millis(1500));
    let server = stuck.recover();
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("answer");
    assert_eq!(answer, "request");
    server.join().expect("the server should end");
}

#[test]
fn a_client_that_finishes_without_a_byte_gets_its_greeting() {
    let backend = Backend::start(Behaviour::Run(Arc::new(|mut stream: TcpStream| {
        let _ = stream.write_all(b"hello");
    })));
    let port = free_port();
    let (_program, _) = run(&[Listener::tcp("greeted", port).to(backend.port)]);
    for _ in 0..20 {
        let mut client = connect(port).expect("connect");
        client.shutdown(Shutdown::Write).expect("finish");
        let mut greeting = String::new();
        client.read_to_string(&mut greeting).expect("greeting");
        assert_eq!(greeting, "hello");
    }
}

#[test]
fn a_name_with_a_family_that_does_not_answer_is_connected_to_by_the_other() {
    let port_of_server = free_port();
    if let Err(error) = TcpListener::bind("[::1]:0") {
        return eprintln!("not tested: no IPv6 on this machine: {error}");
    }
    let _stuck = Stuck::start(&format!("[::1]:{port_of_server}"));
    let _backend = Backend::start_on(port_of_server, Behaviour::Echo);
    let port = free_port();
    let listener = Listener::tcp("both", port)
        .backend(&format!("address: {{host: both.test, port: {port_of_server}}}"))
        .with("outlier: {consecutiveFailures: 2, ejectSeconds: 3600}");
    let manifest = forward("f", "timeouts: {connectSeconds: 30}\nretry: {attempts: 1}", &[listener]);
    let hosts = "127.0.0.1 both.test\n::1 both.test\n";
    let Some(program) = Program::run_with_hosts(&manifest, free_port(), hosts) else {
        return eprintln!("not tested: no mount namespaces, hence no name with both addresses");
    };
    until("the name is resolved", || connect(port).and_then(|mut it| round_trip(&mut it, b"x")).is_ok());
    let began = Instant::now();
    for _ in 0..6 {
        round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
    }
    assert!(began.elapsed() < Duration::from_secs(20), "waited for a connect: {:?}", began.elapsed());
    let ejected = program.wait("ejected", "f/both");
    assert!(ejected["message"].as_str().is_some_and(|text| text.contains("[::1]")), "{ejected:?}");
}

// D26
#[test]
fn what_follows_urgent_data_is_forwarded_at_once() {
    const ROUNDS: usize = 8;
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let (program, _) = run(&[Listener::tcp("urgent", port).to(backend.port)]);
    let mut client = connect(port).expect("connect");
    round_trip(&mut client, b"x").expect("echo");
    let began = Instant::now();
    for _ in 0..ROUNDS {
        // Stopped, so that the proxy finds everything in one read.
        program.signal(Signal::STOP);
        client.write_all(b"before").expect("write");
        SockRef::from(&client).send_out_of_band(b"!").expect("urgent");
        client.write_all(b"after").expect("write");
        program.signal(Signal::CONT);
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"after") {
            client.read_exact(&mut byte).expect("data after urgent data");
            answer.push(byte[0]);
        }
    }
    // The sweep, which looks once a second, would find the rest of each round.
    assert!(began.elapsed() < Duration::from_secs(4), "held back: {:?}", began.elapsed());
}

/// A session, which fails while the port is closed.
fn knock(port: u16) {
    let _ = connect(port).and_then(|mut stream| round_trip(&mut stream, b"x"));
}

/// Datagrams of one client.
fn ask(port: u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("option");
    for _ in 0..20 {
        let _ = socket.send_to(b"x", ("127.0.0.1", port));
        let _ = socket.recv(&mut [0]);
    }
}

// D20
#[test]
fn a_port_that_is_removed_and_added_again_is_bound_at_once_under_load() {
    const ROUNDS: usize = 20;
    let backend = Backend::start(Behaviour::Echo);
    let (stays, tcp, udp) = (free_port(), free_port(), free_port());
    let stay = Listener::tcp("stay", stays).to(backend.port);
    let all =
        [stay.clone(), Listener::tcp("back", tcp).to(backend.port), Listener::udp("datagrams", udp).to(backend.port)];
    let quiet = "accessLog: {mode: Disabled}";
    let (with, without) = (forward("f", quiet, &all), forward("f", quiet, &[stay]));
    let program = Program::run(&with, free_port(), &[]);
    let stop: Arc<AtomicBool> = Arc::default();
    let during = |knock: fn(u16), port: u16| {
        let stop = stop.clone();
        thread::spawn(move || {
            while !stop.load(Relaxed) {
                knock(port);
            }
        })
    };
    let clients = [during(knock, tcp), during(knock, stays), during(ask, udp)];
    for _ in 0..ROUNDS {
        program.edit_and_wait(&without, "removed", "f/back");
        program.edit_and_wait(&with, "bound", "f/back");
    }
    stop.store(true, Relaxed);
    for client in clients {
        client.join().expect("a client should end");
    }
    let failed: Vec<_> = program.events().into_iter().filter(|line| line["event"] == "failed").collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The sum of a metric over its series that belong to the listener `l`.
fn sum(health: u16, name: &str) -> u64 {
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    let of_listener = |line: &&str| line.starts_with(&format!("{name}{{")) && line.contains("listener=\"l\"");
    text.lines().filter(of_listener).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn a_listener_that_moves_keeps_its_counters_and_its_ejections() {
    let (gone, alive) = (free_port(), Backend::start(Behaviour::Echo));
    let (first, second, health) = (free_port(), free_port(), free_port());
    let manifest = |port: u16| {
        let outlier = "outlier: {consecutiveFailures: 1, ejectSeconds: 3600}";
        forward("f", "", &[Listener::tcp("l", port).to(gone).to(alive.port).with(outlier)])
    };
    let program = Program::run(&manifest(first), health, &[]);
    for _ in 0..4 {
        round_trip(&mut connect(first).expect("connect"), b"x").expect("echo");
    }
    program.wait("ejected", "f/l");
    let counters = [
        "portlane_connections_opened_total",
        "portlane_bytes_total",
        "portlane_endpoint_ejections_total",
        "portlane_backend_connections_total",
        "portlane_backend_connect_failures_total",
        "portlane_backend_endpoints_unhealthy",
    ];
    until("the sessions have ended", || sum(health, "portlane_connections_active") == 0);
    let before = counters.map(|name| sum(health, name));
    assert!(before.iter().all(|count| *count >= 1), "{before:?}");
    program.edit_and_wait(&manifest(second), "swapped", "f/l");
    assert_eq!(counters.map(|name| sum(health, name)), before);
    for _ in 0..4 {
        round_trip(&mut connect(second).expect("connect"), b"x").expect("echo");
    }
    assert_eq!(sum(health, "portlane_backend_connect_failures_total"), before[4], "the ejected endpoint is left alone");
}
