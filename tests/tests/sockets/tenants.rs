//! Namespaces that share a proxy: each has its share of the sessions, over all its forwards.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::net::{TcpStream, UdpSocket};

use harness::{
    Backend, Behaviour, PATIENCE, Program, UdpEcho, assert_reset, connect, echoes, free_port, http_get, metric,
    round_trip, until,
};

/// A listener `l` of a document. `more` holds further fields in YAML.
fn listener(forward: &str, transport: &str, port: u16, backend: u16, more: &str) -> String {
    format!(
        "  {forward}/l:\n    revision: r{port}-{backend}\n    socket: {{transport: {transport}, bind: Loopback, port: \
         {port}}}\n    backends: [{{id: b, weight: 1, target: {{address: {{host: 127.0.0.1, port: {backend}}}}}}}]\n    \
         policy: RoundRobin\n    outlier: {{consecutiveFailures: 5, ejectSeconds: 30}}\n    timeouts: {{connectSeconds: 5, \
         idleSeconds: 3600, halfCloseSeconds: 300, udpIdleSeconds: 60, keepaliveSeconds: 60}}\n    retry: {{attempts: 3, \
         initialBackoffMillis: 50, maxBackoffMillis: 2000}}\n    sessions: {{onUpdate: Keep, onUnhealthy: Keep, \
         drainSeconds: 300}}\n    accessLog: {{mode: Close, intervalSeconds: 0}}\n    destinations: {{refuseLocal: false, \
         cidrs: []}}\n{more}"
    )
}

fn limit(sessions: u32) -> String {
    format!("    tenantLimits: {{maxConnections: {sessions}}}\n")
}

/// A proxy with these listeners, and its health and admin ports.
fn proxy(listeners: &[String]) -> (Program, u16, u16) {
    proxy_with(listeners, &[])
}

/// As [`proxy`], with these arguments.
fn proxy_with(listeners: &[String], arguments: &[&str]) -> (Program, u16, u16) {
    let (health, admin) = (free_port(), free_port());
    let document = format!("contract: 1\nepoch: e\nnumber: 1\nlisteners:\n{}", listeners.concat());
    (Program::proxy(&document, health, admin, arguments), health, admin)
}

fn session(port: u16) -> TcpStream {
    let mut stream = connect(port).expect("connect");
    round_trip(&mut stream, b"hello").expect("served");
    stream
}

fn count(health: u16, series: &str) -> Option<f64> {
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    metric(&text, series)
}

/// Connections of a forward, `NAMESPACE/NAME`, that were refused for the share of its namespace.
fn refused(health: u16, forward: &str) -> Option<f64> {
    let (namespace, name) = forward.split_once('/').expect("NAMESPACE/NAME");
    let labels = format!("kind=\"PortForward\",namespace=\"{namespace}\",forward=\"{name}\",listener=\"l\"");
    count(health, &format!("portlane_connections_closed_total{{{labels},reason=\"TenantLimit\"}}"))
}

#[test]
fn the_forwards_of_a_namespace_share_its_sessions_and_another_namespace_keeps_its_own() {
    let backend = Backend::start(Behaviour::Echo);
    let [one, two, other] = [free_port(), free_port(), free_port()];
    let (_program, health, admin) = proxy(&[
        listener("a/one", "TCP", one, backend.port, &limit(2)),
        listener("a/two", "TCP", two, backend.port, &limit(2)),
        listener("b/one", "TCP", other, backend.port, ""),
    ]);
    let (first, _second) = (session(one), session(two));
    assert_reset(connect(one), b"x");
    assert_reset(connect(two), b"x");
    let _foreign: Vec<TcpStream> = (0..4).map(|_| session(other)).collect();
    until("both resets are counted", || refused(health, "a/one") == Some(1.0) && refused(health, "a/two") == Some(1.0));
    assert_eq!(count(health, "portlane_tenant_connections{namespace=\"a\"}"), Some(2.0));
    assert_eq!(count(health, "portlane_tenant_connections_limit{namespace=\"a\"}"), Some(2.0));
    until("the reached limit is reported for both forwards, and for no other", || {
        let (_, report) = http_get(admin, "/listeners").expect("a report");
        report.matches("\"reached\": \"Tenant\"").count() == 2
    });
    drop(first);
    until("a session that ends makes room for a session of the other forward", || echoes(two));
}

// D7
#[test]
fn two_namespaces_of_three_without_limits_leave_sessions_to_the_third() {
    let backend = Backend::start(Behaviour::Echo);
    let [one, two, three] = [free_port(), free_port(), free_port()];
    let listeners = [("a/f", one), ("b/f", two), ("c/f", three)];
    let listeners = listeners.map(|(forward, port)| listener(forward, "TCP", port, backend.port, ""));
    // Another worker could hold room for a connection that it does not find.
    let (_program, health, _) = proxy_with(&listeners, &["--max-sessions", "16", "--workers", "1"]);
    let _first: Vec<TcpStream> = (0..8).map(|_| session(one)).collect();
    assert_reset(connect(one), b"x");
    let _second: Vec<TcpStream> = (0..5).map(|_| session(two)).collect();
    assert_reset(connect(two), b"x");
    until("both resets are counted", || refused(health, "a/f") == Some(1.0) && refused(health, "b/f") == Some(1.0));
    let shown =
        |namespace: &str| count(health, &format!("portlane_tenant_connections_limit{{namespace=\"{namespace}\"}}"));
    until("the limit that is shown is the one that refused", || {
        ["a", "b", "c"].map(shown).iter().all(|limit| limit.is_some_and(|limit| (1.0..=5.0).contains(&limit)))
    });
    let _third = session(three);
}

#[test]
fn connections_that_wait_in_the_queue_of_a_forward_have_places_in_the_share_of_its_namespace() {
    let backend = Backend::start(Behaviour::Echo);
    let [one, two] = [free_port(), free_port()];
    let queue = "    limits: {maxConnections: 1, onLimit: Queue, maxQueued: 100, queueSeconds: 600}\n";
    let (_program, health, _) = proxy(&[
        listener("a/one", "TCP", one, backend.port, &(queue.to_owned() + &limit(3))),
        listener("a/two", "TCP", two, backend.port, &limit(3)),
    ]);
    let _live = session(one);
    let _waiting = [connect(one).expect("accepted"), connect(one).expect("accepted")];
    until("both wait", || {
        let labels = "kind=\"PortForward\",namespace=\"a\",forward=\"one\"";
        count(health, &format!("portlane_connections_queued{{{labels}}}")) == Some(2.0)
    });
    assert_reset(connect(one), b"x");
    assert_reset(connect(two), b"x");
    until("the resets are counted", || refused(health, "a/one") == Some(1.0) && refused(health, "a/two") == Some(1.0));
}

#[test]
fn flows_count_in_the_share_and_their_datagrams_are_dropped_beyond_it() {
    let (server, backend) = (UdpEcho::start(), Backend::start(Behaviour::Echo));
    let [flows, connections] = [free_port(), free_port()];
    let (_program, health, _) = proxy(&[
        listener("a/flows", "UDP", flows, server.port, &limit(2)),
        listener("a/tcp", "TCP", connections, backend.port, &limit(2)),
    ]);
    let sessions = [session(connections), session(connections)];
    let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
    client.connect(("127.0.0.1", flows)).expect("connect");
    client.set_read_timeout(Some(PATIENCE)).expect("option");
    client.send(b"x").expect("send");
    let labels = "kind=\"PortForward\",namespace=\"a\",forward=\"flows\",listener=\"l\"";
    let dropped = format!("portlane_datagrams_dropped_total{{{labels},reason=\"TenantLimit\"}}");
    until("the datagram is dropped", || count(health, &dropped) == Some(1.0));
    drop(sessions);
    until("the sessions have ended", || count(health, "portlane_tenant_connections{namespace=\"a\"}") == Some(0.0));
    client.send(b"y").expect("send");
    let mut answer = [0; 8];
    let length = client.recv(&mut answer).expect("an answer");
    assert_eq!(&answer[..length], b"y");
}
