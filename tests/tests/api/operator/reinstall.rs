//! The operator is installed anew, with other roots: proxies that are there go on and say that they do not trust it, those
//! that are started from then on do.

use harness::{
    Backend, Behaviour, ControlPlane, FleetPod, Operator, connect, free_port, programs::KubernetesVersion, roots,
    round_trip, until, until_within,
};
use k8s_openapi::api::apps::v1::Deployment;
use std::time::Duration;

use super::{forward, gateway, service, until_ready};

#[test]
fn an_operator_that_is_installed_anew_gets_its_fleets_back() {
    crate::server::with(KubernetesVersion::Newest, story);
}

fn story(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("reinstall");
    let operator = Operator::start(&namespace);
    let backend = Backend::reachable(Behaviour::Echo);
    let port = free_port();
    namespace.apply(&gateway("{replicas: 1}"));
    namespace.apply(&service("web", backend.port));
    namespace.apply(&forward("web", port, "{service: {name: web, port: 80}}"));
    let pod = FleetPod::of_gateway(&namespace, "edge", "p1");
    let old = pod.proxy(&namespace, "edge", &operator);
    pod.set_ready(&namespace, true);
    until_ready(&namespace, "web", "True", "Ready");
    let before = roots(&namespace);

    // All that the operator had is gone with its namespace.
    let stream = operator.stream;
    drop(operator.program.kill());
    namespace.kubectl(&["delete", "secret/portlane-roots", "lease/portlane-operator"]).ok();
    let operator = Operator::named(&namespace, "anew", stream);
    let after = roots(&namespace);
    assert_ne!(before, after);
    let said = old.program.wait("operator", "127.0.0.1");
    assert!(said["message"].as_str().is_some_and(|text| text.contains("what runs goes on")), "{said}");
    let mut session = connect(port).expect("it goes on");
    assert_eq!(round_trip(&mut session, b"old").expect("echo"), b"old");

    // The fleet is rolled over: its new pods are told of the new roots.
    namespace.until::<Deployment>("edge", "has the new roots", |deployment| {
        serde_json::to_string(&deployment.spec).is_ok_and(|spec| {
            let certificate = after.lines().nth(1).expect("a line of base64");
            spec.contains(certificate)
        })
    });
    let next = FleetPod::of_gateway(&namespace, "edge", "p2");
    namespace.kubectl(&["delete", "pod", "p1", "--grace-period=0", "--force"]).ok();
    drop(old);
    let proxy = next.proxy(&namespace, "edge", &operator);
    next.set_ready(&namespace, true);
    until_within(Duration::from_secs(60), "the new proxy follows", || {
        proxy.metric("portlane_operator_connected") > 0.0
    });
    until_ready(&namespace, "web", "True", "Ready");
    until("it serves", || connect(port).and_then(|mut session| round_trip(&mut session, b"new")).is_ok());
}
