//! Objects as large as the CRD admits, and two writers of one object.

use std::{fmt::Write as _, thread};

use crds::PortForward;
use harness::{Scene, connect, echoes, free_port, programs::KubernetesVersion, until};

use super::{forward, until_ready};

#[test]
fn the_largest_object_runs_and_two_writers_leave_a_status_that_is_true() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let Scene { namespace, operator: _operator, backend: _backend, proxy, .. } =
        Scene::ready_gateway(server.namespace("excess"));

    let ports: Vec<u16> = (0..32).map(|_| free_port()).collect();
    namespace.apply(&largest(&ports));
    until_ready(&namespace, "largest", "True", "Ready");
    assert!(connect(ports[31]).is_ok(), "the last listener is bound");

    // Two people edit one object at once, each from the version that they saw last.
    let wanted = [free_port(), free_port()];
    namespace.apply(&forward("torn", wanted[0], "{service: {name: web, port: 80}}"));
    thread::scope(|scope| {
        for port in wanted {
            let namespace = &namespace;
            scope.spawn(move || {
                for _ in 0..10 {
                    // The API server refuses a writer with an outdated version now and then, as it should.
                    namespace.try_apply(&forward("torn", port, "{service: {name: web, port: 80}}"));
                }
            });
        }
    });
    let torn = until_ready(&namespace, "torn", "True", "Ready");
    let port = torn.spec.listeners[0].port.expect("a port");
    assert_eq!(torn.status.expect("status").listeners[0].port, port);
    until("the port in status serves", || echoes(port));
    let other = wanted.into_iter().find(|other| *other != port).expect("two ports");
    until("the other writer's port is closed", || connect(other).is_err());
    let largest = namespace.get::<PortForward>("largest").expect("largest exists");
    assert_eq!(largest.status.expect("status").listeners.len(), 32);
    assert!(proxy.metric("portlane_operator_connected") > 0.0);
}

/// A forward with as many listeners and backends, and as long names, as the CRD admits.
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
