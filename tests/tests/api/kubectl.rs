//! `kubectl-portlane` against a real API server: an installation that is well or broken, forwards that are not ready, and
//! users without rights.

mod bad_input;
mod forwarding;
mod live;

use std::{
    path::Path,
    process::{Child, Command},
};

use harness::{
    Cluster, ControlPlane, Namespace, Scene, binary, free_port,
    programs::KubernetesVersion,
    scene::{forward, own_address, until_ready},
    until,
};
use serde_json::{Value, json};

/// What the plugin printed, and its exit code.
struct Output {
    text: String,
    errors: String,
    code: Option<i32>,
}

fn run(kubeconfig: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("kubectl-portlane"));
    let output = command.env("KUBECONFIG", kubeconfig).args(arguments).output().expect("the plugin runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { text: text(&output.stdout), errors: text(&output.stderr), code: output.status.code() }
}

/// A plugin that runs until the end of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The status of an installation in this namespace, as an administrator sees it.
fn status(namespace: &Namespace<'_>, more: &[&str]) -> Output {
    let place = ["status", "-n", namespace.name(), "--operator-namespace", namespace.name()];
    run(namespace.cluster().kubeconfig(), &[&place[..], more].concat())
}

/// What the chart installs in a namespace, until the end of the test. No controller runs: the test says that the
/// Deployment is available, and which endpoint its Service has.
struct Installed<'a> {
    cluster: &'a Cluster,
    manifests: String,
}

impl<'a> Installed<'a> {
    fn apply(cluster: &'a Cluster, namespace: &Namespace<'_>) -> Self {
        let only_here = format!("watchNamespaces={{{}}}", namespace.name());
        let chart = ["template", "portlane", "charts/portlane", "--namespace", namespace.name()];
        let templates =
            ["serviceaccount", "service", "deployment", "webhook"].map(|name| format!("templates/{name}.yaml"));
        let templates: Vec<&str> = templates.iter().flat_map(|template| ["--show-only", template.as_str()]).collect();
        let values = ["--kube-version", "1.34.0", "--set", only_here.as_str(), "--set", "liveApi.enabled=false"];
        let manifests = cluster.helm(&[&chart[..], &values[..], &templates[..]].concat()).ok();
        cluster.kubectl_with(&["apply", "-f", "-"], &manifests).ok();
        set_available(namespace, 2);
        set_ready(namespace, true);
        Self { cluster, manifests }
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "--ignore-not-found", "-f", "-"];
        self.cluster.kubectl_with(&delete, &self.manifests);
    }
}

/// Writes the number of replicas of the operator that are available.
fn set_available(namespace: &Namespace<'_>, replicas: i32) {
    let status = json!({"replicas": 2, "readyReplicas": replicas, "availableReplicas": replicas});
    let status = json!({"status": status}).to_string();
    let patch = ["patch", "deployment", "portlane-operator", "--subresource=status", "--type=merge", "-p"];
    namespace.kubectl(&[&patch[..], &[status.as_str()]].concat()).ok();
}

/// A pod whose sidecar runs another image than the operator gives to new pods.
const OLD_SIDECAR: &str = "{apiVersion: v1, kind: Pod, metadata: {name: old, labels: {portlane.dev/proxy: sidecar}}, spec: \
    {serviceAccountName: edge, automountServiceAccountToken: false, containers: [{name: app, image: none}, {name: \
    portlane-proxy, image: 'example.com/proxy:0.0.9'}]}}";

/// Writes the endpoint of the operator's Service.
fn set_ready(namespace: &Namespace<'_>, ready: bool) {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "portlane-operator-1", "labels": {"kubernetes.io/service-name": "portlane-operator"}},
        "addressType": "IPv4",
        "ports": [{"name": "webhook", "port": 9444, "protocol": "TCP"}],
        "endpoints": [{"addresses": [own_address()], "conditions": {"ready": ready}}],
    });
    namespace.apply(&slice.to_string());
}

#[test]
fn status_is_well_and_then_names_what_is_broken() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("kubectl-status");
    let _installed = Installed::apply(server, &namespace);
    let webhook = format!("portlane-operator.{}", namespace.name());
    let scene = Scene::ready_gateway_with(namespace, &["--webhook", &webhook]);
    let namespace = &scene.namespace;
    until("the status is well", || status(namespace, &[]).code == Some(0));
    let Output { text, errors, .. } = status(namespace, &[]);
    assert_eq!(errors, "");
    for line in ["✓ CRDs", "✓ operator", "✓ version", "✓ leader", "✓ Service", "✓ webhook", "✓ sidecars"]
    {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colours are for terminals only: {text}");
    let read = || serde_json::from_str::<Value>(&status(namespace, &["-o", "json"]).text).expect("JSON");
    until("the forward has its address", || read()["forwards"][0]["addresses"] != json!([]));
    let report = read();
    assert_eq!(report["forwards"][0]["name"], "web", "{report}");
    assert_eq!(report["forwards"][0]["proxies"], json!({"acked": 1, "total": 1}), "{report}");
    let yaml: Value = serde_yaml::from_str(&status(namespace, &["-o", "yaml"]).text).expect("YAML");
    assert_eq!(yaml["forwards"], report["forwards"]);

    a_broken_installation_names_its_cause(namespace);

    server.kubectl(&["delete", "mutatingwebhookconfiguration", &webhook]).ok();
    let Output { text, code, .. } = status(namespace, &[]);
    assert_eq!(code, Some(1), "{text}");
    for part in ["× webhook", "helm upgrade portlane charts/portlane", "× Service", "2 checks have failed"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

/// An old sidecar, an operator of another version or that is down, and a webhook that nobody answers, one after the other.
fn a_broken_installation_names_its_cause(namespace: &Namespace<'_>) {
    let names = |outcome: i32, parts: &[&str]| {
        let Output { text, code, .. } = status(namespace, &[]);
        assert_eq!(code, Some(outcome), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    };
    namespace.apply(OLD_SIDECAR);
    let old = format!("1 of 1 run another image than the operator gives to new pods: {}/old", namespace.name());
    names(0, &["! sidecars", &old, "kubectl rollout restart"]);
    namespace.kubectl(&["delete", "pod", "old"]).ok();

    let version = |text: &str| {
        let label = format!("app.kubernetes.io/version={text}");
        namespace.kubectl(&["label", "deployment", "portlane-operator", &label, "--overwrite"]).ok();
    };
    version("9.9.9");
    let own = env!("CARGO_PKG_VERSION");
    names(0, &["! version", &format!("the operator is 9.9.9, and this program is {own}")]);
    version(own);

    set_available(namespace, 0);
    let look = format!("kubectl --namespace {} describe deployment portlane-operator", namespace.name());
    names(1, &["× operator", "has 0 of 2 replicas available", &look]);
    set_available(namespace, 2);

    set_ready(namespace, false);
    names(1, &["× Service", "get endpointslices", "× webhook", "no operator answers it", "rollout restart"]);
}

#[test]
fn describe_names_the_step_at_which_a_forward_stops() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let scene = Scene::ready_gateway(server.namespace("kubectl-describe"));
    let namespace = &scene.namespace;
    let describe = |name: &str, more: &[&str]| {
        let words = [&["describe", name, "-n", namespace.name()], more].concat();
        run(namespace.cluster().kubeconfig(), &words)
    };
    let Output { text, code, .. } = describe("web", &[]);
    assert_eq!(code, Some(0), "{text}");
    for part in ["✓ object", "✓ claims", "✓ backends", "✓ endpoints", "✓ proxies", "1 endpoint is ready"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }

    namespace.apply(&forward("db", free_port(), "{service: {name: missing, port: 80}}"));
    until_ready(namespace, "db", "False", "BackendNotFound");
    let Output { text, code, .. } = describe("db", &[]);
    assert_eq!(code, Some(0), "{text}");
    for part in ["× Ready", "see backends below", "× backends", "BackendNotFound", "the Service does not exist"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let report: Value = serde_json::from_str(&describe("db", &["-o", "json"]).text).expect("JSON");
    assert_eq!((&report["name"], &report["ready"]["outcome"]), (&json!("db"), &json!("Failed")), "{report}");

    let Output { errors, code, .. } = describe("dbb", &[]);
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("/dbb does not exist; did you mean db?"), "{errors}");
    let words = ["trace", "web", "-n", namespace.name(), "--from", "app", "--listener", "tcpp"];
    let Output { errors, code, .. } = run(namespace.cluster().kubeconfig(), &words);
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.ends_with("/web has no listener tcpp: its listeners are tcp; did you mean tcp?\n"), "{errors}");
}

#[test]
fn a_user_without_rights_is_told_which_right_is_missing() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("kubectl-rights");
    namespace.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: reader}}");
    namespace.kubectl(&["create", "role", "reader", "--verb=get,list", "--resource=portforwards.portlane.dev"]).ok();
    let account = format!("--serviceaccount={}:reader", namespace.name());
    namespace.kubectl(&["create", "rolebinding", "reader", "--role=reader", &account]).ok();
    namespace.apply(crate::FORWARD);
    let folder = tempfile::tempdir().expect("folder");
    let kubeconfig = namespace.kubeconfig_of("reader", folder.path());
    let name = namespace.name();
    let status = || run(&kubeconfig, &["status", "-n", name, "--operator-namespace", name]);
    // The authorizer follows the binding a moment later.
    until("the forward is listed", || status().text.contains("\n  ! "));
    let Output { text, code, .. } = status();
    assert_eq!(code, Some(3), "{text}");
    for resource in ["deployments.apps", "pods", "forwardgateways.portlane.dev", "forwardagents.portlane.dev"] {
        let line = format!("cannot list {resource} in namespace {name}: ask for `list` on `{resource}`");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }

    let Output { text, code, .. } = run(&kubeconfig, &["describe", "db", "-n", name]);
    assert_eq!(code, Some(3), "{text}");
    for line in [
        format!("cannot get services in namespace {name}: ask for `get` on `services`"),
        format!("cannot list pods in namespace {name}: ask for `list` on `pods`"),
        format!("cannot list events in namespace {name}: ask for `list` on `events`"),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }

    let Output { errors, code, .. } = run(&kubeconfig, &["describe", "db", "-n", "default"]);
    assert_eq!(code, Some(3), "{errors}");
    let right =
        "cannot get portforwards.portlane.dev in namespace default: ask for `get` on `portforwards.portlane.dev`";
    assert!(errors.contains(right), "{errors}");
}

#[test]
fn a_cluster_without_the_crds_fails_with_the_chart_to_install() {
    if !crate::server::ours(&["etcd", "kube-apiserver"]) {
        return;
    }
    let server = ControlPlane::start_own(KubernetesVersion::Newest, false);
    let Output { text, code, .. } = run(server.kubeconfig(), &["status"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("× CRDs") && text.contains("install the chart portlane-crds"), "{text}");
    assert!(text.contains("× operator") && text.contains("install the chart portlane,"), "{text}");
    for words in [
        &["describe", "db"][..],
        &["trace", "db", "--from", "app"],
        &["logs", "db"],
        &["conns"],
        &["lag"],
        &["top", "--once"],
        &["drain", "db", "--yes"],
        &["forward", "pf/db"],
    ] {
        let Output { errors, code, .. } = run(server.kubeconfig(), words);
        assert_eq!(code, Some(2), "{words:?}: {errors}");
        let is_named = errors.contains("the CRDs are missing; install the chart portlane-crds");
        assert!(is_named, "{words:?}: {errors}");
    }
}

#[test]
fn a_run_of_nothing_is_one_line_that_says_so() {
    let Some(server) = crate::server::shared(KubernetesVersion::Newest) else { return };
    let Output { errors, code, .. } = run(server.kubeconfig(), &["run", "-f", "/dev/null"]);
    assert_eq!((code, errors.lines().count()), (Some(2), 1), "{errors}");
    assert!(errors.contains("no PortForward in /dev/null: nothing to run"), "{errors}");
}

#[test]
fn what_cannot_be_forwarded_is_refused_with_its_reason() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("kubectl-forward");
    namespace.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: dns}, spec: {selector: {app: dns}, ports: [{name: dns, port: 53, \
         protocol: UDP}, {name: tcp, port: 8053}]}}",
    );
    let name = namespace.name();
    let refused = |kubeconfig: &Path, words: &[&str], code: i32, part: &str| {
        let output = run(kubeconfig, &[&["forward", "-n", name], words].concat());
        assert_eq!(output.code, Some(code), "{words:?}: {}", output.errors);
        assert!(output.errors.contains(part), "{words:?}: {part} is not in {}", output.errors);
    };
    for (words, part) in [
        (&["svc/dns", "53/udp"][..], "the API server forwards TCP only"),
        (&["svc/dns", "53"][..], "port 53 of svc/dns is not TCP, and the API server forwards TCP only"),
        (&["svc/dns", "80"][..], "svc/dns has no TCP port 80: it has 8053 (tcp)"),
        (&["svc/dnss", "53"][..], "Service NAMESPACE/dnss does not exist; did you mean dns?"),
        (&["pod/nosuch", "80"][..], "Pod NAMESPACE/nosuch does not exist"),
        (&["pf/nosuch"][..], "PortForward NAMESPACE/nosuch does not exist"),
        (&["dns", "53"][..], "write svc/dns, pod/dns, deploy/dns or pf/dns"),
    ] {
        refused(server.kubeconfig(), words, 2, &part.replace("NAMESPACE", name));
    }
    namespace.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: forwarder}}");
    namespace.kubectl(&["create", "role", "forwarder", "--verb=get,list,watch", "--resource=services"]).ok();
    let account = format!("--serviceaccount={name}:forwarder");
    namespace.kubectl(&["create", "rolebinding", "forwarder", "--role=forwarder", &account]).ok();
    let user = format!("system:serviceaccount:{name}:forwarder");
    // The authorizer follows the binding a moment later.
    until("the binding counts", || namespace.kubectl(&["auth", "can-i", "watch", "services", "--as", &user]).success);
    let folder = tempfile::tempdir().expect("folder");
    let kubeconfig = namespace.kubeconfig_of("forwarder", folder.path());
    let right = format!(
        "cannot list endpointslices.discovery.k8s.io in namespace {name}: ask for `list` on `endpointslices.discovery.k8s.io`"
    );
    refused(&kubeconfig, &["svc/dns", "8053"], 3, &right);
}
