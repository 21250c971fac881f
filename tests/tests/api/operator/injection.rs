//! The webhook: which pods get a proxy, what the others are told, and that nothing keeps a pod from being made.

use std::{
    collections::BTreeSet,
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use harness::{ControlPlane, Namespace, Operator, free_port, programs::KubernetesVersion, roots, until};
use k8s_openapi::api::core::v1::Pod;
use rustix::process::Signal;
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

/// The webhook that the chart makes, for some namespaces and an operator that is a process here.
struct Webhook<'a>(&'a Namespace<'a>);

impl<'a> Webhook<'a> {
    fn create(namespace: &'a Namespace<'a>, installed_in: &str, operator: &Operator) -> Self {
        let this = Self::at(namespace, installed_in, operator.webhook);
        until("the leader has written the bundle", || Self::is_trusted(namespace));
        this
    }

    /// Whether API servers trust every entry.
    fn is_trusted(namespace: &Namespace<'_>) -> bool {
        let bundles = "--output=jsonpath={.webhooks[*].clientConfig.caBundle}";
        let name = Self::name(namespace);
        namespace.kubectl(&["get", "mutatingwebhookconfiguration", &name, bundles]).ok().split(' ').count() == 2
    }

    /// The same for whoever listens on this port, whether it is trusted yet or not, of a chart that is installed in this
    /// namespace.
    fn at(namespace: &'a Namespace<'a>, installed_in: &str, port: u16) -> Self {
        let template = ["template", "portlane", "charts/portlane", "--namespace", installed_in];
        let only = ["--show-only", "templates/webhook.yaml", "--kube-version", "1.34.0"];
        let made = namespace.cluster().helm(&[&template[..], &only].concat()).ok();
        let mut webhook: Value = serde_yaml::from_str(&made).expect("YAML");
        webhook["metadata"]["name"] = json!(Self::name(namespace));
        let here = json!({
            "key": "kubernetes.io/metadata.name", "operator": "In", "values": [namespace.name(), installed_in],
        });
        let entries = webhook["webhooks"].as_array_mut().expect("entries");
        assert_eq!(entries.len(), 2, "selectors of one entry are ANDed");
        for entry in entries {
            entry["clientConfig"] = json!({"url": format!("https://127.0.0.1:{port}/inject")});
            // Other tests have webhooks of their own.
            let selectors = entry["namespaceSelector"]["matchExpressions"].as_array_mut().expect("selectors");
            selectors.push(here.clone());
        }
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

const IMAGE: [&str; 2] = ["--proxy-image", "example.com/proxy:1"];

fn operator(namespace: &Namespace<'_>, more: &[&str]) -> Operator {
    let name = Webhook::name(namespace);
    Operator::with(namespace, &[&["--webhook", &name], &IMAGE[..], more].concat())
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
    let own = server.namespace("injection-own");
    let _webhook = Webhook::create(&namespace, own.name(), &operator);
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

    // The operator's own namespace is left alone, whatever its pods ask for.
    assert!(!carries(&make(&own, "own", &asks("shop"), &none)));

    // A pod that cannot have a proxy is made without one, and the forward says why.
    let host = make(&namespace, "host", &asks("host"), &json!({"hostNetwork": true}));
    assert!(!carries(&host));
    namespace.apply(&forward("host", "host"));
    assert!(message(&namespace, "host", "NotInjected").contains("hostNetwork"));
    assert!(operator.metric("portlane_operator_injections_total{result=\"injected\"}") >= 2.0);
    assert!(operator.metric("portlane_operator_injections_total{result=\"refused\"}") >= 1.0);

    // A replica that does not lead answers as well, and knows what forwards select.
    let standby = Operator::standby(&namespace, &[&["--webhook", &Webhook::name(&namespace)], &IMAGE[..]].concat());
    let _webhook = Webhook::at(&namespace, own.name(), standby.webhook);
    until("the API server asks the other replica", || {
        make(&namespace, &format!("try-{}", free_port()), &json!({"app": "blog"}), &none);
        standby.metric("portlane_operator_injections_total{result=\"injected\"}") > 0.0
    });
    assert!(carries(&make(&namespace, "by-the-standby", &json!({"app": "blog"}), &none)));
    assert!(standby.metric("portlane_operator_leader") < 1.0, "it does not lead");
}

/// What `Injected` says of a forward, once it has this reason.
fn message(namespace: &Namespace<'_>, name: &str, reason: &str) -> String {
    let forward = namespace.until::<crds::PortForward>(name, &format!("Injected for {reason}"), |forward| {
        condition(forward, "Injected").1 == reason
    });
    let conditions = forward.status.expect("a status").conditions;
    conditions.into_iter().find(|it| it.type_ == "Injected").expect("there").message
}

/// The certificate that the webhook shows to a new connection, which trusts these roots.
fn leaf(port: u16, roots: &str) -> Vec<u8> {
    let mut config = proxy_grpc::client_config(roots).expect("roots");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = proxy_grpc::SERVER_NAME.try_into().expect("a name");
    let mut session = rustls::ClientConnection::new(Arc::new(config), name).expect("a session");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    while session.is_handshaking() {
        session.complete_io(&mut stream).expect("it is trusted");
    }
    session.peer_certificates().expect("certificates")[0].to_vec()
}

fn rotation(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("injection-rotation");
    // As helm does it, the configuration is there when the operator starts: that is ready only when it is trusted.
    let early = Webhook::at(&namespace, "portlane", 1);
    let operator = operator(&namespace, &["--certificate-seconds", "8"]);
    assert!(Webhook::is_trusted(&namespace), "pods made from now on carry a proxy");
    drop(early);
    let _webhook = Webhook::create(&namespace, "portlane", &operator);
    let asks = json!({"portlane.dev/inject": "enabled"});
    let end = || operator.metric("portlane_operator_certificate_end_seconds");
    let (first, mut made, mut leaves) = (end(), 0, BTreeSet::new());
    let trusted = roots(&namespace);
    let deadline = Instant::now() + Duration::from_secs(50);
    // Until the third certificate is in use.
    while end() < first + 8.0 {
        assert!(Instant::now() < deadline, "certificates rotate");
        assert!(carries(&make(&namespace, &format!("p{made}"), &asks, &json!({}))), "pod {made} has none");
        // The API server goes on with a connection that it has; another one would see this.
        leaves.insert(leaf(operator.webhook, &trusted));
        made += 1;
        thread::park_timeout(Duration::from_millis(100));
    }
    leaves.insert(leaf(operator.webhook, &trusted));
    assert!(made > 5 && leaves.len() >= 3, "{made} pods, {} certificates", leaves.len());
    // One that hangs holds a pod up for as long as the chart says, and no longer.
    operator.program.signal(Signal::STOP);
    let started = Instant::now();
    assert!(!carries(&make(&namespace, "patient", &asks, &json!({}))), "nobody answers");
    let took = started.elapsed();
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(20), "{took:?}");
    drop(operator);
    let started = Instant::now();
    assert!(!carries(&make(&namespace, "alone", &asks, &json!({}))), "nobody could give it one");
    assert!(started.elapsed() < Duration::from_secs(20), "and it was not held up for long");
}
