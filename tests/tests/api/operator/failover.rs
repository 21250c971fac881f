//! The leader is killed: changes flow again under the other replica, and no session breaks.

use std::{
    io,
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use harness::{
    Backend, Behaviour, FleetPod, FleetProxy, Operator, connect, echoes, free_port, programs::KubernetesVersion, roots,
    round_trip, until, until_within,
};

use super::{forward, gateway, service, until_ready};

/// Longest time from the death of a leader until a change flows.
const AGAIN: Duration = Duration::from_secs(20);

#[test]
fn changes_flow_again_within_twenty_seconds_after_a_leader_is_killed() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("failover");
    let first = Operator::start(&namespace);
    until("the first replica leads", || first.metric("portlane_operator_leader") > 0.0);
    let second = Operator::named(&namespace, "second", free_port());
    let (one, two) = (Backend::reachable(Behaviour::Echo), Backend::reachable(Behaviour::Echo));
    let port = free_port();
    namespace.apply(&gateway("{replicas: 1}"));
    namespace.apply(&service("web", one.port));
    namespace.apply(&service("other", two.port));
    namespace.apply(&forward("web", port, "{service: {name: web, port: 80}}"));
    let pod = FleetPod::of_gateway(&namespace, "edge", "p1");
    let token = pod.token(&namespace, "edge", "portlane-operator");
    until("the standby can serve TLS", || {
        second.metric("portlane_operator_certificate_expiry_timestamp_seconds") > 0.0
    });
    let proxy = FleetProxy::start(&token, &roots(&namespace), balancer([second.stream, first.stream]));
    pod.set_ready(&namespace, true);
    until_ready(&namespace, "web", "True", "Ready");
    // C10
    let standby = |series: &str| second.metric(&format!("portlane_operator_{series}"));
    assert!(standby("streams_refused_total{reason=\"not_leader\"}") >= 1.0, "the standby was asked first");
    assert!(standby("token_reviews_total{result=\"authenticated\"}") < 1.0, "and reviewed no token");
    let mut session = connect(port).expect("web listens");
    assert_eq!(round_trip(&mut session, b"before").expect("echo"), b"before");

    drop(first.program.kill());
    let killed = Instant::now();
    namespace.apply(&forward("web", port, "{service: {name: other, port: 80}}"));
    until_within(AGAIN, "a new session goes to the other backend", || echoes(port) && two.count() > 0);
    eprintln!("a change flowed {:?} after its leader was killed", killed.elapsed());
    assert!(second.metric("portlane_operator_leader") > 0.0);
    assert_eq!(round_trip(&mut session, b"after").expect("echo"), b"after");
    until_ready(&namespace, "web", "True", "Ready");
    assert!(proxy.metric("portlane_operator_connected") > 0.0);
}

/// One port in front of two others, in turn, like a Service.
fn balancer(behind: [u16; 2]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for (at, client) in listener.incoming().map_while(Result::ok).enumerate() {
            let server = (0..2).find_map(|next| TcpStream::connect(("127.0.0.1", behind[(at + next) % 2])).ok());
            let Some(server) = server else { continue };
            let pump = |mut from: TcpStream, mut to: TcpStream| {
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            };
            if let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) {
                pump(client, server_too);
                pump(server, client_too);
            }
        }
    });
    port
}
