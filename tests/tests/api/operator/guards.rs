//! Limits, access, names, ranges and checks end to end: from `kubectl apply` to a real proxy, and back into status.

use std::{io::Write, net::UdpSocket, time::Duration};

use crds::{BackendHealth, PortForward, Protocol};
use harness::{
    Backend, Behaviour, Fleet, Namespace, block_on, connect, echoes, free_port, free_range,
    programs::KubernetesVersion, round_trip, until, until_within,
};
use k8s_openapi::api::{core::v1::Service, events::v1::Event};
use kube::api::ListParams;
use rustix::process::Signal;

use super::{condition, own_address, until_ready};

/// Longest time until status has the health of backends, or a reached limit: counts are written once in 30 s at most.
const OBSERVED: Duration = Duration::from_secs(75);

#[test]
fn limits_and_access_of_a_forward_change_while_its_session_lives() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("guards-limits");
    let _fleet = Fleet::open(&namespace);
    let (backend, port) = (Backend::reachable(Behaviour::Echo), free_port());
    let guarded = |guards: &str| guarded(guards, port, backend.port);
    namespace.apply(&guarded(""));
    let forward = until_ready(&namespace, "guarded", "True", "Ready");
    assert_eq!(forward.status.expect("status").listeners[0].backends, Some(BackendHealth::All));
    let mut session = connect(port).expect("connect");
    round_trip(&mut session, b"x").expect("echo");

    namespace.apply(&guarded("limits: {maxConnections: 1, onLimit: Reject}, "));
    until("a second session is over the limit", || !echoes(port));
    namespace.apply(&guarded("access: {denyCIDRs: [10.99.0.0/16]}, "));
    until("without the limit a second session is served", || echoes(port));
    namespace.apply(&guarded("access: {allowCIDRs: [10.99.0.0/16]}, "));
    until("a client outside allowCIDRs is refused", || !echoes(port));
    round_trip(&mut session, b"x").expect("Keep: the session stays");
    namespace.apply(&guarded(""));
    until("without access rules every client is served", || echoes(port));
}

#[test]
fn names_and_ranges_reach_status_and_the_service_of_the_fleet() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("guards-names");
    let _fleet = Fleet::open(&namespace);
    let backend = Backend::reachable(Behaviour::Echo);

    // Two forwards share a port by server name; a third one asks for the name of the first.
    let (shared, first) = (free_port(), free_range(3));
    let named = |name: &str, host: &str| {
        let listener =
            format!("{{name: l, protocol: TLS, port: {shared}, tls: {{hostnames: [{host}]}}, {}}}", to(backend.port));
        manifest(name, &format!("listeners: [{listener}]"))
    };
    namespace.apply(&named("one", "a.example"));
    namespace.apply(&named("two", "'*.example'"));
    until_ready(&namespace, "one", "True", "Ready");
    let two = until_ready(&namespace, "two", "True", "Ready").status.expect("status");
    assert_eq!(
        (two.listeners[0].protocol, &two.listeners[0].hostnames[..]),
        (Protocol::Tls, &["*.example".to_owned()][..])
    );
    assert_eq!(two.ports, Some(format!("{shared}/TLS")));
    namespace.apply(&named("three", "a.example"));
    until_ready(&namespace, "three", "False", "PortConflict");

    // A range is one listener and as many ports of the Service.
    let range_spec =
        format!("{{name: data, protocol: TCP, port: {first}, endPort: {}, {}}}", first + 2, to(backend.port));
    namespace.apply(&manifest("range", &format!("listeners: [{range_spec}]")));
    let range = until_ready(&namespace, "range", "True", "Ready").status.expect("status");
    assert_eq!(range.ports, Some(format!("{first}-{}/TCP", first + 2)));
    namespace.until::<Service>("edge", "has each port of the range, and the shared port once", |service| {
        (0..3).all(|at| count(service, first + at) == 1) && count(service, shared) == 1
    });

    // A suspended forward keeps its ports in the Service while another port is added.
    namespace.apply(&manifest("range", &format!("suspend: true, listeners: [{range_spec}]")));
    until_ready(&namespace, "range", "True", "Suspended");
    let one_more = free_port();
    let listener = format!("{{name: tcp, protocol: TCP, port: {one_more}, {}}}", to(backend.port));
    namespace.apply(&manifest("one-more", &format!("listeners: [{listener}]")));
    let service = namespace.until::<Service>("edge", "has the new port", |service| count(service, one_more) == 1);
    assert!((0..3).all(|at| count(&service, first + at) == 1), "the Service keeps the ports of the suspended forward");
}

#[test]
fn unhealthy_backends_and_sessions_cut_by_a_drain_are_reported() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("guards-health");
    let mut fleet = Fleet::open(&namespace);

    // Backends that are gone: in status, and as an event.
    let backend = Backend::reachable(Behaviour::Echo);
    namespace.apply(&guarded("", free_port(), backend.port));
    until_ready(&namespace, "guarded", "True", "Ready");
    drop(backend);
    until_within(OBSERVED, "status has no healthy backend", || {
        let forward = namespace.get::<PortForward>("guarded").expect("guarded exists");
        let health = forward.status.and_then(|status| status.listeners.first()?.backends);
        health == Some(BackendHealth::None)
    });
    until("unhealthy backends are an event", || has_event(&namespace, "BackendsUnhealthy", "PortForward"));

    // A drain that ends before its session does: an event.
    let (holder, port) = (Backend::reachable(Behaviour::Echo), free_port());
    let listener = format!("{{name: tcp, protocol: TCP, port: {port}, {}}}", to(holder.port));
    namespace.apply(&manifest("held", &format!("listeners: [{listener}]")));
    until_ready(&namespace, "held", "True", "Ready");
    let mut held = connect(port).expect("connect");
    round_trip(&mut held, b"x").expect("echo");
    fleet.proxy.program.signal(Signal::TERM);
    fleet.proxy.program.wait_for_end(harness::PATIENCE);
    until("sessions that a drain cut are an event", || has_event(&namespace, "DrainCut", "ForwardGateway"));
}

#[test]
fn a_datagram_that_ends_as_in_a_loop_is_in_the_status_of_its_forward_which_stays_ready() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("guards-loop");
    let _fleet = Fleet::open(&namespace);
    let port = free_port();
    let listener = format!("{{name: udp, protocol: UDP, port: {port}, {}}}", to(free_port()));
    namespace.apply(&manifest("looped", &format!("listeners: [{listener}]")));
    let forward = until_ready(&namespace, "looped", "True", "Ready");
    assert_eq!(condition(&forward, "LimitReached"), (String::new(), String::new()));

    let client = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    // As after a last round: it has no hop left.
    client.set_ttl(1).expect("option");
    client.send_to(b"round", ("127.0.0.1", port)).expect("send");
    until_within(OBSERVED, "status has the loop", || {
        let forward = namespace.get::<PortForward>("looped").expect("looped exists");
        condition(&forward, "LimitReached") == ("True".to_owned(), "Loop".to_owned())
    });
    let forward = until_ready(&namespace, "looped", "True", "Ready");
    let mut conditions = forward.status.expect("status").conditions.into_iter();
    let told = conditions.find(|condition| condition.type_ == "LimitReached").expect("the condition");
    assert!(told.message.contains("listener 'udp' of pod p1"), "{}", told.message);
}

#[test]
fn a_durable_listener_runs_in_a_fleet_and_status_says_what_its_log_survives() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("guards-durable");
    let _fleet = Fleet::open(&namespace);
    let (sink, port) = (Backend::reachable(Behaviour::Echo), free_port());
    let durable = "durable: {send: {tcp: {}}, store: {disk: {maxBytes: 16777216}}}";
    let listener = format!("{{name: lines, protocol: TCP, port: {port}, {durable}, {}}}", to(sink.port));
    namespace.apply(&manifest("logs", &format!("listeners: [{listener}]")));
    let status = until_ready(&namespace, "logs", "True", "Ready").status.expect("status");
    let kept = status.conditions.iter().find(|condition| condition.type_ == "MessagesKept").expect("the condition");
    assert_eq!((kept.status.as_str(), kept.reason.as_str()), ("True", "InPod"));
    let mut client = connect(port).expect("connect");
    client.write_all(b"one line\n").expect("it is sent");
    until("the sink is sent messages", || sink.count() > 0);
}

fn manifest(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, spec: {{placement: {{gateway: \
         {{name: edge}}}}, {spec}}}}}"
    )
}

/// The forward `guarded`, whose backend is checked every second.
fn guarded(guards: &str, port: u16, backend: u16) -> String {
    let check = "healthCheck: {tcp: {}, intervalSeconds: 1, unhealthyThreshold: 1, healthyThreshold: 1}";
    let listener = format!("{{name: tcp, protocol: TCP, port: {port}, {check}, {}}}", to(backend));
    manifest("guarded", &format!("{guards}listeners: [{listener}]"))
}

/// A backend on this machine.
fn to(port: u16) -> String {
    format!("backends: [{{address: {{host: {}, port: {port}}}}}]", own_address())
}

/// How often a Service has a port.
fn count(service: &Service, port: u16) -> usize {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    ports.into_iter().flatten().filter(|other| other.port == i32::from(port)).count()
}

fn has_event(namespace: &Namespace<'_>, reason: &str, kind: &str) -> bool {
    let api = namespace.api::<Event>();
    let events = block_on(async { api.list(&ListParams::default()).await }).expect("events");
    events.items.into_iter().any(|event| {
        let regarding = event.regarding.and_then(|object| object.kind);
        event.reason.as_deref() == Some(reason) && regarding.as_deref() == Some(kind)
    })
}
