//! UDP where something is wrong: closed ports, too many clients, an end with flows that nobody uses.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{net::UdpSocket, time::Duration};

use harness::{
    Backend, Behaviour, Listener, PATIENCE, Program, UdpEcho, connect, forward, free_port, http_get, metric,
    round_trip, until,
};
use rustix::process::Signal;

/// A client with a source port of its own.
fn client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    socket.connect(("127.0.0.1", port)).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("option");
    socket
}

fn asks(client: &UdpSocket) {
    client.send(b"question").expect("send");
    let mut answer = [0; 16];
    let length = client.recv(&mut answer).expect("an answer");
    assert_eq!(&answer[..length], b"question");
}

/// The value of a series of the listener `u`.
fn count(health: u16, name: &str, reason: &str) -> Option<f64> {
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    let labels = "kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"u\"";
    metric(&text, &format!("{name}{{{labels}{reason}}}"))
}

#[test]
fn an_endpoint_that_answers_port_unreachable_is_ejected_even_if_no_client_sends_twice() {
    // T4
    let (gone, alive) = (free_port(), UdpEcho::start());
    let port = free_port();
    let listener = Listener::udp("u", port).to(gone).to(alive.port).with("outlier: {consecutiveFailures: 3}");
    let program = Program::run(&forward("f", "", &[listener]), free_port(), &[]);
    until("the closed endpoint is ejected", || {
        client(port).send(b"question").expect("send");
        program.events().iter().any(|line| line["event"] == "ejected")
    });
    for _ in 0..20 {
        asks(&client(port));
    }
}

#[test]
fn an_endpoint_without_a_route_costs_no_datagram_and_is_ejected() {
    // The kernel refuses to connect to the broadcast address of loopback (`EACCES`), as it does behind a `prohibit` route.
    // The endpoint has the fewest flows for ever.
    let alive = UdpEcho::start();
    let port = free_port();
    let listener = Listener::udp("u", port)
        .backend("address: {host: 127.255.255.255, port: 9}")
        .to(alive.port)
        .with("loadBalancing: {policy: LeastConnections}");
    let program = Program::run(&forward("f", "", &[listener]), free_port(), &[]);
    let clients: Vec<UdpSocket> = (0..20).map(|_| client(port)).collect();
    // One datagram each: none is sent again.
    clients.iter().for_each(asks);
    let ejected = program.wait("ejected", "f/u");
    assert!(ejected["message"].as_str().is_some_and(|it| it.contains("127.255.255.255")), "{ejected}");
}

#[test]
fn a_flow_has_its_answers_when_its_endpoint_returns_after_many_errors() {
    // T4: errors wait in the receive buffer of the flow until they are taken.
    let (back, port, health) = (free_port(), free_port(), free_port());
    let _program = Program::run(&forward("f", "", &[Listener::udp("u", port).to(back)]), health, &[]);
    let client = client(port);
    until("more questions were answered by errors than the buffer holds", || {
        // Each is larger than the one before, so that no two of them make a train, which has one error.
        for length in 1..=100 {
            client.send(&[7; 100][..length]).expect("send");
        }
        count(health, "portlane_bytes_total", ",direction=\"up\"") > Some(50.5 * 2000.0)
    });
    let server = UdpSocket::bind(("127.0.0.1", back)).expect("bind");
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("option");
    }
    until("an answer arrives", || {
        client.send(b"question").expect("send");
        let Ok((length, flow)) = server.recv_from(&mut [0; 16]) else { return false };
        server.send_to(&[7; 16][..length], flow).expect("send");
        client.recv(&mut [0; 16]).is_ok()
    });
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the pace of a client")]
fn a_flow_that_nobody_uses_holds_up_no_end_and_one_in_use_does() {
    // T23
    let server = UdpEcho::start();
    let port = free_port();
    let mut program = Program::run(&forward("f", "", &[Listener::udp("u", port).to(server.port)]), free_port(), &[]);
    let (once, busy) = (client(port), client(port));
    asks(&once);
    asks(&busy);
    program.signal(Signal::TERM);
    program.wait("draining", "portlane");
    // Longer than a flow may be quiet: the flow in use is served meanwhile.
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(250));
        asks(&busy);
    }
    assert!(program.is_running());
    // `udpIdleSeconds` is 60 and the drain takes up to 300.
    program.wait_for_end(Duration::from_secs(20));
    assert_eq!(program.wait("session_closed", "u")["reason"], "FlowIdle");
}

#[test]
fn a_policy_that_is_set_after_a_retarget_ends_what_the_retarget_kept() {
    // T24
    let (one, two) = (UdpEcho::start(), UdpEcho::start());
    let (first, second) = (Backend::start(Behaviour::Echo), Backend::start(Behaviour::Echo));
    let (port, tcp) = (free_port(), free_port());
    let manifest = |policy: &str, to: u16, tcp_to: u16| {
        let listeners = [Listener::udp("u", port).to(to), Listener::tcp("t", tcp).to(tcp_to)];
        forward("f", &format!("sessions: {{onUpdate: {policy}}}"), &listeners)
    };
    let program = Program::run(&manifest("Keep", one.port, first.port), free_port(), &[]);
    let client = client(port);
    asks(&client);
    let mut session = connect(tcp).expect("connect");
    round_trip(&mut session, b"x").expect("served");
    program.edit_and_wait(&manifest("Keep", two.port, second.port), "swapped", "f/u");
    asks(&client);
    round_trip(&mut session, b"x").expect("kept");
    program.edit(&manifest("Close", two.port, second.port));
    for listener in ["u", "t"] {
        assert_eq!(program.wait("session_closed", listener)["reason"], "Updated");
    }
    asks(&client);
}

#[test]
fn datagrams_that_the_system_drops_are_counted_and_logged() {
    // D14
    let server = UdpEcho::start();
    let (port, health) = (free_port(), free_port());
    let program = Program::run(&forward("f", "", &[Listener::udp("u", port).to(server.port)]), health, &[]);
    let client = client(port);
    asks(&client);
    program.signal(Signal::STOP);
    // The receive buffer holds 8 MiB at most, with what the system adds to each datagram.
    for _ in 0..8000 {
        client.send(&[7; 1400]).expect("send");
    }
    program.signal(Signal::CONT);
    until("the drops are counted", || {
        count(health, "portlane_datagrams_dropped_total", ",reason=\"ReceiveBufferFull\"") > Some(0.0)
    });
    program.wait("datagrams_lost", "f/u");
}

#[test]
fn replies_that_the_system_drops_are_counted_and_logged() {
    // D14
    let server = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    server.set_read_timeout(Some(PATIENCE)).expect("option");
    let (back, port, health) = (server.local_addr().expect("address").port(), free_port(), free_port());
    let program = Program::run(&forward("f", "", &[Listener::udp("u", port).to(back)]), health, &[]);
    let client = client(port);
    client.send(b"question").expect("send");
    let (_, flow) = server.recv_from(&mut [0; 16]).expect("a question");
    program.signal(Signal::STOP);
    for _ in 0..8000 {
        server.send_to(&[7; 1400], flow).expect("send");
    }
    program.signal(Signal::CONT);
    until("the drops are counted", || {
        count(health, "portlane_datagrams_dropped_total", ",reason=\"ReplyBufferFull\"") > Some(0.0)
    });
    program.wait("datagrams_lost", "f/u");
}

#[test]
fn replies_of_a_burst_wait_for_a_proxy_that_is_busy() {
    // More small replies than a buffer of the system's default size (208 KiB) holds, and fewer than the one of a flow.
    const BURST: u16 = 320;
    let server = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    server.set_read_timeout(Some(PATIENCE)).expect("option");
    let (back, port) = (server.local_addr().expect("address").port(), free_port());
    let program = Program::run(&forward("f", "", &[Listener::udp("u", port).to(back)]), free_port(), &[]);
    let client = client(port);
    socket2::SockRef::from(&client).set_recv_buffer_size(1 << 20).expect("option");
    client.send(b"question").expect("send");
    let (_, flow) = server.recv_from(&mut [0; 16]).expect("a question");
    program.signal(Signal::STOP);
    for number in 0..BURST {
        server.send_to(&number.to_be_bytes(), flow).expect("send");
    }
    program.signal(Signal::CONT);
    for number in 0..BURST {
        let mut reply = [0; 2];
        client.recv(&mut reply).expect("a reply");
        assert_eq!(u16::from_be_bytes(reply), number);
    }
}

#[test]
fn a_burst_of_requests_is_answered_as_a_whole() {
    let server = UdpEcho::start();
    let port = free_port();
    let _program = Program::run(&forward("f", "", &[Listener::udp("u", port).to(server.port)]), free_port(), &[]);
    let client = client(port);
    socket2::SockRef::from(&client).set_recv_buffer_size(1 << 20).expect("option");
    for number in 0..200_u16 {
        client.send(&number.to_be_bytes()).expect("send");
    }
    for number in 0..200_u16 {
        let mut reply = [0; 2];
        client.recv(&mut reply).expect("a reply");
        assert_eq!(u16::from_be_bytes(reply), number);
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the pace of clients")]
fn an_open_flow_is_logged_no_earlier_than_its_interval() {
    let server = UdpEcho::start();
    let port = free_port();
    let spec = "accessLog: {mode: OpenAndClose, intervalSeconds: 1}";
    let program = Program::run(&forward("f", spec, &[Listener::udp("u", port).to(server.port)]), free_port(), &[]);
    // They begin at different parts of a second.
    let clients: Vec<UdpSocket> = (0..5)
        .map(|_| {
            let client = client(port);
            asks(&client);
            std::thread::sleep(Duration::from_millis(170));
            client
        })
        .collect();
    let logged = || -> Vec<f64> {
        let events = program.events();
        let open = events.iter().filter(|line| line["event"] == "session_open");
        open.filter_map(|line| line["durationSeconds"].as_f64()).collect()
    };
    until("each flow is logged", || logged().len() >= clients.len());
    assert!(logged().iter().all(|seconds| *seconds >= 1.0), "{:?}", logged());
}

#[test]
fn with_many_workers_each_has_a_shard_of_a_udp_socket_and_a_flow_stays_on_its_own() {
    let server = UdpEcho::start();
    let (port, health) = (free_port(), free_port());
    let manifest = forward("f", "", &[Listener::udp("u", port).to(server.port)]);
    let program = Program::run(&manifest, health, &["--workers", "4"]);
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/udp", program.id())).expect("the sockets of the host");
    let place = format!("0100007F:{port:04X} ");
    assert_eq!(sockets.lines().filter(|line| line.contains(&place)).count(), 4, "{sockets}");
    let clients: Vec<UdpSocket> = (0..40).map(|_| client(port)).collect();
    for _ in 0..3 {
        clients.iter().for_each(asks);
    }
    assert_eq!(count(health, "portlane_connections_opened_total", ""), Some(40.0));
}

#[test]
fn where_files_run_out_idle_flows_give_way_to_new_ones_and_to_connections() {
    // T6
    let (server, backend) = (UdpEcho::start(), Backend::start(Behaviour::Echo));
    let (port, tcp, health) = (free_port(), free_port(), free_port());
    let listeners = [Listener::udp("u", port).to(server.port), Listener::tcp("t", tcp).to(backend.port)];
    let manifest = forward("f", "accessLog: {mode: Disabled}", &listeners);
    let _program = Program::run_limited(&manifest, health, &[], Some(200));
    let clients: Vec<UdpSocket> = (0..300).map(|_| client(port)).collect();
    for client in &clients {
        client.send(b"once").expect("send");
    }
    let session = || {
        let mut session = connect(tcp).expect("connect");
        round_trip(&mut session, b"x").expect("served");
        session
    };
    // A quarter of the files is kept for connections. Once flows are idle, connections get more.
    let _sessions: Vec<_> = (0..20).map(|_| session()).collect();
    let next = client(port);
    next.set_read_timeout(Some(Duration::from_millis(100))).expect("option");
    until("a new flow is served", || {
        next.send(b"question").expect("send");
        next.recv(&mut [0; 16]).is_ok()
    });
    assert!(count(health, "portlane_connections_closed_total", ",reason=\"Evicted\"") > Some(0.0));
    assert!(count(health, "portlane_datagrams_dropped_total", ",reason=\"FileLimit\"") > Some(0.0));
}
