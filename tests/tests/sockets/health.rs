//! Active checks, standby backends, and the effect of unhealthy backends on sessions.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use harness::{
    Backend, Behaviour, Listener, PATIENCE, Program, UdpEcho, connect, forward, free_port, http_get, metric, until,
};

/// A server that answers each byte with its name.
pub(super) fn named(ip: [u8; 4], port: u16, name: u8) -> Backend {
    let serve = move |mut stream: TcpStream| {
        let mut byte = [0];
        while stream.read_exact(&mut byte).and_then(|()| stream.write_all(&[name])).is_ok() {}
    };
    Backend::start_at(SocketAddr::from((ip, port)), Behaviour::Run(Arc::new(serve)))
}

/// A small HTTP server like that of Patroni: its status for `/primary` can be set, other paths return 404.
struct Rest {
    primary: Arc<AtomicU16>,
    _server: Backend,
}

impl Rest {
    fn start(ip: [u8; 4], port: u16, status: u16) -> Self {
        let primary = Arc::new(AtomicU16::new(status));
        let asked = primary.clone();
        let answer = move |path: &str| if path == "/primary" { asked.load(Relaxed) } else { 404 };
        let server = Backend::http(SocketAddr::from((ip, port)), answer);
        Self { primary, _server: server }
    }
}

/// Name of the server that answers a new session, if any.
fn answering(port: u16) -> Option<u8> {
    let mut stream = connect(port).ok()?;
    ask(&mut stream)
}

/// Name of the server of a session.
pub(super) fn ask(stream: &mut TcpStream) -> Option<u8> {
    let mut answer = [0];
    stream.write_all(b"?").ok()?;
    stream.read_exact(&mut answer).ok().map(|()| answer[0])
}

fn count(health: u16, series: &str) -> Option<f64> {
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    metric(&text, series)
}

/// Labels of listener `l` of forward `f`.
pub(super) const LABELS: &str = "kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"l\"";
pub(super) const ONE: [u8; 4] = [127, 0, 0, 1];
const TWO: [u8; 4] = [127, 0, 0, 2];

#[test]
fn sessions_go_to_the_primary_and_follow_it_when_it_moves() {
    let (db, rest, port, health) = (free_port(), free_port(), free_port(), free_port());
    let (_one, _two) = (named(ONE, db, 1), named(TWO, db, 2));
    let (rest_one, rest_two) = (Rest::start(ONE, rest, 200), Rest::start(TWO, rest, 503));
    let listener = Listener::tcp("l", port)
        .backend(&format!("address: {{host: 127.0.0.1, port: {db}}}"))
        .backend(&format!("address: {{host: 127.0.0.2, port: {db}}}"))
        .with(&format!(
            "healthCheck: {{http: {{port: {rest}, path: /primary}}, intervalSeconds: 1, unhealthyThreshold: 2, healthyThreshold: 1}}"
        ));
    let manifest = forward("f", "sessions: {onUnhealthy: Close}", std::slice::from_ref(&listener));
    let program = Program::run(&manifest, health, &[]);
    program.wait("unhealthy", "f/l");
    for _ in 0..20 {
        assert_eq!(answering(port), Some(1));
    }
    let unhealthy = format!("portlane_backend_endpoints_unhealthy{{{LABELS},backend=\"addr/127.0.0.2:{db}\"}}");
    assert_eq!(count(health, &unhealthy), Some(1.0));
    assert!(count(health, &format!("portlane_health_checks_total{{{LABELS},result=\"failed\"}}")) >= Some(1.0));
    program.wait("backends_unhealthy", "f/l");

    let mut live = connect(port).expect("connect");
    assert_eq!(ask(&mut live), Some(1));
    rest_two.primary.store(200, Relaxed);
    rest_one.primary.store(503, Relaxed);
    until("new sessions go to the new primary", || (0..8).all(|_| answering(port) == Some(2)));
    until("the old session is closed", || ask(&mut live).is_none());
    let closed = format!("portlane_connections_closed_total{{{LABELS},reason=\"BackendUnhealthy\"}}");
    until("the end is counted", || count(health, &closed) >= Some(1.0));

    rest_two.primary.store(500, Relaxed);
    let seen = program.events().len();
    until("no backend is healthy, and both are tried", || {
        let answers: Vec<_> = (0..8).map(|_| answering(port)).collect();
        answers.contains(&Some(1)) && answers.contains(&Some(2))
    });
    let event = program.wait_after(seen, "backends_unhealthy", "f/l");
    assert!(event["message"].as_str().is_some_and(|it| it.starts_with("no backend is healthy")), "{event}");
    rest_one.primary.store(200, Relaxed);
    until("one backend is healthy", || (0..8).all(|_| answering(port) == Some(1)));
}

#[test]
fn a_change_of_the_check_applies_in_place_and_without_one_everybody_is_healthy() {
    let (db, rest, port, health) = (free_port(), free_port(), free_port(), free_port());
    let (_one, _two) = (named(ONE, db, 1), named(TWO, db, 2));
    let (_rest_one, _rest_two) = (Rest::start(ONE, rest, 200), Rest::start(TWO, rest, 503));
    let manifest = |check: &str| {
        let listener = Listener::tcp("l", port)
            .backend(&format!("address: {{host: 127.0.0.1, port: {db}}}"))
            .backend(&format!("address: {{host: 127.0.0.2, port: {db}}}"))
            .with(check);
        forward("f", "", &[listener])
    };
    let http = |path: &str| format!("healthCheck: {{http: {{port: {rest}, path: {path}}}, intervalSeconds: 1}}");
    let program = Program::run(&manifest(&http("/primary")), health, &[]);
    program.wait("unhealthy", "f/l");
    let mut live = connect(port).expect("connect");
    assert_eq!(ask(&mut live), Some(1));
    program.edit_and_wait(&manifest(&http("/nothing")), "swapped", "f/l");
    until("both are tried", || (0..8).any(|_| answering(port) == Some(2)));
    program.edit_and_wait(&manifest("bind: Loopback"), "swapped", "f/l");
    until("no endpoint is unhealthy", || {
        let series = format!("portlane_backend_endpoints_unhealthy{{{LABELS},backend=\"addr/127.0.0.1:{db}\"}}");
        count(health, &series) == Some(0.0)
    });
    assert_eq!(ask(&mut live), Some(1), "without onUnhealthy: Close the session stays throughout");
}

#[test]
fn the_standby_is_used_only_while_the_first_is_down() {
    let (db, port) = (free_port(), free_port());
    let (first, _standby) = (named(ONE, db, 1), named(TWO, db, 2));
    let listener = Listener::tcp("l", port)
        .backend(&format!("address: {{host: 127.0.0.1, port: {db}}}"))
        .backend(&format!("address: {{host: 127.0.0.2, port: {db}}}, priority: 1"))
        .with("healthCheck: {tcp: {}, intervalSeconds: 1, unhealthyThreshold: 1, healthyThreshold: 1}");
    let program = Program::run(&forward("f", "retry: {attempts: 1}", &[listener]), free_port(), &[]);
    // On a stalled machine a late check may briefly bring in the standby.
    until("all go to the first", || (0..10).all(|_| answering(port) == Some(1)));
    drop(first);
    program.wait("unhealthy", "f/l");
    until("all go to the standby", || (0..10).all(|_| answering(port) == Some(2)));
    let _again = named(ONE, db, 1);
    until("the first is back", || (0..8).all(|_| answering(port) == Some(1)));
}

#[test]
fn without_checks_connects_that_fail_bring_the_standby_in() {
    let (db, port) = (free_port(), free_port());
    let _standby = named(TWO, db, 2);
    let listener = Listener::tcp("l", port)
        .backend(&format!("address: {{host: 127.0.0.1, port: {db}}}"))
        .backend(&format!("address: {{host: 127.0.0.2, port: {db}}}, priority: 1"))
        .with("outlier: {consecutiveFailures: 2, ejectSeconds: 3600}");
    let _program = Program::run(&forward("f", "", &[listener]), free_port(), &[]);
    assert_eq!(answering(port), Some(2), "the third attempt goes to the standby");
    assert_eq!(answering(port), Some(2));
}

#[test]
fn flows_follow_a_check_over_tcp() {
    let (syslog, rest, port) = (free_port(), free_port(), free_port());
    let (rest_one, rest_two) = (Rest::start(ONE, rest, 200), Rest::start(TWO, rest, 503));
    let _echo = UdpEcho::start_on(syslog);
    let other = UdpSocket::bind(SocketAddr::from((TWO, syslog))).expect("bind");
    other.set_read_timeout(Some(PATIENCE)).expect("option");
    let listener = Listener::udp("l", port)
        .backend(&format!("address: {{host: 127.0.0.1, port: {syslog}}}"))
        .backend(&format!("address: {{host: 127.0.0.2, port: {syslog}}}"))
        .with(&format!(
            "healthCheck: {{http: {{port: {rest}, path: /primary}}, intervalSeconds: 1, unhealthyThreshold: 1, healthyThreshold: 1}}"
        ));
    let program = Program::run(&forward("f", "", &[listener]), free_port(), &[]);
    program.wait("unhealthy", "f/l");
    let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
    client.connect(("127.0.0.1", port)).expect("connect");
    client.set_read_timeout(Some(PATIENCE)).expect("option");
    client.send(b"one").expect("send");
    assert_eq!(client.recv(&mut [0; 8]).expect("the echo"), 3);
    rest_two.primary.store(200, Relaxed);
    rest_one.primary.store(503, Relaxed);
    // The client sends from one port for ever; its flow moves to the other backend at its next datagram.
    other.set_read_timeout(Some(Duration::from_millis(50))).expect("option");
    until("the flow moves", || {
        client.send(b"two").expect("send");
        other.recv(&mut [0; 8]).is_ok()
    });
}

#[test]
fn checks_announce_the_proxys_own_connection_where_headers_are_sent() {
    let (sent, received) = mpsc::channel();
    let record = move |mut stream: TcpStream| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let _ = sent.send(all);
    };
    let backend = Backend::start(Behaviour::Run(Arc::new(record)));
    let listener = Listener::tcp("l", free_port())
        .to(backend.port)
        .with("healthCheck: {tcp: {}, intervalSeconds: 1}")
        .with("proxyProtocol: {send: V1}");
    let _program = Program::run(&forward("f", "", &[listener]), free_port(), &[]);
    assert_eq!(received.recv_timeout(PATIENCE).expect("a check"), b"PROXY UNKNOWN\r\n");
}

/// A server that greets, and gives one answer to whatever comes.
fn scripted(ip: [u8; 4], port: u16, greeting: &'static [u8], answer: &'static [u8]) -> Backend {
    let serve = move |mut stream: TcpStream| {
        let mut asked = [0; 512];
        let _ = stream.write_all(greeting);
        if stream.read(&mut asked).is_ok_and(|count| count > 0) && stream.write_all(answer).is_ok() {
            // Until the client leaves.
            let _ = stream.read(&mut asked);
        }
    };
    Backend::start_at(SocketAddr::from((ip, port)), Behaviour::Run(Arc::new(serve)))
}

/// The greeting of a `MariaDB` without a method of authentication.
const GREETING: &[u8] =
    b"\x35\0\0\0\x0a10.11.6\0\x08\0\0\0aaaaaaaa\0\xfe\xf7\x08\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0bbbbbbbbbbbb\0";
const DENIED: &[u8] = b"\x16\0\0\x02\xff\x15\x04#28000Access denied";

#[test]
fn databases_are_checked_in_their_own_words() {
    let (redis, mysql, postgres) = (free_port(), free_port(), free_port());
    let _servers = [
        scripted(ONE, redis, b"", b"+PONG\r\n"),
        scripted(TWO, redis, b"", b"-LOADING\r\n"),
        scripted(ONE, mysql, GREETING, DENIED),
        scripted(TWO, mysql, b"\x17\0\0\0\xff\x10\x04Too many connections", b""),
        scripted(ONE, postgres, b"", b"N"),
        scripted(TWO, postgres, b"", b"Ecould not fork new process\0"),
    ];
    let listener = |name: &str, to: u16, check: &str| {
        Listener::tcp(name, free_port())
            .backend(&format!("address: {{host: 127.0.0.1, port: {to}}}"))
            .backend(&format!("address: {{host: 127.0.0.2, port: {to}}}"))
            .with(&format!("healthCheck: {{{check}, intervalSeconds: 1, timeoutSeconds: 1}}"))
    };
    let listeners = [
        listener("redis", redis, r"tcp: {send: 'PING\r\n', expect: '+PONG'}"),
        listener("mysql", mysql, "mysql: {}"),
        listener("pg", postgres, "postgres: {}"),
    ];
    let health = free_port();
    let program = Program::run(&forward("f", "", &listeners), health, &[]);
    for (name, port, why) in [
        ("redis", redis, r"did not send the expected answer within 1 s, but '-LOADING\r\n'"),
        ("mysql", mysql, "MySQL error 1040: 'Too many connections'"),
        ("pg", postgres, "PostgreSQL says 'could not fork new process'"),
    ] {
        let event = program.wait("unhealthy", &format!("f/{name}"));
        let message = event["message"].as_str().expect("a message");
        assert!(message.contains(&format!("127.0.0.2:{port}")) && message.ends_with(why), "{message}");
        let labels = LABELS.replace("listener=\"l\"", &format!("listener=\"{name}\""));
        let passed = format!("portlane_health_checks_total{{{labels},result=\"passed\"}}");
        until("the other server passes", || count(health, &passed) >= Some(1.0));
        let unhealthy = format!("portlane_backend_endpoints_unhealthy{{{labels},backend=\"addr/127.0.0.1:{port}\"}}");
        assert_eq!(count(health, &unhealthy), Some(0.0), "{name}");
    }
}

#[test]
fn a_backend_is_checked_at_its_own_port() {
    let (db, port) = (free_port(), free_port());
    let (dead, alive) = (free_port(), free_port());
    let _servers = [named(ONE, db, 1), named(TWO, db, 2), named(TWO, alive, 3)];
    let listener = Listener::tcp("l", port)
        .backend(&format!("address: {{host: 127.0.0.1, port: {db}}}"))
        .backend(&format!("address: {{host: 127.0.0.2, port: {db}}}, healthCheckPort: {alive}"))
        .with(&format!("healthCheck: {{tcp: {{port: {dead}}}, intervalSeconds: 1}}"));
    let program = Program::run(&forward("f", "", &[listener]), free_port(), &[]);
    program.wait("unhealthy", "f/l");
    until("all go to the server whose port answers", || (0..8).all(|_| answering(port) == Some(2)));
}
