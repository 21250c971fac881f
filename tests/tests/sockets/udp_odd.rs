//! UDP where something is wrong: closed ports, too many clients, an end with flows that nobody uses.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{net::UdpSocket, time::Duration};

use harness::{
    Backend, Behaviour, Listener, PATIENCE, Program, UdpEcho, connect, forward, free_port, round_trip, until,
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

#[test]
fn an_endpoint_that_answers_port_unreachable_is_put_aside_although_no_client_asks_twice() {
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
    for listener in ["f/u", "f/t"] {
        assert_eq!(program.wait("session_closed", listener)["reason"], "Updated");
    }
    asks(&client);
}
