//! The CA expired while the operator was scaled to zero: API servers and proxies trust nothing of it any longer. The next
//! operator makes another CA before it serves, and pods are injected from then on.

use std::time::{SystemTime, UNIX_EPOCH};

use harness::{Event, block_on, programs::KubernetesVersion, roots, until};
use k8s_openapi::{ByteString, api::admissionregistration::v1::MutatingWebhookConfiguration};
use kube::Api;
use serde_json::{Value, json};

use super::injection::{Webhook, carries, make, operator};

#[test]
fn an_operator_whose_ca_has_expired_makes_another_one_and_injects_pods_again() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("expired-ca");
    let expired = expired_ca();
    let certificate = expired["certificate"].as_str().expect("PEM");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "portlane-roots"},
        "stringData": {"roots.json": json!({"roots": [expired]}).to_string(), "ca.crt": certificate},
    });
    namespace.apply(&secret.to_string());
    // The configuration is from before, with the bundle of that CA.
    let before = Webhook::at(&namespace, "portlane", 1);
    let (name, bundle) = (Webhook::name(&namespace), ByteString(certificate.as_bytes().to_vec()));
    let entry = |at: u8| json!({"op": "add", "path": format!("/webhooks/{at}/clientConfig/caBundle"), "value": bundle});
    let patch = json!([entry(0), entry(1)]).to_string();
    server.kubectl(&["patch", "mutatingwebhookconfiguration", &name, "--type=json", "--patch", &patch]).ok();

    let operator = operator(&namespace, &[]);
    let api: Api<MutatingWebhookConfiguration> = Api::all(server.client());
    let configuration = block_on(async { api.get(&name).await }).expect("the configuration exists");
    for entry in configuration.webhooks.unwrap_or_default() {
        assert_ne!(entry.client_config.ca_bundle.as_ref(), Some(&bundle), "an operator that is ready is trusted");
    }
    assert!(!roots(&namespace).contains(certificate.trim()), "the expired certificate is gone");
    let says = |record: &Event| record["message"].as_str().is_some_and(|text| text.contains("CA expired while no"));
    until("the log says what happened", || operator.program.events().iter().filter(|it| says(it)).count() == 1);
    drop(before);
    let _webhook = Webhook::create(&namespace, "portlane", &operator);
    let asks = json!({"app": "shop", "portlane.dev/inject": "enabled"});
    assert!(carries(&make(&namespace, "shop", &asks, &json!({}))));
}

/// A CA certificate that expired a minute ago, as the operator keeps it.
fn expired_ca() -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
    let key = rcgen::KeyPair::generate().expect("key");
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&key).expect("certificate").pem();
    json!({"made": now - 5 * 365 * 24 * 3600, "end": now - 60, "certificate": certificate, "key": key.serialize_pem()})
}
