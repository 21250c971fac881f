//! Certificates change while streams stand, and new roots reach proxies long before they sign.

use harness::{
    Backend, Behaviour, ControlPlane, FleetPod, Operator, free_port, programs::KubernetesVersion, roots, until,
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde_json::{Value, json};

use super::{forward, gateway, service, until_ready};

#[test]
fn certificates_rotate_under_a_stream_that_stands_and_new_roots_come_over_it() {
    crate::server::with(KubernetesVersion::Newest, story);
}

fn story(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("rotation");
    let operator = Operator::with(&namespace, &["--certificate-seconds", "8"]);
    let backend = Backend::reachable(Behaviour::Echo);
    namespace.apply(&gateway("{replicas: 1}"));
    namespace.apply(&service("web", backend.port));
    namespace.apply(&forward("web", free_port(), "{service: {name: web, port: 80}}"));
    let pod = FleetPod::of_gateway(&namespace, "edge", "p1");
    let proxy = pod.proxy(&namespace, "edge", &operator);
    pod.set_ready(&namespace, true);
    until_ready(&namespace, "web", "True", "Ready");

    let end = || operator.metric("portlane_operator_certificate_end_seconds");
    for _ in 0..2 {
        let before = end();
        until("another certificate is in use", || end() > before);
    }
    let kept = proxy.path("roots.pem");
    let trusted = || std::fs::read_to_string(&kept).unwrap_or_default().matches("BEGIN CERTIFICATE").count();
    until("the roots are kept", || trusted() == 1);

    // A successor is trusted at once, by proxies too, and does not sign yet.
    let given = roots(&namespace);
    add_root(&namespace);
    until("the proxy has both roots", || trusted() == 2);
    assert!(std::fs::read_to_string(&kept).expect("kept").contains(given.trim()), "the old one stays");
    assert!(proxy.metric("portlane_operator_streams_total") < 2.0, "all over one stream");

    // A proxy that starts with the old root alone is let in, and one that starts anew with both on its disk.
    let proxy = proxy.restarted();
    until("it follows again", || proxy.metric("portlane_operator_connected") > 0.0);
    let again = FleetPod::of_gateway(&namespace, "edge", "p2");
    let other = again.proxy_trusting(&namespace, "edge", &operator, &given);
    until("a new pod with the old root follows", || other.metric("portlane_operator_connected") > 0.0);
}

/// Puts a second root into the operator's Secret, as it does itself a year before the first one ends.
fn add_root(namespace: &harness::Namespace<'_>) {
    let key = rcgen::KeyPair::generate().expect("key");
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&key).expect("certificate").pem();
    let secret = namespace.get::<Secret>("portlane-roots").expect("there");
    let ByteString(content) = secret.data.expect("data").remove("roots.json").expect("roots");
    let mut content: Value = serde_json::from_slice(&content).expect("JSON");
    let mut successor = content["roots"][0].clone();
    let made = successor["made"].as_u64().expect("a time") + 1;
    successor["made"] = made.into();
    successor["certificate"] = certificate.into();
    successor["key"] = key.serialize_pem().into();
    content["roots"].as_array_mut().expect("a list").push(successor);
    let patch = json!({"stringData": {"roots.json": content.to_string()}}).to_string();
    namespace.kubectl(&["patch", "secret", "portlane-roots", "--type=merge", "--patch", &patch]).ok();
}
