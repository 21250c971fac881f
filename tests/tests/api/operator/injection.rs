//! The webhook: which pods get a proxy, what the others are told, and that nothing keeps a pod from being made.

use std::{
    thread,
    time::{Duration, Instant},
};

use harness::{ControlPlane, Namespace, Operator, free_port, programs::KubernetesVersion, until};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{condition, until_ready};

#[test]
fn pods_get_a_proxy_when_they_ask_or_a_forward_selects_them_and_the_others_are_told_of() {
    crate::server::with(KubernetesVersion::Oldest, story);
}

#[test]
fn the_certificate_of_the_webhook_rotates_unseen_and_an_operator_that_is_away_keeps_no_pod_from_being_made() {
    crate::server::with(KubernetesVersion::Newest, rotation);
}

/// The webhook as the chart makes it, for one namespace and an operator that is a process here.
struct Webhook<'a>(&'a Namespace<'a>);

impl<'a> Webhook<'a> {
    fn create(namespace: &'a Namespace<'a>, operator: &Operator) -> Self {
        let this = Self::at(namespace, operator.webhook);
        until("the leader has written the bundle", || Self::is_trusted(namespace));
        this
    }

    /// Whether API servers trust every entry.
    fn is_trusted(namespace: &Namespace<'_>) -> bool {
        let bundles = "--output=jsonpath={.webhooks[*].clientConfig.caBundle}";
        let name = Self::name(namespace);
        namespace.kubectl(&["get", "mutatingwebhookconfiguration", &name, bundles]).ok().split(' ').count() == 2
    }

    /// The same for whoever listens on this port, whether it is trusted yet or not.
    fn at(namespace: &'a Namespace<'a>, port: u16) -> Self {
        let here = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": [namespace.name()]});
        let ask = "portlane.dev/inject";
        let entry = |by: &str, object: Value, more: Value| {
            json!({
                "name": format!("{by}.inject.portlane.dev"),
                "clientConfig": {"url": format!("https://127.0.0.1:{port}/inject")},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
                "objectSelector": {"matchExpressions": [object]},
                "namespaceSelector": {"matchExpressions": [here, more]},
                "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 5, "failurePolicy": "Ignore",
                "reinvocationPolicy": "IfNeeded",
            })
        };
        let by_pod = entry("pod", json!({"key": ask, "operator": "In", "values": ["enabled"]}), here.clone());
        let by_namespace = entry(
            "namespace",
            json!({"key": ask, "operator": "DoesNotExist"}),
            json!({"key": ask, "operator": "In", "values": ["enabled"]}),
        );
        let webhook = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": Self::name(namespace)}, "webhooks": [by_pod, by_namespace],
        });
        namespace.apply(&webhook.to_string());
        Self(namespace)
    }

    fn name(namespace: &Namespace<'_>) -> String {
        format!("portlane-{}", namespace.name())
    }
}

impl Drop for Webhook<'_> {
    fn drop(&mut self) {
        self.0.kubectl(&["delete", "mutatingwebhookconfiguration", &Self::name(self.0)]);
    }
}

fn operator(namespace: &Namespace<'_>, more: &[&str]) -> Operator {
    let name = Webhook::name(namespace);
    Operator::with(namespace, &[&["--webhook", &name, "--proxy-image", "example.com/proxy:1"], more].concat())
}

/// Makes a pod, which must be accepted, and gives what it became.
fn make(namespace: &Namespace<'_>, name: &str, labels: &Value, spec: &Value) -> Pod {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app"}]},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    namespace.kubectl_with(&["create", "-f", "-"], &pod.to_string()).ok();
    namespace.get::<Pod>(name).expect("it was made")
}

fn carries(pod: &Pod) -> bool {
    let containers = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
    let ours = containers.into_iter().flatten().filter(|container| {
        container.name == "portlane-proxy" && container.restart_policy.as_deref() == Some("Always")
    });
    ours.count() == 1
}

fn forward(name: &str, app: &str) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, spec: {{placement: {{sidecar: \
         {{selector: {{matchLabels: {{app: {app}}}}}}}}}, listeners: [{{name: tcp, protocol: TCP, port: {}, backends: \
         [{{local: {{port: 80}}}}]}}]}}}}",
        free_port()
    )
}

fn story(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("injection");
    let operator = operator(&namespace, &[]);
    let _webhook = Webhook::create(&namespace, &operator);
    let none = json!({});
    let asks = |app: &str| json!({"app": app, "portlane.dev/inject": "enabled"});

    // By the pod's own label, whether there is a forward or not; and never twice.
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
        "a label that comes late is none"
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

    // A pod that cannot have a proxy is made without one, and the forward says why.
    let host = make(&namespace, "host", &asks("host"), &json!({"hostNetwork": true}));
    assert!(!carries(&host));
    namespace.apply(&forward("host", "host"));
    assert!(message(&namespace, "host", "NotInjected").contains("hostNetwork"));
    assert!(operator.metric("portlane_operator_injections_total{result=\"injected\"}") >= 2.0);
    assert!(operator.metric("portlane_operator_injections_total{result=\"refused\"}") >= 1.0);
}

/// What `Injected` says of a forward, once it has this reason.
fn message(namespace: &Namespace<'_>, name: &str, reason: &str) -> String {
    let forward = namespace.until::<crds::PortForward>(name, &format!("Injected for {reason}"), |forward| {
        condition(forward, "Injected").1 == reason
    });
    let conditions = forward.status.expect("a status").conditions;
    conditions.into_iter().find(|it| it.type_ == "Injected").expect("there").message
}

fn rotation(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("injection-rotation");
    // As helm does it, the configuration is there when the operator starts: that is ready only when it is trusted.
    let early = Webhook::at(&namespace, 1);
    let operator = operator(&namespace, &["--certificate-seconds", "8"]);
    assert!(Webhook::is_trusted(&namespace), "pods made from now on carry a proxy");
    drop(early);
    let _webhook = Webhook::create(&namespace, &operator);
    let asks = json!({"portlane.dev/inject": "enabled"});
    let end = || operator.metric("portlane_operator_certificate_end_seconds");
    let (first, mut made) = (end(), 0);
    let deadline = Instant::now() + Duration::from_secs(50);
    // Until the third certificate is in use.
    while end() < first + 8.0 {
        assert!(Instant::now() < deadline, "certificates rotate");
        assert!(carries(&make(&namespace, &format!("p{made}"), &asks, &json!({}))), "pod {made} has none");
        made += 1;
        thread::park_timeout(Duration::from_millis(100));
    }
    assert!(made > 5);
    drop(operator);
    let started = Instant::now();
    assert!(!carries(&make(&namespace, "alone", &asks, &json!({}))), "nobody could give it one");
    assert!(started.elapsed() < Duration::from_secs(20), "and it was not held up for long");
}
