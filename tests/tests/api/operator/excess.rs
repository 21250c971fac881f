//! Objects as large as they may be, and two writers who do not agree.

use std::{fmt::Write as _, thread};

use crds::PortForward;
use harness::{
    Backend, Behaviour, ControlPlane, FleetPod, Operator, connect, free_port, programs::KubernetesVersion, round_trip,
    until,
};

use super::{forward, gateway, service, until_ready};

#[test]
fn the_largest_object_runs_and_two_writers_leave_a_status_that_is_true() {
    crate::server::with(KubernetesVersion::Newest, story);
}

fn story(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("excess");
    let operator = Operator::start(&namespace);
    let backend = Backend::reachable(Behaviour::Echo);
    namespace.apply(&gateway("{replicas: 1}"));
    namespace.apply(&service("web", backend.port));
    let pod = FleetPod::of_gateway(&namespace, "edge", "p1");
    let proxy = pod.proxy(&namespace, "edge", &operator);
    pod.set_ready(&namespace, true);

    let ports: Vec<u16> = (0..32).map(|_| free_port()).collect();
    namespace.apply(&largest(&ports));
    until_ready(&namespace, "largest", "True", "Ready");
    assert!(connect(ports[31]).is_ok(), "its last listener listens");

    // Two people edit one object at once, each from what they saw last.
    let mine = [free_port(), free_port()];
    namespace.apply(&forward("torn", mine[0], "{service: {name: web, port: 80}}"));
    thread::scope(|scope| {
        for port in mine {
            let namespace = &namespace;
            scope.spawn(move || {
                for _ in 0..10 {
                    // Now and then the API server refuses one of them, as it should.
                    namespace.try_apply(&forward("torn", port, "{service: {name: web, port: 80}}"));
                }
            });
        }
    });
    let torn = until_ready(&namespace, "torn", "True", "Ready");
    let port = torn.spec.listeners[0].port.expect("a port");
    assert_eq!(torn.status.expect("status").listeners[0].port, port);
    until("what its status says is so", || {
        connect(port).and_then(|mut session| round_trip(&mut session, b"x")).is_ok()
    });
    let other = mine.into_iter().find(|other| *other != port).expect("two ports");
    until("and nothing else", || connect(other).is_err());
    let largest = namespace.get::<PortForward>("largest").expect("there");
    assert_eq!(largest.status.expect("status").listeners.len(), 32);
    assert!(proxy.metric("portlane_operator_connected") > 0.0);
}

/// A forward with as many listeners and backends as the CRD lets through, and names as long.
fn largest(ports: &[u16]) -> String {
    let mut listeners = String::new();
    for (at, port) in ports.iter().enumerate() {
        let backends = (0..16).map(|to| {
            let label = "x".repeat(60);
            format!("{{address: {{host: b{to}.{label}.{label}.{label}.example, port: {}}}}}", 1 + to)
        });
        let backends: Vec<String> = backends.collect();
        let _ = write!(
            listeners,
            "{{name: listener-{at}, protocol: TCP, port: {port}, backends: [{}]}},",
            backends.join(", ")
        );
    }
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: largest}}, spec: {{placement: {{gateway: {{name: \
         edge}}}}, listeners: [{listeners}]}}}}"
    )
}
