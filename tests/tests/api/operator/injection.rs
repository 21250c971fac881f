//! The webhook: which pods get a proxy, what status says of uninjected pods, and that no failure keeps a pod from being
//! created.

use std::{
    collections::BTreeSet,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use harness::{Namespace, Operator, block_on, free_port, presented, programs::KubernetesVersion, roots, until};
use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Pod};
use kube::{Api, api::PostParams};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{condition, until_ready};

/// The chart's webhook configuration, for some namespaces and an operator that is a process of this machine.
pub(super) struct Webhook<'a>(&'a Namespace<'a>);

impl<'a> Webhook<'a> {
    pub(super) fn create(namespace: &'a Namespace<'a>, installed_in: &str, operator: &Operator) -> Self {
        let this = Self::at(namespace, installed_in, operator.webhook);
        until("the leader has written the CA bundle", || Self::is_trusted(namespace));
        // The API server follows its own configuration a moment later.
        until("the API server calls the webhook", || {
            let labels = json!({"app": "try", "portlane.dev/inject": "enabled"});
            carries(&make(namespace, &format!("try-{}", free_port()), &labels, &json!({})))
        });
        this
    }

    /// Whether every entry has a CA bundle.
    fn is_trusted(namespace: &Namespace<'_>) -> bool {
        let api: Api<MutatingWebhookConfiguration> = Api::all(namespace.cluster().client());
        let name = Self::name(namespace);
        let configuration = block_on(async { api.get(&name).await }).expect("the configuration exists");
        let entries = configuration.webhooks.unwrap_or_default();
        entries.len() == 2
            && entries
                .iter()
                .all(|entry| entry.client_config.ca_bundle.as_ref().is_some_and(|bundle| !bundle.0.is_empty()))
    }

    /// A configuration of a chart installed in that namespace, for a webhook on this port, with or without a CA bundle
    /// yet.
    pub(super) fn at(namespace: &'a Namespace<'a>, installed_in: &str, port: u16) -> Self {
        let template = ["template", "portlane", "charts/portlane", "--namespace", installed_in];
        let only = ["--show-only", "templates/webhook.yaml", "--kube-version", "1.34.0"];
        let made = namespace.cluster().helm(&[&template[..], &only].concat()).ok();
        let mut webhook: Value = serde_yaml::from_str(&made).expect("YAML");
        webhook["metadata"]["name"] = json!(Self::name(namespace));
        let here = json!({
            "key": "kubernetes.io/metadata.name", "operator": "In", "values": [namespace.name(), installed_in],
        });
        let entries = webhook["webhooks"].as_array_mut().expect("entries");
        assert_eq!(entries.len(), 2, "selectors of one entry are ANDed, so there are two entries");
        for entry in entries {
            entry["clientConfig"] = json!({"url": format!("https://127.0.0.1:{port}/inject")});
            // Other tests have webhooks of their own.
            let selectors = entry["namespaceSelector"]["matchExpressions"].as_array_mut().expect("selectors");
            selectors.push(here.clone());
        }
        namespace.apply(&webhook.to_string());
        Self(namespace)
    }

    pub(super) fn name(namespace: &Namespace<'_>) -> String {
        format!("portlane-{}", namespace.name())
    }
}

impl Drop for Webhook<'_> {
    fn drop(&mut self) {
        self.0.kubectl(&["delete", "mutatingwebhookconfiguration", &Self::name(self.0)]);
    }
}

const IMAGE: [&str; 2] = ["--proxy-image", "example.com/proxy:1"];

pub(super) fn operator(namespace: &Namespace<'_>, more: &[&str]) -> Operator {
    let name = Webhook::name(namespace);
    Operator::with(namespace, &[&["--webhook", &name], &IMAGE[..], more].concat())
}

/// Creates a pod, which must be accepted, and gives the pod with what the webhook added.
pub(super) fn make(namespace: &Namespace<'_>, name: &str, labels: &Value, spec: &Value) -> Pod {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app"}]},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    let (pods, pod) = (namespace.api::<Pod>(), serde_json::from_value::<Pod>(pod).expect("a Pod"));
    let created = block_on(async { pods.create(&PostParams::default(), &pod).await });
    created.unwrap_or_else(|error| panic!("pod {name} is refused: {error}"))
}

pub(super) fn carries(pod: &Pod) -> bool {
    let containers = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
    let ours = containers.into_iter().flatten().filter(|container| {
        container.name == "portlane-proxy" && container.restart_policy.as_deref() == Some("Always")
    });
    ours.count() == 1
}

pub(super) fn forward(name: &str, app: &str) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, spec: {{placement: {{sidecar: \
         {{selector: {{matchLabels: {{app: {app}}}}}}}}}, listeners: [{{name: tcp, protocol: TCP, port: {}, backends: \
         [{{local: {{port: 80}}}}]}}]}}}}",
        free_port()
    )
}

#[test]
fn pods_are_injected_by_label_or_by_a_forward_and_uninjected_pods_are_reported() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Oldest) else { return };
    let namespace = server.namespace("injection");
    let operator = operator(&namespace, &[]);
    let own = server.namespace("injection-own");
    let _webhook = Webhook::create(&namespace, own.name(), &operator);
    let none = json!({});
    let asks = |app: &str| json!({"app": app, "portlane.dev/inject": "enabled"});

    // By the pod's own label, with or without a forward; and never twice.
    assert!(carries(&make(&namespace, "early", &asks("shop"), &none)));
    assert!(!carries(&make(&namespace, "plain", &json!({"app": "blog"}), &none)));
    namespace.apply(&forward("shop", "shop"));
    namespace.apply(&forward("blog", "blog"));
    let blog = until_ready(&namespace, "blog", "True", "NoSidecars");
    assert_eq!(condition(&blog, "Injected"), ("False".to_owned(), "NotInjected".to_owned()));
    namespace.kubectl(&["label", "pod", "plain", "portlane.dev/inject=enabled"]).ok();
    assert_eq!(
        message(&namespace, "blog", "NotInjected").matches("plain").count(),
        1,
        "a label that is added later does not count"
    );

    // By the namespace's label, if a forward selects the pod.
    let label = ["label", "namespace", namespace.name(), "portlane.dev/inject=enabled"];
    namespace.cluster().kubectl(&label).ok();
    until("the API server sees the label", || {
        let name = format!("try-{}", free_port());
        carries(&make(&namespace, &name, &json!({"app": "blog"}), &none))
    });
    assert!(!carries(&make(&namespace, "other", &json!({"app": "other"}), &none)), "no forward selects it");
    let refuses = json!({"app": "blog", "portlane.dev/inject": "disabled"});
    assert!(!carries(&make(&namespace, "refuses", &refuses, &none)));

    // Pods of the operator's own namespace are never injected.
    assert!(!carries(&make(&own, "own", &asks("shop"), &none)));

    // A pod that cannot have a proxy is created uninjected, and the forward says why.
    let host = make(&namespace, "host", &asks("host"), &json!({"hostNetwork": true}));
    assert!(!carries(&host));
    namespace.apply(&forward("host", "host"));
    assert!(message(&namespace, "host", "NotInjected").contains("hostNetwork"));
    assert!(operator.metric("portlane_operator_injections_total{result=\"injected\"}") >= 2.0);
    assert!(operator.metric("portlane_operator_injections_total{result=\"refused\"}") >= 1.0);

    // A replica that does not lead serves the webhook too, and knows the forwards.
    let standby = Operator::standby(&namespace, &[&["--webhook", &Webhook::name(&namespace)], &IMAGE[..]].concat());
    let _webhook = Webhook::at(&namespace, own.name(), standby.webhook);
    until("the API server asks the other replica", || {
        make(&namespace, &format!("try-{}", free_port()), &json!({"app": "blog"}), &none);
        standby.metric("portlane_operator_injections_total{result=\"injected\"}") > 0.0
    });
    assert!(carries(&make(&namespace, "by-the-standby", &json!({"app": "blog"}), &none)));
    assert!(standby.metric("portlane_operator_leader") < 1.0, "the standby does not lead");
}

/// The message of `Injected`, once the condition has this reason.
pub(super) fn message(namespace: &Namespace<'_>, name: &str, reason: &str) -> String {
    let forward = namespace.until::<crds::PortForward>(name, &format!("Injected for {reason}"), |forward| {
        condition(forward, "Injected").1 == reason
    });
    let conditions = forward.status.expect("a status").conditions;
    conditions.into_iter().find(|it| it.type_ == "Injected").expect("the condition").message
}

/// The serving certificate of the webhook, on a new connection that trusts these CA certificates.
fn leaf(port: u16, roots: &str) -> Vec<u8> {
    let mut config = proxy_grpc::client_config(roots).expect("roots");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = proxy_grpc::SERVER_NAME.try_into().expect("a name");
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the webhook listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    presented(config, name, stream).expect("the certificate is trusted")
}

#[test]
fn the_certificate_of_the_webhook_rotates_unnoticed_and_an_operator_that_is_down_blocks_no_pod() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("injection-rotation");
    // helm creates the configuration before the operator starts. The operator is ready only once it has a CA bundle.
    let early = Webhook::at(&namespace, "portlane", 1);
    let operator = operator(&namespace, &["--certificate-seconds", "8"]);
    assert!(Webhook::is_trusted(&namespace), "pods created from now on carry a proxy");
    drop(early);
    let _webhook = Webhook::create(&namespace, "portlane", &operator);
    let asks = json!({"portlane.dev/inject": "enabled"});
    let end = || operator.metric("portlane_operator_certificate_end_seconds");
    let (first, mut made, mut leaves) = (end(), 0, BTreeSet::new());
    let trusted = roots(&namespace);
    let deadline = Instant::now() + Duration::from_secs(50);
    // Pods are created until the third serving certificate is in use.
    while end() < first + 8.0 {
        assert!(Instant::now() < deadline, "certificates rotate");
        assert!(carries(&make(&namespace, &format!("p{made}"), &asks, &json!({}))), "pod {made} has no proxy");
        // The API server keeps its connection; a new connection sees this certificate.
        leaves.insert(leaf(operator.webhook, &trusted));
        made += 1;
        thread::park_timeout(Duration::from_millis(100));
    }
    leaves.insert(leaf(operator.webhook, &trusted));
    assert!(made > 5 && leaves.len() >= 3, "{made} pods, {} certificates", leaves.len());
    // An operator that hangs delays a pod for the timeout of the chart, and no longer.
    operator.program.signal(Signal::STOP);
    let started = Instant::now();
    assert!(!carries(&make(&namespace, "patient", &asks, &json!({}))), "no webhook answers");
    let took = started.elapsed();
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(20), "{took:?}");
    drop(operator);
    let started = Instant::now();
    assert!(!carries(&make(&namespace, "alone", &asks, &json!({}))), "no webhook is reachable");
    assert!(started.elapsed() < Duration::from_secs(20), "a webhook that is away hardly delays a pod");
}
