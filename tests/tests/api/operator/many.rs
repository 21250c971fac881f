//! A thousand objects in one `kubectl apply`: all of them run, and another forward is not held up.
//!
//! The bench `operator-scale` has ten thousand forwards, and measures a change of one of them:
//! `cargo run --release -p portlane-benches --bin operator-scale`.

use std::{fmt::Write as _, time::Duration};

use crds::PortForward;
use harness::{Scene, connect, free_port, programs::KubernetesVersion, round_trip, until_within};

use super::{condition, forward, gateway, until_ready};

/// Forwards in the one apply.
const MANY: u16 = 1000;
/// Longest time until the operator has handled all of them.
const ALL: Duration = Duration::from_secs(120);

#[test]
fn a_thousand_forwards_in_one_apply_run_and_another_one_does_not_notice() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Oldest) else { return };
    let Scene { namespace, operator, backend: _backend, proxy, port, .. } =
        Scene::ready_gateway(server.namespace("many"));
    namespace
        .apply(&gateway("{replicas: 0, service: {maxPorts: 1000, type: None}}").replace("name: edge", "name: many"));
    let mut session = connect(port).expect("web listens");

    namespace.apply(&manifests(MANY));
    assert_eq!(round_trip(&mut session, b"one").expect("echo"), b"one");
    let known = || operator.metric("portlane_operator_forwards ");
    until_within(ALL, "the operator knows all forwards", || known() > f64::from(MANY));

    // The last of them has a verdict, and a change of the other forward does not wait for them.
    let moved = free_port();
    namespace.apply(&forward("web", moved, "{service: {name: web, port: 80}}"));
    until_ready(&namespace, "web", "True", "Ready");
    assert!(connect(moved).is_ok());
    let last = format!("f{}", MANY - 1);
    until_within(ALL, "the last forward has a status", || {
        namespace.get::<PortForward>(&last).is_some_and(|forward| condition(&forward, "Accepted").0 == "True")
    });
    assert_eq!(round_trip(&mut session, b"two").expect("echo"), b"two");
    assert!(proxy.metric("portlane_operator_connected") > 0.0);
}

/// Forwards of the gateway `many`, which has no proxy: their ports are not bound on this machine.
fn manifests(count: u16) -> String {
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
