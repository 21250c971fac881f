//! A certificate of the user's own for the webhook, in a Secret: the API server trusts it, a change takes effect without
//! a restart, and what is wrong with it is reported.

use std::{net::TcpStream, time::Duration};

use harness::{Event, Namespace, Operator, free_port, presented, programs::KubernetesVersion, until};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::json;

use super::{injection::Webhook, own_address};

const SECRET: &str = "webhook-certificate";
/// The name by which the API server calls the webhook here.
const HOST: &str = "127.0.0.1";

/// A CA of the user.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Ca {
    fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a CA certificate").pem();
        Self { issuer: Issuer::new(parameters, key), certificate }
    }

    /// Puts a certificate for this name, which is valid until the end of this year, into the Secret.
    fn issue(&self, namespace: &Namespace<'_>, name: &str, year: i32) {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        (parameters.not_before, parameters.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(year, 12, 31));
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate").pem();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": SECRET},
            "stringData": {"tls.crt": certificate, "tls.key": key.serialize_pem(), "ca.crt": self.certificate},
        });
        namespace.apply(&secret.to_string());
    }

    /// Whether a new connection to the webhook is trusted.
    fn is_trusted(&self, port: u16) -> bool {
        let mut config = proxy_grpc::client_config(&self.certificate).expect("a CA certificate");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect((HOST, port)).expect("the webhook listens");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        presented(config, HOST.try_into().expect("a name"), stream).is_ok()
    }
}

#[test]
fn a_certificate_of_ones_own_serves_the_webhook_and_its_flaws_are_reported() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("serving");
    let ca = Ca::new();
    ca.issue(&namespace, HOST, 2090);
    let webhook = Webhook::name(&namespace);
    let options = ["--webhook", &webhook, "--serving-secret", SECRET, "--proxy-image", "example.com/proxy:1"];
    let operator = Operator::with(&namespace, &options);
    // Returns once the API server, which trusts the CA of the Secret, has had a pod injected.
    let _webhook = Webhook::create(&namespace, "portlane", &operator);
    assert!(ca.is_trusted(operator.webhook));
    let end = || operator.metric("portlane_operator_serving_certificate_expiry_timestamp_seconds");
    let checked = |result: &str| {
        operator.metric(&format!("portlane_operator_serving_certificate_checks_total{{result=\"{result}\"}}"))
    };
    assert!(checked("good") > 0.0 && end() > 0.0);

    let before = end();
    ca.issue(&namespace, HOST, 2091);
    until("a renewed certificate is served", || end() > before);
    assert!(ca.is_trusted(operator.webhook));
    ca.issue(&namespace, "elsewhere.example", 2091);
    until("a certificate for another name is reported", || checked("other_names") > 0.0);
    ca.issue(&namespace, HOST, 2025);
    until("an expired certificate is reported", || checked("expired") > 0.0);
    namespace.kubectl(&["delete", "secret", SECRET]).ok();
    until("a missing Secret is reported", || checked("missing") > 0.0);
    ca.issue(&namespace, HOST, 2092);
    until("the webhook is trusted again", || ca.is_trusted(operator.webhook));
}

#[test]
fn a_certificate_that_expired_while_no_operator_ran_is_reported_once_and_a_renewed_one_is_used() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("serving-expired");
    let ca = Ca::new();
    ca.issue(&namespace, HOST, 2025);
    let webhook = Webhook::name(&namespace);
    let options = ["--webhook", &webhook, "--serving-secret", SECRET, "--proxy-image", "example.com/proxy:1"];
    let operator = Operator::with(&namespace, &options);
    let says = |record: &&Event| {
        let text = record.to_string();
        text.contains(&format!("the certificate in Secret {SECRET} expired")) && text.contains("renew it")
    };
    let records = || operator.program.events().iter().filter(says).count();
    until("the log names the Secret and the remedy", || records() == 1);
    ca.issue(&namespace, HOST, 2090);
    // Returns once the API server, which trusts the CA of the Secret, has had a pod injected.
    let _webhook = Webhook::create(&namespace, "portlane", &operator);
    assert!(ca.is_trusted(operator.webhook));
    assert_eq!(records(), 1, "one record for one cause");
}

#[test]
fn the_aggregated_apis_have_an_endpoint_also_if_the_secret_has_no_ca_certificate() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("serving-without-ca");
    Ca::new().issue(&namespace, HOST, 2090);
    let patch = "--patch=[{\"op\": \"remove\", \"path\": \"/data/ca.crt\"}]";
    namespace.kubectl(&["patch", "secret", SECRET, "--type=json", patch]).ok();
    namespace
        .apply("{apiVersion: v1, kind: Service, metadata: {name: portlane-metrics}, spec: {ports: [{port: 443}]}}");
    let (address, own) = (format!("127.0.0.1:{}", free_port()), own_address().to_string());
    let options = ["--serving-secret", SECRET, "--custom-metrics-address", &address, "--pod-ips", &own];
    let _operator = Operator::with(&namespace, &options);
    until("the Service of the APIs leads to the operator", || {
        namespace.get::<EndpointSlice>("portlane-metrics").is_some()
    });
}
