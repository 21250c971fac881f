//! UDP where something is wrong: closed ports, too many clients, an end with flows that nobody uses.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::net::UdpSocket;

use harness::{Listener, PATIENCE, Program, UdpEcho, forward, free_port, until};

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
