//! The operator dies, its Lease is deleted, another one comes: no session ends, and changes flow again.

use harness::{
    Backend, Behaviour, ControlPlane, FleetPod, Operator, connect, free_port, programs::KubernetesVersion, round_trip,
    until, until_within,
};
use std::time::Duration;

use super::{forward, gateway, service, until_ready};

#[test]
fn a_new_leader_goes_on_where_the_old_one_was_killed() {
    crate::server::with(KubernetesVersion::Newest, story);
}

fn story(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("outage");
    let operator = Operator::start(&namespace);
    let (one, two) = (Backend::reachable(Behaviour::Echo), Backend::reachable(Behaviour::Echo));
    let port = free_port();
    namespace.apply(&gateway("{replicas: 1}"));
    namespace.apply(&service("web", one.port));
    namespace.apply(&service("other", two.port));
    namespace.apply(&forward("web", port, "{service: {name: web, port: 80}}"));
    let pod = FleetPod::of_gateway(&namespace, "edge", "p1");
    let proxy = pod.proxy(&namespace, "edge", &operator);
    pod.set_ready(&namespace, true);
    until_ready(&namespace, "web", "True", "Ready");
    let configuration = proxy.path("configuration.json");
    until("the configuration is kept", || {
        std::fs::read_to_string(&configuration).is_ok_and(|text| text.contains("web"))
    });

    // The Lease is deleted: a term ends, another one begins, the proxy follows it.
    let streams = || proxy.metric("portlane_operator_streams_total");
    let before = streams();
    let mut session = connect(port).expect("it listens");
    namespace.kubectl(&["delete", "lease", "portlane-operator"]).ok();
    until("the proxy follows the new term", || streams() > before && proxy.metric("portlane_operator_connected") > 0.0);
    assert_eq!(round_trip(&mut session, b"lease").expect("echo"), b"lease");

    // Killed, it gives nothing back: the next one waits until the Lease has lapsed.
    let stream = operator.stream;
    drop(operator.program.kill());
    until("the stream is gone", || proxy.metric("portlane_operator_connected") < 1.0);
    namespace.apply(&forward("web", port, "{service: {name: other, port: 80}}"));
    assert_eq!(round_trip(&mut session, b"alone").expect("echo"), b"alone");

    // The proxy is killed meanwhile: the next one serves what was kept.
    let proxy = proxy.restarted();
    until("it serves without an operator", || {
        connect(port).and_then(|mut session| round_trip(&mut session, b"kept")).is_ok()
    });
    assert_eq!(two.count(), 0, "nobody could tell it of the change");
    let _next = Operator::named(&namespace, "next", stream);
    until_within(Duration::from_secs(40), "the change flows", || {
        connect(port).and_then(|mut session| round_trip(&mut session, b"new")).is_ok() && two.count() > 0
    });
    until_ready(&namespace, "web", "True", "Ready");
    assert!(proxy.metric("portlane_operator_connected") > 0.0);
}
