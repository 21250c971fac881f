//! Datagrams through a tunnel: clients of `portlane run`, and a target behind an agent.

use std::{
    io::{ErrorKind, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use harness::{Event, Listener, connect, forward, free_port, until};

use super::{
    bed::{Agent, Server, behind_home, home, line, listener},
    bytes,
    cutter::Cutter,
};
use crate::udp;

/// How long a datagram is waited for before it is sent again.
const AGAIN: Duration = Duration::from_millis(100);

/// A client of this port, and a target that answers when the test says so.
fn ends(port: u16) -> (UdpSocket, UdpSocket) {
    let (client, target) = (udp::client(port), UdpSocket::bind(("127.0.0.1", 0)).expect("bind"));
    for end in [&client, &target] {
        end.set_read_timeout(Some(AGAIN)).expect("option");
    }
    (client, target)
}

fn port_of(socket: &UdpSocket) -> u16 {
    socket.local_addr().expect("an address").port()
}

/// A forward of this port of UDP to a port of the machine of agent `home`, and further listeners.
fn manifests(port: u16, target: &UdpSocket, more: Vec<Listener>, agent: &str, targets: &[u16]) -> String {
    let mut listeners = vec![Listener::udp("u", port).backend(&behind_home(port_of(target)))];
    listeners.extend(more);
    home(targets, agent) + &forward("f", "accessLog: {mode: OpenAndClose}", &listeners)
}

/// Sends a datagram until it has reached the target and its answer the client, and tells where it came from.
#[track_caller]
fn exchange(client: &UdpSocket, target: &UdpSocket, message: &[u8]) -> SocketAddr {
    let (mut buffer, mut seen) = (vec![0; 65_536], None);
    let mut is_it = |end: &UdpSocket| match end.recv_from(&mut buffer) {
        Ok((length, from)) if buffer[..length] == *message => Some(from),
        // One that was sent before may be late.
        _ => None,
    };
    until(&format!("{} bytes pass both ways", message.len()), || {
        client.send(message).expect("send");
        let Some(from) = is_it(target) else { return false };
        target.send_to(message, from).expect("send");
        seen = Some(from);
        is_it(client).is_some()
    });
    seen.expect("just seen")
}

#[test]
fn datagrams_of_every_size_pass_both_ways_from_one_port_over_a_connection_that_is_cut() {
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let (client, target) = ends(port);
    let cutter = Cutter::start(1, 1 << 20);
    let advertise = format!("127.0.0.1:{}", cutter.port());
    let manifests = manifests(port, &target, Vec::new(), "", &[port_of(&target)]);
    let server = Server::start(&manifests, &["--tunnel-advertise", &advertise]);
    cutter.lead_to(server.tunnel);
    let agent = Agent::connected("one", folder.path(), &[port_of(&target)], Some(&server.join("")));
    let first = exchange(&client, &target, b"first");
    for length in [0, 1, 1200, 65_507] {
        assert_eq!(exchange(&client, &target, &bytes(length)), first, "{length} bytes");
    }
    line(&server.program, &["opened", &format!("agent/default/home/one/127.0.0.1:{}", port_of(&target))]);
    assert!(agent.streams() > 0.0);
    let large = bytes(60_000);
    until("the connection is cut", || {
        assert_eq!(exchange(&client, &target, &large), first);
        cutter.cuts_left() == 0
    });
    assert_eq!(exchange(&client, &target, b"last"), first);
}

#[test]
fn datagrams_pass_a_stream_that_its_target_does_not_read() {
    let [port, tcp_port] = [free_port(), free_port()];
    let folder = tempfile::tempdir().expect("folder");
    let (client, target) = ends(port);
    // It accepts connections, and nobody reads them.
    let deaf = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    let deaf_port = deaf.local_addr().expect("an address").port();
    let both = [port_of(&target), deaf_port];
    let bulk = listener("bulk", tcp_port, deaf_port);
    let server = Server::start(&manifests(port, &target, vec![bulk], "", &both), &[]);
    let agent = Agent::connected("one", folder.path(), &both, Some(&server.join("")));
    exchange(&client, &target, b"before");
    let mut visitor = connect(tcp_port).expect("connects");
    visitor.set_write_timeout(Some(AGAIN)).expect("option");
    let full = visitor.write_all(&vec![0; 64 << 20]).expect_err("more than all windows hold");
    assert!(matches!(full.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{full}");
    assert!(agent.streams() > 1.0, "the stream and the flow");
    for length in [0, 1200, 65_507] {
        exchange(&client, &target, &bytes(length));
    }
    drop(visitor);
}

#[test]
fn a_flow_moves_to_another_instance_when_its_own_was_killed() {
    let (port, folders) = (free_port(), [(); 2].map(|()| tempfile::tempdir().expect("folder")));
    let (client, target) = ends(port);
    let allowed = [port_of(&target)];
    let server = Server::start(&manifests(port, &target, Vec::new(), "enrolment: {redemptions: 2}", &allowed), &[]);
    let join = server.join("");
    let [first, second] = [("first", &folders[0]), ("second", &folders[1])]
        .map(|(name, folder)| Agent::connected(name, folder.path(), &allowed, Some(&join)));
    until("both are counted", || server.agents() > 1.0);
    let before = exchange(&client, &target, b"before");
    let (serving, other) = if first.streams() > 0.0 { (first, second) } else { (second, first) };
    assert!(serving.streams() > 0.0 && other.streams() < 1.0);
    drop(serving);
    // The target sees another socket, of the other agent.
    assert_ne!(exchange(&client, &target, b"after"), before);
    assert!(other.streams() > 0.0);
}

#[test]
fn a_target_that_the_agent_does_not_allow_gets_nothing_and_the_owner_of_the_agent_is_told() {
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let (client, target) = ends(port);
    let listed = [port_of(&target)];
    let server = Server::start(&manifests(port, &target, Vec::new(), "", &listed), &[]);
    let agent = Agent::connected("one", folder.path(), &[1], Some(&server.join("")));
    let refused = format!("--allow udp/127.0.0.1:{}", listed[0]);
    let says_so = |event: &Event, kind: &str| event.to_string().contains(&refused) && event.to_string().contains(kind);
    let began = Instant::now();
    // A flow that was refused stays for a second, and ends with the next datagram.
    until("both ends say what is refused", || {
        client.send(b"x").expect("send");
        agent.program.events().iter().any(|event| says_so(event, ""))
            && server.program.events().iter().any(|event| says_so(event, "session_closed"))
    });
    let (asked, took) = (agent.refused(), began.elapsed().as_secs_f64());
    assert!(took > 0.9 && (1.0..took + 1.5).contains(&asked), "{asked} flows in {took} s");
    target.recv_from(&mut [0; 16]).expect_err("nothing came");
}
