//! An operator that meets objects of a newer release: they stay as they were, and say so.

use crds::PortForward;
use harness::{
    Backend, Behaviour, ControlPlane, FleetPod, Operator, connect, free_port, programs::KubernetesVersion, round_trip,
    until,
};

use super::{condition, forward, gateway, service, until_ready};

/// It has an API server of its own, as it changes the CRD.
#[test]
fn an_object_of_a_newer_crd_keeps_its_listeners_and_says_that_it_cannot_be_read() {
    let server = ControlPlane::start(KubernetesVersion::Newest);
    if server.is_existing() {
        return;
    }
    server.install_crds();
    let policies = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/listeners/items/properties/loadBalancing/\
                    properties/policy/enum/-";
    let patch = format!("[{{\"op\": \"add\", \"path\": \"{policies}\", \"value\": \"Nearest\"}}]");
    server.kubectl(&["patch", "crd", "portforwards.portlane.dev", "--type=json", "--patch", &patch]).ok();
    let namespace = server.namespace("newer");
    let operator = Operator::start(&namespace);
    let backend = Backend::reachable(Behaviour::Echo);
    let port = free_port();
    namespace.apply(&gateway("{replicas: 1}"));
    namespace.apply(&service("web", backend.port));
    for (name, port) in [("web", port), ("other", free_port())] {
        namespace.apply(&forward(name, port, "{service: {name: web, port: 80}}"));
    }
    let pod = FleetPod::of_gateway(&namespace, "edge", "p1");
    let proxy = pod.proxy(&namespace, "edge", &operator);
    pod.set_ready(&namespace, true);
    until_ready(&namespace, "web", "True", "Ready");

    let newer = || {
        let listener =
            "{\"op\": \"add\", \"path\": \"/spec/listeners/0/loadBalancing\", \"value\": {\"policy\": \"Nearest\"}}";
        namespace.kubectl(&["patch", "portforward", "web", "--type=json", "--patch", &format!("[{listener}]")]).success
    };
    until("the API server knows the new word", newer);
    let says_so = || {
        let raw = namespace.kubectl(&["get", "portforward", "web", "--output=json"]).ok();
        let raw: serde_json::Value = serde_json::from_str(&raw).expect("JSON");
        let conditions = raw["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted");
        accepted.is_some_and(|it| {
            it["reason"] == "Unsupported" && it["observedGeneration"] == raw["metadata"]["generation"]
        }) && raw["status"]["listeners"][0]["port"] == port
    };
    until("it says that it cannot be read", says_so);
    let speaks = || connect(port).and_then(|mut session| round_trip(&mut session, b"x")).is_ok();
    assert!(speaks(), "its listener goes on");

    // An operator that has never known it as it was says the same, and takes nothing away.
    let stream = operator.stream;
    drop(operator.program.kill());
    let _next = Operator::named(&namespace, "next", stream);
    until("the proxy follows the next one", || proxy.metric("portlane_operator_connected") > 0.0);
    namespace.apply(&forward("other", free_port(), "{service: {name: web, port: 80}}"));
    until_ready(&namespace, "other", "True", "Ready");
    assert!(speaks() && says_so(), "its listener still goes on");
    namespace.apply(&forward("web", port, "{service: {name: web, port: 80}}"));
    let read_again = namespace.until::<PortForward>("web", "can be read again", |web| {
        condition(web, "Accepted") == ("True".to_owned(), "Accepted".to_owned())
    });
    assert_eq!(read_again.spec.listeners[0].port, Some(port));
}
