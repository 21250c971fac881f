//! Ten thousand objects in one `kubectl apply`: another forward does not notice, and all of them run.

use std::{fmt::Write as _, time::Duration};

use harness::{
    Backend, Behaviour, ControlPlane, FleetPod, Operator, connect, free_port, programs::KubernetesVersion, round_trip,
    until_within,
};

use super::{forward, gateway, service, until_ready};

/// Longest time for all of them. kubectl applies one after the other.
const ALL: Duration = Duration::from_secs(300);

#[test]
fn ten_thousand_forwards_in_one_apply_run_and_another_one_does_not_notice() {
    crate::server::with(KubernetesVersion::Oldest, story);
}

/// A file of forwards without a port of their own on this machine: those of a gateway that has no proxy.
fn manifests(count: usize) -> String {
    let mut all = String::new();
    for at in 0..count {
        let _ = write!(
            all,
            "---\n{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: f{at}}}, spec: {{placement: {{gateway: \
             {{name: many}}}}, listeners: [{{name: tcp, protocol: TCP, port: {}, backends: [{{address: {{host: 192.0.2.1, port: \
             1}}}}]}}]}}}}\n",
            1024 + at
        );
    }
    all
}

fn story(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("many");
    let operator = Operator::start(&namespace);
    let backend = Backend::reachable(Behaviour::Echo);
    namespace.apply(&gateway("{replicas: 1}"));
    namespace
        .apply(&gateway("{replicas: 0, service: {maxPorts: 1000, type: None}}").replace("name: edge", "name: many"));
    namespace.apply(&service("web", backend.port));
    let pod = FleetPod::of_gateway(&namespace, "edge", "p1");
    let proxy = pod.proxy(&namespace, "edge", &operator);
    pod.set_ready(&namespace, true);
    let port = free_port();
    namespace.apply(&forward("web", port, "{service: {name: web, port: 80}}"));
    until_ready(&namespace, "web", "True", "Ready");
    let mut session = connect(port).expect("it listens");

    namespace.apply(&manifests(10_000));
    assert_eq!(round_trip(&mut session, b"one").expect("echo"), b"one");
    let known = || operator.metric("portlane_operator_forwards ");
    until_within(ALL, "all are known", || known() > 10_000.0);
    // The last one was judged, and a change of the other one is not held up.
    let moved = free_port();
    namespace.apply(&forward("web", moved, "{service: {name: web, port: 80}}"));
    until_ready(&namespace, "web", "True", "Ready");
    assert!(connect(moved).is_ok());
    until_within(ALL, "the last one has a status", || {
        let column = "--output=jsonpath={.status.conditions[?(@.type==\"Accepted\")].status}";
        namespace.kubectl(&["get", "pf", "f9999", column]).stdout == "True"
    });
    assert_eq!(round_trip(&mut session, b"two").expect("echo"), b"two");
    assert!(proxy.metric("portlane_operator_connected") > 0.0);
}
