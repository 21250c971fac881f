//! The Lease is deleted, the operator is killed, another operator starts: no session ends, and changes flow again.

use std::{fs, time::Duration};

use harness::{
    Backend, Behaviour, Operator, Scene, connect, echoes, programs::KubernetesVersion, round_trip, until, until_within,
};

use super::{forward, service, until_ready};

#[test]
fn a_new_leader_continues_where_the_old_one_was_killed() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let Scene { namespace, operator, backend: _backend, proxy, port, .. } =
        Scene::ready_gateway(server.namespace("outage"));
    let other = Backend::reachable(Behaviour::Echo);
    namespace.apply(&service("other", other.port));
    let configuration = proxy.path("configuration.json");
    until("the proxy keeps its configuration", || {
        fs::read_to_string(&configuration).is_ok_and(|text| text.contains("web"))
    });

    // The Lease is deleted: one term ends, another begins, and the proxy follows the new one.
    let streams = || proxy.metric("portlane_operator_streams_total");
    let before = streams();
    let mut session = connect(port).expect("web listens");
    namespace.kubectl(&["delete", "lease", "portlane-operator"]).ok();
    until("the proxy follows the new term", || streams() > before && proxy.metric("portlane_operator_connected") > 0.0);
    assert_eq!(round_trip(&mut session, b"lease").expect("echo"), b"lease");

    // A killed operator does not release its Lease.
    let stream = operator.killed(&namespace);
    until("the stream is gone", || proxy.metric("portlane_operator_connected") < 1.0);
    namespace.apply(&forward("web", port, "{service: {name: other, port: 80}}"));
    assert_eq!(round_trip(&mut session, b"alone").expect("echo"), b"alone");

    // The proxy is killed meanwhile: its successor serves the configuration that was kept.
    let proxy = proxy.restarted();
    until("the proxy serves without an operator", || echoes(port));
    assert_eq!(other.count(), 0, "no operator has sent the change");

    // Another operator waits until the Lease has lapsed, and then sends the change.
    let _next = Operator::named(&namespace, "next", stream);
    until_within(Duration::from_secs(40), "the change flows", || echoes(port) && other.count() > 0);
    until_ready(&namespace, "web", "True", "Ready");
    assert!(proxy.metric("portlane_operator_connected") > 0.0);
}
