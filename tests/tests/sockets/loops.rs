//! A backend that leads back to the proxy through an address that is not the proxy's own, as a load balancer does.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    io::Read,
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use harness::{Backend, Behaviour, Program, connect, free_port, http_get, metric, round_trip, until};
use socket2::{Domain, Socket, Type};

/// The address from which the load balancer connects to the proxy: that of another pod of the fleet.
const POD: [u8; 4] = [127, 0, 0, 2];

/// A load balancer that sends every connection to this port of the proxy and reads until the proxy ends it.
fn balancer(port: u16) -> Backend {
    let forward = move |_client: TcpStream| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.bind(&SocketAddr::from((POD, 0)).into()).expect("bind");
        if socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).is_ok() {
            let mut stream = TcpStream::from(socket);
            let _ = stream.set_read_timeout(Some(harness::PATIENCE));
            let _ = stream.read(&mut [0; 1]);
        }
    };
    Backend::start(Behaviour::Run(Arc::new(forward)))
}

/// A configuration of one listener whose backend is the load balancer, with one reserved endpoint set.
fn document(port: u16, balancer: u16, set: &str, address: &str) -> String {
    format!(
        "contract: 1
listeners:
  ns/f/l:
    revision: r1
    socket: {{transport: TCP, bind: Loopback, port: {port}}}
    backends:
    - {{id: 'addr/127.0.0.1:{balancer}', weight: 1, target: {{address: {{host: 127.0.0.1, port: {balancer}}}}}}}
    policy: RoundRobin
    outlier: {{consecutiveFailures: 5, ejectSeconds: 30}}
    timeouts: {{connectSeconds: 5, idleSeconds: 3600, halfCloseSeconds: 300, udpIdleSeconds: 60, keepaliveSeconds: 60}}
    retry: {{attempts: 1, initialBackoffMillis: 50, maxBackoffMillis: 2000}}
    sessions: {{onUpdate: Keep, onUnhealthy: Keep, drainSeconds: 300}}
    accessLog: {{mode: Close, intervalSeconds: 0}}
    destinations: {{refuseLocal: false, cidrs: []}}
endpoints:
  {set}: {{addresses: ['{address}']}}
"
    )
}

fn count(health: u16, family: &str, reason: &str) -> Option<f64> {
    let labels = "kind=\"PortForward\",namespace=\"ns\",forward=\"f\",listener=\"l\"";
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    metric(&text, &format!("{family}{{{labels},reason=\"{reason}\"}}"))
}

#[test]
fn a_load_balancer_in_front_of_the_own_fleet_is_not_connected_to() {
    let (port, health) = (free_port(), free_port());
    let balancer = balancer(port);
    let front = format!("127.0.0.1:{}", balancer.port);
    let program = Program::proxy(&document(port, balancer.port, "fronts", &front), health, free_port(), &[]);
    connect(port).and_then(|mut client| round_trip(&mut client, b"x")).expect_err("there is no other backend");
    until("the session has ended", || count(health, "portlane_connections_closed_total", "NoBackend") == Some(1.0));
    assert_eq!(count(health, "portlane_backend_endpoints_refused", "Loop"), Some(1.0));
    assert_eq!(balancer.count(), 0, "the load balancer is left alone");
    drop(program);
}

#[test]
fn a_connection_that_comes_back_through_a_load_balancer_that_nobody_knows_ends_there() {
    let (port, health) = (free_port(), free_port());
    let balancer = balancer(port);
    let pod = SocketAddr::from((POD, 0)).to_string();
    let program = Program::proxy(&document(port, balancer.port, "fleet", &pod), health, free_port(), &[]);
    let mut client = connect(port).expect("connect");
    until("the connection that came back is closed", || {
        count(health, "portlane_connections_closed_total", "Loop") == Some(1.0)
    });
    assert!(client.read(&mut [0; 1]).map_or(0, |read| read) == 0, "nothing answers");
    assert_eq!(balancer.count(), 1, "it went round once");
    drop(program);
}
