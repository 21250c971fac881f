//! Sockets that the system closes while the proxy uses them.

use std::net::{SocketAddr, UdpSocket};

use harness::{Listener, Machine, PATIENCE, forward};

use crate::{LISTEN, QUICK, SERVE};

#[test]
fn after_the_system_has_closed_the_socket_of_a_flow_the_next_datagram_has_another_flow_and_no_endpoint_is_blamed() {
    let machine = Machine::start(b"", QUICK);
    let bind = |address: &str| {
        let socket = machine.within(|| UdpSocket::bind(address)).expect("bind");
        socket.set_read_timeout(Some(PATIENCE)).expect("option");
        socket
    };
    let (server, client) = (bind(&format!("127.0.0.1:{SERVE}")), bind("127.0.0.1:0"));
    // The only endpoint: there is no other one to turn to.
    let backend = format!("address: {{host: 127.0.0.1, port: {SERVE}}}");
    let listener = Listener::udp("u", LISTEN).backend(&backend).with("outlier: {consecutiveFailures: 1}");
    let program = machine.run(&forward("f", "", &[listener]));
    let asked = || -> SocketAddr {
        client.send_to(b"question", ("127.0.0.1", LISTEN)).expect("send");
        server.recv_from(&mut [0; 16]).expect("the question").1
    };
    asked();
    let mut close = machine.command("ss");
    close.args(["-K", "-u", "-n", "dst", "127.0.0.1", "dport", "=", &SERVE.to_string()]);
    assert!(close.status().expect("ss is there where ip is").success());
    let flow = asked();
    server.send_to(b"answer", flow).expect("send");
    let (length, _) = client.recv_from(&mut [0; 16]).expect("an answer");
    assert_eq!(length, 6);
    assert_eq!(program.wait("session_closed", "u")["reason"], "BackendReset");
    assert!(!program.events().iter().any(|line| line["event"] == "ejected"));
}
