//! UDP through `portlane run`.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{io::ErrorKind, net::UdpSocket, time::Duration};

use harness::{Listener, PATIENCE, Program, UdpEcho, forward, free_port, http_get, metric, until};
use rustix::process::Signal;

pub(super) fn client(port: u16) -> UdpSocket {
    client_at("127.0.0.1", port)
}

fn client_at(address: &str, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    socket.connect((address, port)).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("option");
    socket
}

pub(super) fn echo(socket: &UdpSocket, message: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; 65_536];
    socket.send(message).expect("send");
    let length = socket.recv(&mut answer).expect("an answer");
    answer.truncate(length);
    answer
}

#[test]
fn datagrams_of_every_size_pass_whole() {
    let server = UdpEcho::start();
    let port = free_port();
    let _program = Program::run(&forward("f", "", &[Listener::udp("u", port).to(server.port)]), free_port(), &[]);
    let client = client(port);
    for length in [0, 1, 2, 511, 512, 1200, 1472, 1473, 1500, 2048, 8192, 9000, 16_384, 32_768, 65_000, 65_506, 65_507]
    {
        let message: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).expect("small")).collect();
        assert_eq!(echo(&client, &message), message, "{length} bytes");
    }
}

#[test]
fn datagrams_that_wait_together_keep_their_boundaries_and_their_order() {
    // Sizes that make trains of one size, with a shorter end, and datagrams that fit into none.
    let sizes = [[64; 40].as_slice(), &[10, 0, 0, 1], &[1200; 20], &[700, 9000, 9000, 64, 65, 66], &[64; 5]].concat();
    let server = UdpEcho::start();
    let (port, health) = (free_port(), free_port());
    let program = Program::run(&forward("f", "", &[Listener::udp("u", port).to(server.port)]), health, &[]);
    let client = client(port);
    socket2::SockRef::from(&client).set_recv_buffer_size(1 << 20).expect("option");
    // The second round begins with a flow that has sent trains.
    for round in 0..2_usize {
        let message = |at: usize, length: usize| -> Vec<u8> {
            (0..length).map(|byte| u8::try_from((round + at + byte) % 251).expect("small")).collect()
        };
        program.signal(Signal::STOP);
        for (at, length) in sizes.iter().enumerate() {
            client.send(&message(at, *length)).expect("send");
        }
        program.signal(Signal::CONT);
        let mut answer = vec![0; 65_536];
        for (at, length) in sizes.iter().enumerate() {
            let received = client.recv(&mut answer).expect("an answer");
            assert_eq!(&answer[..received], message(at, *length), "datagram {at} of {length} bytes");
        }
        // Larger than any train, and than what most paths take in one piece.
        let large = message(0, 65_507);
        assert_eq!(echo(&client, &large), large);
    }
    let all: usize = 2 * (sizes.iter().sum::<usize>() + 65_507);
    for direction in ["up", "down"] {
        let labels = "kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"u\"";
        let bytes = format!("portlane_bytes_total{{{labels},direction=\"{direction}\"}}");
        until("each byte is counted once", || {
            let (_, text) = http_get(health, "/metrics").expect("metrics");
            metric(&text, &bytes) == u32::try_from(all).ok().map(f64::from)
        });
    }
}

#[test]
fn every_client_has_its_own_flow_and_gets_its_own_answers() {
    let server = UdpEcho::start();
    let port = free_port();
    let health = free_port();
    let _program = Program::run(&forward("f", "", &[Listener::udp("u", port).to(server.port)]), health, &[]);
    let clients: Vec<UdpSocket> = (0..50).map(|_| client(port)).collect();
    for round in 0..5_u32 {
        for (number, client) in clients.iter().enumerate() {
            client.send(format!("{round} {number}").as_bytes()).expect("send");
        }
        for (number, client) in clients.iter().enumerate() {
            let mut answer = [0; 64];
            let length = client.recv(&mut answer).expect("answer");
            assert_eq!(&answer[..length], format!("{round} {number}").as_bytes());
        }
    }
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    let opened = metric(
        &text,
        "portlane_connections_opened_total{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"u\"}",
    );
    assert_eq!(opened, Some(50.0));
}

#[test]
fn answers_leave_from_the_address_that_the_client_spoke_to() {
    let server = UdpEcho::start();
    let port = free_port();
    let listener = Listener::udp("u", port).to(server.port).with("bind: All");
    let _program = Program::run(&forward("f", "", &[listener]), free_port(), &[]);
    // A connected client accepts answers only from this address.
    for address in ["127.0.0.1", "127.0.0.2", "127.1.2.3"] {
        assert_eq!(echo(&client_at(address, port), b"who"), b"who", "{address}");
    }
}

#[test]
fn a_flow_ends_when_it_is_idle_and_the_next_datagram_makes_a_new_one() {
    let server = UdpEcho::start();
    let port = free_port();
    let manifest = forward("f", "timeouts: {udpIdleSeconds: 1}", &[Listener::udp("u", port).to(server.port)]);
    let program = Program::run(&manifest, free_port(), &[]);
    let client = client(port);
    echo(&client, b"one");
    let closed = program.wait("session_closed", "u");
    assert_eq!((closed["reason"].as_str(), closed["bytesUp"].as_u64()), (Some("FlowIdle"), Some(3)));
    assert_eq!(closed["session"].as_str().map(str::len), Some(16), "a flow has an id: {closed}");
    echo(&client, b"two");
}

#[test]
fn a_flow_whose_backend_is_gone_is_picked_again_at_its_next_datagram() {
    let (gone, alive) = (free_port(), UdpEcho::start());
    let port = free_port();
    let listener = Listener::udp("u", port).to(gone).to(alive.port).with("outlier: {consecutiveFailures: 1}");
    let program = Program::run(&forward("f", "", &[listener]), free_port(), &[]);
    let client = client(port);
    client.set_read_timeout(Some(Duration::from_millis(100))).expect("option");
    let mut answer = [0; 16];
    until("an answer from the live backend", || {
        client.send(b"ping").expect("send");
        match client.recv(&mut answer) {
            Ok(length) => &answer[..length] == b"ping",
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
                false
            }
        }
    });
    program.wait("ejected", "u");
}

#[test]
fn retargeting_keeps_flows_or_closes_them_as_asked() {
    let (one, two) = (UdpEcho::start(), UdpEcho::start());
    let port = free_port();
    let manifest = |policy: &str, target: &UdpEcho| {
        forward("f", &format!("sessions: {{onUpdate: {policy}}}"), &[Listener::udp("u", port).to(target.port)])
    };
    let program = Program::run(&manifest("Keep", &one), free_port(), &[]);
    let client = client(port);
    echo(&client, b"x");
    program.edit_and_wait(&manifest("Keep", &two), "swapped", "f/u");
    echo(&client, b"x");
    let closed = |program: &Program| program.events().iter().filter(|line| line["event"] == "session_closed").count();
    assert_eq!(closed(&program), 0, "the flow stays");
    program.edit_and_wait(&manifest("Close", &one), "swapped", "f/u");
    echo(&client, b"x");
    program.edit_and_wait(&manifest("Close", &two), "swapped", "f/u");
    until("the flow is closed", || closed(&program) > 0);
    echo(&client, b"x");
}

#[test]
fn loopback_to_all_and_back_loses_no_flow_on_loopback() {
    let server = UdpEcho::start();
    let port = free_port();
    let manifest =
        |bind: &str| forward("f", "", &[Listener::udp("u", port).to(server.port).with(&format!("bind: {bind}"))]);
    let program = Program::run(&manifest("Loopback"), free_port(), &[]);
    let client = client(port);
    for bind in ["All", "Loopback", "All"] {
        echo(&client, b"before");
        program.edit_and_wait(&manifest(bind), "swapped", "f/u");
        echo(&client, b"after");
    }
}

#[test]
fn a_flow_with_nowhere_else_to_go_is_kept_while_its_backend_is_away() {
    let gone = free_port();
    let (port, health) = (free_port(), free_port());
    let listener = Listener::udp("u", port).to(gone).with("outlier: {consecutiveFailures: 1, ejectSeconds: 3600}");
    let _program = Program::run(&forward("f", "", &[listener]), health, &[]);
    let client = client(port);
    client.set_read_timeout(Some(Duration::from_millis(20))).expect("option");
    let mut answer = [0; 16];
    for _ in 0..50 {
        client.send(b"ping").expect("send");
        let _ = client.recv(&mut answer);
    }
    let opened = || {
        let (_, text) = http_get(health, "/metrics").expect("metrics");
        metric(
            &text,
            "portlane_connections_opened_total{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"u\"}",
        )
    };
    assert_eq!(opened(), Some(1.0));
    let _revived = UdpEcho::start_on(gone);
    until("the same flow reaches the backend again", || {
        client.send(b"ping").expect("send");
        client.recv(&mut answer).is_ok()
    });
    assert_eq!(opened(), Some(1.0));
}
