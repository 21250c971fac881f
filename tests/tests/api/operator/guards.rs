//! Limits, checks, names and ranges through the whole of it: from `kubectl apply` to a real proxy, and back into status.

use std::time::Duration;

use crds::{BackendHealth, PortForward, Protocol};
use harness::{
    Backend, Behaviour, ControlPlane, FleetPod, Namespace, Operator, connect, free_port, free_range,
    programs::KubernetesVersion, round_trip, until, until_within,
};
use k8s_openapi::api::core::v1::Service;
use rustix::process::Signal;

use super::{gateway, own_address, until_ready};

/// Health in status is written once in half a minute at most.
const OBSERVED: Duration = Duration::from_secs(75);

#[test]
fn what_guards_a_forward_reaches_its_proxies_and_what_they_see_comes_back() {
    crate::server::with(KubernetesVersion::Newest, story);
}

fn manifest(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, spec: {{placement: {{gateway: \
         {{name: edge}}}}, {spec}}}}}"
    )
}

fn has_event(namespace: &Namespace<'_>, reason: &str, kind: &str) -> bool {
    let events = namespace.kubectl(&["get", "events.events.k8s.io", "-o", "json"]).ok();
    let events: serde_json::Value = serde_json::from_str(&events).expect("JSON");
    let is = |event: &serde_json::Value| event["reason"] == reason && event["regarding"]["kind"] == kind;
    events["items"].as_array().expect("items").iter().any(is)
}

fn story(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("guards");
    let operator = Operator::start(&namespace);
    let cidr = format!("{}/32", own_address());
    namespace.apply(&gateway(&format!("{{replicas: 1, allowedForwards: {{addressCIDRs: ['{cidr}']}}}}")));
    let pod = FleetPod::of_gateway(&namespace, "edge", "p1");
    let mut proxy = pod.proxy(&namespace, "edge", &operator);
    pod.set_ready(&namespace, true);

    // Limits and access, changed while a session lives.
    let backend = Backend::reachable(Behaviour::Echo);
    let to = |port: u16| format!("backends: [{{address: {{host: {}, port: {port}}}}}]", own_address());
    let port = free_port();
    let guarded = |guards: &str| {
        let check = "healthCheck: {tcp: {}, intervalSeconds: 1, unhealthyThreshold: 1, healthyThreshold: 1}";
        let listener = format!("{{name: tcp, protocol: TCP, port: {port}, {check}, {}}}", to(backend.port));
        manifest("guarded", &format!("{guards}listeners: [{listener}]"))
    };
    namespace.apply(&guarded(""));
    let forward = until_ready(&namespace, "guarded", "True", "Ready");
    assert_eq!(forward.status.expect("status").listeners[0].backends, Some(BackendHealth::All));
    let mut session = connect(port).expect("connect");
    round_trip(&mut session, b"x").expect("echo");
    let is_served = || connect(port).and_then(|mut stream| round_trip(&mut stream, b"x")).is_ok();
    namespace.apply(&guarded("limits: {maxConnections: 1, onLimit: Reject}, "));
    until("there is no room for another", || !is_served());
    namespace.apply(&guarded("access: {denyCIDRs: [10.99.0.0/16]}, "));
    until("there is", is_served);
    namespace.apply(&guarded("access: {allowCIDRs: [10.99.0.0/16]}, "));
    until("nobody may come", || !is_served());
    round_trip(&mut session, b"x").expect("Keep: the session stays");
    namespace.apply(&guarded(""));
    until("everybody may", is_served);

    // Names and ranges, in status and in the Service of the fleet.
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
    let range_spec =
        format!("{{name: data, protocol: TCP, port: {first}, endPort: {}, {}}}", first + 2, to(backend.port));
    namespace.apply(&manifest("range", &format!("listeners: [{range_spec}]")));
    let range = until_ready(&namespace, "range", "True", "Ready").status.expect("status");
    assert_eq!(range.ports, Some(format!("{first}-{}/TCP", first + 2)));
    namespace.until::<Service>("edge", "each port of it stands in the Service, and the shared one once", |service| {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        let ports: Vec<i32> = ports.into_iter().flatten().map(|port| port.port).collect();
        let count = |port: u16| ports.iter().filter(|other| **other == i32::from(port)).count();
        (0..3).all(|at| count(first + at) == 1) && count(shared) == 1
    });

    // One that is suspended keeps its ports in the Service, whatever else comes.
    namespace.apply(&manifest("range", &format!("suspend: true, listeners: [{range_spec}]")));
    until_ready(&namespace, "range", "True", "Suspended");
    let one_more = free_port();
    let listener = format!("{{name: tcp, protocol: TCP, port: {one_more}, {}}}", to(backend.port));
    namespace.apply(&manifest("one-more", &format!("listeners: [{listener}]")));
    let has = |service: &Service, wanted: u16| {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        ports.into_iter().flatten().any(|port| port.port == i32::from(wanted))
    };
    let service = namespace.until::<Service>("edge", "the new port stands in it", |service| has(service, one_more));
    assert!((0..3).all(|at| has(&service, first + at)), "those of the suspended forward do too");

    // Backends that are gone, and a drain that does not end.
    drop(backend);
    let mut health = None;
    until_within(OBSERVED, "status says that no backend is healthy", || {
        let forward = namespace.get::<PortForward>("guarded").expect("there");
        health = forward.status.and_then(|status| status.listeners.first()?.backends);
        health == Some(BackendHealth::None)
    });
    until("it is an event", || has_event(&namespace, "BackendsUnhealthy", "PortForward"));
    let holder = Backend::reachable(Behaviour::Echo);
    let held_port = free_port();
    let listener = format!("{{name: tcp, protocol: TCP, port: {held_port}, {}}}", to(holder.port));
    namespace.apply(&manifest("held", &format!("listeners: [{listener}]")));
    until_ready(&namespace, "held", "True", "Ready");
    let mut held = connect(held_port).expect("connect");
    round_trip(&mut held, b"x").expect("echo");
    proxy.program.signal(Signal::TERM);
    proxy.program.wait_for_end(harness::PATIENCE);
    until("sessions that were cut are an event", || has_event(&namespace, "DrainCut", "ForwardGateway"));
}
