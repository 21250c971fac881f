//! Only the pod of the token gets its configuration.

use std::io::{Read, Write};

use harness::{Backend, Behaviour, ControlPlane, FleetPod, FleetProxy, Operator, connect, free_port, roots, until};

use super::{forward, gateway, service, until_ready};

on_both!(only_the_pod_of_a_good_token_gets_its_configuration);

fn only_the_pod_of_a_good_token_gets_its_configuration(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("identity");
    let operator = Operator::start(&namespace);
    let backend = Backend::reachable(Behaviour::Echo);
    let port = free_port();
    namespace.apply(&gateway("{replicas: 1}"));
    namespace.apply(&service("web", backend.port));
    namespace.apply(&forward("web", port, "{service: {name: web, port: 80}}"));
    let pod = FleetPod::of_gateway(&namespace, "edge", "p1");
    let refused =
        |reason: &str| operator.metric(&format!("portlane_operator_streams_refused_total{{reason=\"{reason}\"}}"));

    // A token for another audience, a token that is no token, and garbage instead of TLS.
    let bundle = roots(&namespace);
    let wrong_audience = FleetProxy::start(&pod.token(&namespace, "edge", "vault"), &bundle, operator.stream);
    let no_token = FleetProxy::start("nonsense", &bundle, operator.stream);
    until("both are refused", || refused("identity") >= 2.0);
    let mut garbage = connect(operator.stream).expect("the operator listens");
    garbage.write_all(&[0x16, 0x03, 0xff, 0xff, 0xff, 0, 1, 2, 3]).expect("written");
    let _ = garbage.read(&mut [0; 64]);

    // A pod is deleted and created again with the same name: the old token belongs to the old pod.
    let old = pod.token(&namespace, "edge", "portlane-operator");
    namespace.kubectl(&["delete", "pod", "p1", "--grace-period=0", "--force"]).ok();
    let pod = FleetPod::of_gateway(&namespace, "edge", "p1");
    let deleted_pod = FleetProxy::start(&old, &bundle, operator.stream);
    until("the token of the old pod is refused", || refused("identity") + refused("unknown_pod") >= 3.0);

    // A pod with the labels of the fleet and another ServiceAccount is refused, and so is one with the label of neither
    // a fleet nor a sidecar.
    let labels = serde_json::json!({"portlane.dev/proxy": "gateway", "portlane.dev/gateway": "edge"});
    namespace.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: imposter}}");
    let imposter = FleetPod::create(&namespace, "imposter", "imposter", &labels);
    let imposter = imposter.proxy(&namespace, "imposter", &operator);
    until("the imposter is refused", || refused("unexpected_pod") >= 1.0);
    drop(imposter.stopped());
    let before = refused("unexpected_pod");
    let other = FleetPod::create(&namespace, "other", "imposter", &serde_json::json!({"portlane.dev/proxy": "x"}));
    let other = other.proxy(&namespace, "imposter", &operator);
    until("the other pod is refused", || refused("unexpected_pod") > before);

    // A proxy that trusts another CA reports so and keeps running.
    let wrong_ca = FleetProxy::start(&old, &other_root(), operator.stream);
    until("the operator is not trusted", || wrong_ca.metric("portlane_operator_failures_total") >= 1.0);
    let event = wrong_ca.program.wait("operator", "127.0.0.1");
    assert!(event["message"].as_str().is_some_and(|text| text.contains("UnknownIssuer")), "{event}");

    // The proxy with the right token is not affected.
    let proxy = pod.proxy(&namespace, "edge", &operator);
    pod.set_ready(&namespace, true);
    until_ready(&namespace, "web", "True", "Ready");
    assert!(proxy.is_ready() && !wrong_audience.is_ready() && !no_token.is_ready());
    assert!(!deleted_pod.is_ready() && !other.is_ready());
}

fn other_root() -> String {
    let key = rcgen::KeyPair::generate().expect("key");
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.self_signed(&key).expect("certificate").pem()
}
