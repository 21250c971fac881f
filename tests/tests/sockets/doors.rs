//! Clients that say nothing, clients that come in crowds, and web pages: none of them keeps others out of the proxy.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use harness::{
    Backend, Behaviour, Listener, Program, connect, forward, free_port, http_get, metric, round_trip, until,
};

fn count(health: u16, series: &str) -> Option<f64> {
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    metric(&text, series)
}

/// The response to a request that is written as it stands.
fn ask(port: u16, request: &str) -> String {
    let mut stream = connect(port).expect("connect");
    stream.write_all(request.as_bytes()).expect("request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("response");
    answer
}

// D2
#[test]
fn silent_clients_of_the_health_address_keep_no_probe_out() {
    let health = free_port();
    let backend = Backend::start(Behaviour::Echo);
    let manifest = forward("f", "", &[Listener::tcp("l", free_port()).to(backend.port)]);
    let _program = Program::run(&manifest, health, &[]);
    let silent: Vec<TcpStream> = (0..200).map(|_| connect(health).expect("accepted by the kernel")).collect();
    for _ in 0..10 {
        assert_eq!(http_get(health, "/livez").expect("livez").0, 200);
    }
    let evicted = "portlane_http_connections_closed_total{door=\"health\",reason=\"evicted\"}";
    assert!(count(health, evicted) >= Some(1.0), "the silent clients leave for the probe");
    drop(silent);
}

// D2
#[test]
fn a_head_without_an_end_is_refused_before_it_takes_memory() {
    let (health, admin) = (free_port(), free_port());
    let manifest = forward("f", "", &[Listener::tcp("l", free_port()).to(9)]);
    let _program = Program::run(&manifest, health, &["--admin-address", &format!("127.0.0.1:{admin}")]);
    let head = "GET /livez HTTP/1.1\r\nX: ";
    for port in [health, admin] {
        let answer = ask(port, &format!("{head}{}", "x".repeat((16 << 10) - head.len())));
        assert!(answer.starts_with("HTTP/1.1 431"), "at once, and not when its time is up: {answer}");
    }
}

#[test]
fn head_is_answered_as_get_without_a_body() {
    let health = free_port();
    let manifest = forward("f", "", &[Listener::tcp("l", free_port()).to(9)]);
    let _program = Program::run(&manifest, health, &[]);
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = ask(health, &format!("HEAD {path} HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n"));
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP response");
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        assert_eq!(body, "", "{path}");
    }
}

// D23
#[test]
fn the_admin_address_answers_nobody_who_takes_it_for_another_host() {
    let (health, admin) = (free_port(), free_port());
    let manifest = forward("f", "", &[Listener::tcp("l", free_port()).to(9)]);
    let address = format!("127.0.0.1:{admin}");
    let mut program = Program::run(&manifest, health, &["--admin-address", &address]);
    for request in ["GET /config", "GET /conns", "GET /listeners", "POST /drain?seconds=0", "GET /nothing"] {
        for host in ["Host: evil.example", "Host: evil.example\r\nHost: localhost", "X: no host"] {
            let answer = ask(admin, &format!("{request} HTTP/1.1\r\n{host}\r\nConnection: close\r\n\r\n"));
            let refused = ["HTTP/1.1 403", "HTTP/1.1 400"].iter().any(|status| answer.starts_with(status));
            assert!(refused, "{request} with {host}: {answer}");
        }
        let (method, path) = request.split_once(' ').expect("two words");
        let absolute = format!("{method} http://evil.example{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(ask(admin, &absolute).starts_with("HTTP/1.1 403"), "{absolute}");
    }
    assert!(program.is_running());
    for host in ["localhost".to_owned(), address] {
        let answer = ask(admin, &format!("GET /config HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
    }
}

#[test]
fn sessions_beyond_the_limit_of_the_process_wait_and_are_served_in_turn() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, health) = (free_port(), free_port());
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    let program = Program::run(&manifest, health, &["--max-sessions", "2"]);
    let mut sessions: Vec<TcpStream> = (0..2).map(|_| connect(port).expect("connect")).collect();
    for session in &mut sessions {
        round_trip(session, b"x").expect("served");
    }
    let mut third = connect(port).expect("accepted by the kernel");
    until("accepting pauses", || {
        count(health, "portlane_accept_paused_total{reason=\"Sessions\"}").is_some_and(|paused| paused > 0.0)
    });
    assert_eq!(count(health, "portlane_sessions_limit"), Some(2.0));
    third.write_all(b"third").expect("accepted by the kernel");
    third.set_read_timeout(Some(Duration::from_millis(200))).expect("option");
    third.read(&mut [0; 5]).expect_err("the third session waits");
    assert_eq!(count(health, "portlane_accept_waiting{reason=\"Sessions\"}"), Some(1.0));
    sessions.pop();
    third.set_read_timeout(Some(harness::PATIENCE)).expect("option");
    let mut answer = [0; 5];
    third.read_exact(&mut answer).expect("served in turn");
    assert_eq!(&answer, b"third");
    drop((sessions, third));
    until("nothing waits", || count(health, "portlane_accept_waiting{reason=\"Sessions\"}") == Some(0.0));
    program.wait("sessions", "process");
}

#[test]
fn flows_beyond_the_limit_of_the_process_replace_idle_ones_or_are_dropped_and_counted() {
    let server = harness::UdpEcho::start();
    let (port, health) = (free_port(), free_port());
    let manifest = forward("f", "", &[Listener::udp("u", port).to(server.port)]);
    let _program = Program::run(&manifest, health, &["--max-sessions", "1"]);
    let client = || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.connect(("127.0.0.1", port)).expect("connect");
        socket.set_read_timeout(Some(harness::PATIENCE)).expect("option");
        socket
    };
    // A flow counts as half a session.
    let flows = [client(), client()];
    for flow in &flows {
        flow.send(b"x").expect("send");
        flow.recv(&mut [0; 8]).expect("the echo");
    }
    let dropped = "portlane_datagrams_dropped_total{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"u\",reason=\"SessionLimit\"}";
    until("the drop is counted", || {
        // Flows in use leave for nobody.
        for flow in &flows {
            flow.send(b"x").expect("send");
        }
        client().send(b"x").expect("send");
        count(health, dropped) >= Some(1.0)
    });
    // Once they are idle, the one that was used least recently does.
    let next = client();
    next.set_read_timeout(Some(Duration::from_millis(100))).expect("option");
    until("an idle flow leaves for a new one", || {
        next.send(b"x").expect("send");
        next.recv(&mut [0; 8]).is_ok()
    });
    let evicted = "portlane_connections_closed_total{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"u\",reason=\"Evicted\"}";
    assert!(count(health, evicted) >= Some(1.0));
}

#[test]
fn clients_that_send_no_header_leave_for_one_that_does() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, health) = (free_port(), free_port());
    let protocol = "proxyProtocol: {accept: Required, trustedCIDRs: [127.0.0.0/8]}";
    let listener = Listener::tcp("l", port).to(backend.port).with(protocol);
    let manifest = forward("f", "timeouts: {handshakeSeconds: 60}", &[listener]);
    // A quarter of 16 sessions may be in a handshake, and half of those from trusted peers.
    let _program = Program::run(&manifest, health, &["--max-sessions", "16"]);
    let silent: Vec<TcpStream> = (0..6).map(|_| connect(port).expect("connect")).collect();
    let closed = "portlane_connections_closed_total{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"l\",reason=\"HandshakeLimit\"}";
    until("all but the last two have left", || count(health, closed) == Some(4.0));
    let mut polite = connect(port).expect("connect");
    polite.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.9 1111 443\r\n").expect("write");
    round_trip(&mut polite, b"x").expect("served");
    until("another one has left", || count(health, closed) == Some(5.0));
    drop(silent);
}

// D7
#[test]
fn a_source_that_has_taken_three_quarters_of_the_sessions_leaves_the_rest_to_others() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, health) = (free_port(), free_port());
    let protocol = "proxyProtocol: {accept: Required, trustedCIDRs: [127.0.0.0/8]}";
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port).with(protocol)]);
    // Another worker could hold room for a connection that it does not find.
    let _program = Program::run(&manifest, health, &["--max-sessions", "16", "--workers", "1"]);
    let come = |client: &str| {
        let mut stream = connect(port)?;
        stream.write_all(format!("PROXY TCP4 {client} 192.0.2.9 1111 443\r\n").as_bytes())?;
        round_trip(&mut stream, b"x").map(|_| stream)
    };
    let held: Vec<TcpStream> = (0..12).map(|_| come("192.0.2.1").expect("served")).collect();
    come("192.0.2.1").expect_err("the last quarter is for other sources");
    let closed = "portlane_connections_closed_total{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"l\",reason=\"SourceShare\"}";
    until("the refusal is counted", || count(health, closed) == Some(1.0));
    let second: Vec<TcpStream> = (0..2).map(|_| come("192.0.2.2").expect("served")).collect();
    come("192.0.2.2").expect_err("two sources leave room as well");
    until("that is counted, too", || count(health, closed) == Some(2.0));
    let others = ["192.0.2.3", "192.0.2.4"].map(|client| come(client).expect("served"));
    until("each newcomer has a place", || count(health, "portlane_sessions") == Some(16.0));
    drop((held, second, others));
    until("the source is served again", || come("192.0.2.1").is_ok());
}
