//! Certificates change under open streams, and a new CA certificate reaches proxies long before it signs.

use harness::{FleetPod, Namespace, Scene, programs::KubernetesVersion, roots, until};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde_json::{Value, json};

#[test]
fn certificates_rotate_under_a_stream_that_stands_and_new_roots_come_over_it() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let Scene { namespace, operator, backend: _backend, proxy, .. } =
        Scene::ready_gateway_with(server.namespace("rotation"), &["--certificate-seconds", "8"]);

    // The serving certificate changes twice, at half of its eight seconds.
    let end = || operator.metric("portlane_operator_certificate_expiry_timestamp_seconds");
    for _ in 0..2 {
        let before = end();
        until("another serving certificate is in use", || end() > before);
    }
    let kept = proxy.path("roots.pem");
    let trusted = || std::fs::read_to_string(&kept).unwrap_or_default().matches("BEGIN CERTIFICATE").count();
    until("the proxy keeps the CA certificate", || trusted() == 1);

    // A successor of the CA is trusted at once, by proxies too, and does not sign yet.
    let given = roots(&namespace);
    add_root(&namespace);
    until("the proxy trusts both CA certificates", || trusted() == 2);
    assert!(std::fs::read_to_string(&kept).expect("kept").contains(given.trim()), "the old CA certificate stays");
    assert!(proxy.metric("portlane_operator_streams_total") < 2.0, "all of it over one stream");

    // Admitted: a proxy that restarts with both CA certificates on disk, and a new pod with the old one alone.
    let proxy = proxy.restarted();
    until("the restarted proxy follows", || proxy.metric("portlane_operator_connected") > 0.0);
    let pod = FleetPod::of_gateway(&namespace, "edge", "p2");
    let other = pod.proxy_trusting(&namespace, "edge", &operator, &given);
    until("a new pod with the old CA certificate follows", || other.metric("portlane_operator_connected") > 0.0);
}

/// Adds a second CA to the operator's Secret, as the operator does itself a year before the first one ends.
fn add_root(namespace: &Namespace<'_>) {
    let key = rcgen::KeyPair::generate().expect("key");
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&key).expect("certificate").pem();
    let secret = namespace.get::<Secret>("portlane-roots").expect("the Secret exists");
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
