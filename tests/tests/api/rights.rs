//! What the chart grants to the operator: exactly these rights, which are enough for its work. Of a pod, the operator may
//! change only the deletion cost.

mod policies;

use crds::ForwardGateway;
use harness::{
    Backend, Behaviour, Cluster, ControlPlane, Fleet, Namespace, Operator, free_port,
    programs::KubernetesVersion,
    scene::{forward, gateway, service, until_ready},
    until,
};
use k8s_openapi::{ByteString, api::autoscaling::v2::HorizontalPodAutoscaler};
use serde::Deserialize;
use serde_json::{Value, json};

on_both!(
    a_patch_of_a_pod_by_the_operator_changes_its_deletion_cost_and_nothing_else,
    a_patch_of_the_webhook_by_the_operator_changes_ca_bundles_and_nothing_else,
);

fn render(cluster: &Cluster, installed_in: &str, template: &str, values: &[&str]) -> String {
    let file = format!("templates/{template}.yaml");
    let chart = ["template", "portlane", "charts/portlane", "--namespace", installed_in, "--kube-version", "1.34.0"];
    cluster.helm(&[&chart[..], &["--show-only", &file], values].concat()).ok()
}

/// Templates of the chart, applied until the end of the test.
pub(crate) struct Chart<'a> {
    namespace: &'a Namespace<'a>,
    manifests: String,
}

impl<'a> Chart<'a> {
    pub(crate) fn apply(namespace: &'a Namespace<'a>, templates: &[&str], values: &[&str]) -> Self {
        let template = |name: &&str| render(namespace.cluster(), namespace.name(), name, values);
        let manifests = templates.iter().map(template).collect::<Vec<_>>().join("\n---\n");
        namespace.cluster().kubectl_with(&["apply", "-f", "-"], &manifests).ok();
        let chart = Self { namespace, manifests };
        until("the API server knows the rights", || {
            let knows_api_server = !chart.manifests.contains("-api-server")
                || chart.can(&["list", "services/kubernetes", "--namespace", "default"]);
            chart.can(&["list", "portforwards.portlane.dev"])
                && chart.can(&["get", "leases/portlane-operator"])
                && knows_api_server
        });
        chart
    }

    /// The user name of the operator.
    fn account(&self) -> String {
        format!("system:serviceaccount:{}:portlane-operator", self.namespace.name())
    }

    /// Whether the operator may do this: verb, resource, options of `kubectl auth can-i`.
    fn can(&self, what: &[&str]) -> bool {
        self.namespace.kubectl(&[&["auth", "can-i", "--as", &self.account()], what].concat()).success
    }
}

impl Drop for Chart<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "--ignore-not-found", "-f", "-"];
        self.namespace.cluster().kubectl_with(&delete, &self.manifests);
    }
}

fn a_patch_of_a_pod_by_the_operator_changes_its_deletion_cost_and_nothing_else(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("rights-pods");
    namespace.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: shop, labels: {app: shop}, annotations: {note: a, \
         portlane.dev/app-ports: 80/TCP}, finalizers: [example.com/hold]}, spec: {containers: [{name: app, image: app}]}}",
    );
    let chart = Chart::apply(&namespace, &["serviceaccount", "rbac", "pod-patch-policy"], &[]);
    let account = chart.account();
    let patch = |patch: &Value| {
        let patch = patch.to_string();
        namespace.kubectl(&["patch", "pod", "shop", "--type=merge", "--patch", &patch, "--as", &account])
    };
    // The API server enforces a new policy a moment later.
    until("a change of a label is refused", || {
        !patch(&json!({"metadata": {"labels": {"try": free_port().to_string()}}})).success
    });
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    for (changed, allowed) in [
        (json!({"annotations": {cost: "5"}}), true),
        (json!({"annotations": {cost: "7"}}), true),
        (json!({"annotations": {cost: null}}), true),
        // The webhook writes these into new pods; what the operator reads of a pod is not the operator's to change.
        (json!({"annotations": {cost: "7", "portlane.dev/injection-problem": "none"}}), false),
        (json!({"annotations": {"portlane.dev/app-ports": null}}), false),
        (json!({"annotations": {"note": "b"}}), false),
        (json!({"annotations": {"note": null}}), false),
        (json!({"annotations": {"note": null, cost: "1"}}), false),
        (json!({"annotations": {"example.com/new": "x"}}), false),
        (json!({"annotations": null}), false),
        (json!({"labels": {"app": "other"}}), false),
        (json!({"labels": null}), false),
        (json!({"finalizers": null}), false),
        (json!({"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}]}), false),
    ] {
        let output = patch(&json!({"metadata": changed}));
        assert_eq!(output.success, allowed, "{changed}: {}", output.stderr);
        assert!(allowed || output.stderr.contains("the operator may"), "{changed}: {}", output.stderr);
    }
    let image = patch(&json!({"spec": {"containers": [{"name": "app", "image": "other"}]}})).refused();
    assert!(image.contains("the operator may not change the spec of a pod"), "{image}");
    let deadline = patch(&json!({"spec": {"activeDeadlineSeconds": 1}})).refused();
    assert!(deadline.contains("the operator may not change the spec of a pod"), "{deadline}");

    rbac_refuses_everything_else(&chart);
    // The policy concerns nobody else.
    namespace.kubectl(&["label", "pod", "shop", "app=other", "--overwrite"]).ok();
    let release = r#"{"metadata": {"finalizers": null}}"#;
    namespace.kubectl(&["patch", "pod", "shop", "--type=merge", "--patch", release]).ok();
}

fn rbac_refuses_everything_else(chart: &Chart<'_>) {
    assert!(chart.can(&["patch", "pods"]));
    for what in [
        &["update", "pods"][..],
        &["create", "pods"],
        &["delete", "pods"],
        &["patch", "pods", "--subresource=status"],
        &["create", "pods", "--subresource=exec"],
        &["create", "pods", "--subresource=binding"],
        &["list", "secrets"],
        &["get", "secrets/other"],
        &["delete", "deployments.apps"],
        &["create", "networkpolicies.networking.k8s.io"],
        &["get", "portforwards.portlane.dev"],
        &["patch", "portforwards.portlane.dev"],
    ] {
        assert!(!chart.can(what), "{what:?}");
    }
}

fn a_patch_of_the_webhook_by_the_operator_changes_ca_bundles_and_nothing_else(server: &ControlPlane) {
    let namespace = server.namespace("rights-webhook");
    // Pods of other tests are none of this webhook's business.
    let only_here = format!("watchNamespaces={{{}}}", namespace.name());
    let templates = ["serviceaccount", "rbac", "webhook", "webhook-patch-policy"];
    let chart = Chart::apply(&namespace, &templates, &["--set", &only_here]);
    let (account, name) = (chart.account(), format!("portlane-operator.{}", namespace.name()));
    let patch = |operation: &Value| {
        let patch = json!([operation]).to_string();
        server.kubectl(&["patch", "mutatingwebhookconfiguration", &name, "--type=json", "-p", &patch, "--as", &account])
    };
    until("a change of a label is refused", || {
        !patch(&json!({"op": "add", "path": "/metadata/labels/try", "value": free_port().to_string()})).success
    });
    let key = rcgen::KeyPair::generate().expect("key");
    let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate").pem();
    let bundle =
        json!({"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": ByteString(certificate.into())});
    patch(&bundle).ok();
    for operation in [
        json!({"op": "replace", "path": "/webhooks/0/clientConfig", "value": {"url": "https://192.0.2.1/"}}),
        json!({"op": "replace", "path": "/webhooks/0/clientConfig/service/namespace", "value": "default"}),
        json!({"op": "replace", "path": "/webhooks/0/rules/0/resources", "value": ["*"]}),
        json!({"op": "replace", "path": "/webhooks/0/objectSelector", "value": {}}),
        json!({"op": "replace", "path": "/webhooks/0/namespaceSelector", "value": {}}),
        json!({"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}),
        json!({"op": "replace", "path": "/webhooks/0/timeoutSeconds", "value": 30}),
        json!({"op": "add", "path": "/webhooks/0/matchConditions", "value": [{"name": "x", "expression": "false"}]}),
        json!({"op": "remove", "path": "/webhooks/1"}),
        json!({"op": "remove", "path": "/webhooks"}),
    ] {
        let refused = patch(&operation).refused();
        assert!(refused.contains("denied request"), "{operation}: {refused}");
    }
    assert!(!chart.can(&["patch", "mutatingwebhookconfigurations/other"]));
    assert!(!chart.can(&["create", "mutatingwebhookconfigurations"]));
}

/// The rights of the rendered roles, one for each resource of a rule: scope, resource with its names, verbs.
fn rights(server: &ControlPlane, values: &[&str]) -> Vec<String> {
    let mut rights = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&render(server, "portlane", "rbac", values)) {
        let role = Value::deserialize(document).expect("YAML");
        let scope = role["metadata"]["namespace"].as_str().unwrap_or("cluster");
        for rule in role["rules"].as_array().into_iter().flatten() {
            let words = |field: &str| -> Vec<&str> {
                rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
            };
            let group = words("apiGroups").join(",");
            let group = if group.is_empty() { group } else { format!("{group}/") };
            let names: Vec<String> = words("resourceNames").into_iter().map(|name| format!(" {name}")).collect();
            let names = names.concat();
            for resource in words("resources") {
                rights.push(format!("{scope}: {group}{resource}{names}: {}", words("verbs").join(", ")));
            }
        }
    }
    rights.sort();
    rights
}

/// The rights that no value takes away: without fleets, HPAs, deletion costs and injection.
const LEAST: [&str; 17] = [
    "cluster: authentication.k8s.io/tokenreviews: create",
    "cluster: discovery.k8s.io/endpointslices: list, watch",
    "cluster: events.k8s.io/events: create, patch",
    "cluster: gateway.networking.k8s.io/referencegrants: list, watch",
    "cluster: namespaces: list, watch",
    "cluster: pods: list, watch",
    "cluster: portlane.dev/forwardagents/status: patch",
    "cluster: portlane.dev/forwardagents: list, watch",
    "cluster: portlane.dev/forwardgateways/status: patch",
    "cluster: portlane.dev/forwardgateways: list, watch",
    "cluster: portlane.dev/portforwards/status: patch",
    "cluster: portlane.dev/portforwards: list, watch",
    "cluster: services: list, watch",
    "portlane: coordination.k8s.io/leases portlane-operator: get, update",
    "portlane: coordination.k8s.io/leases: create",
    "portlane: secrets portlane-roots: get, update",
    "portlane: secrets: create",
];

/// The rights of injection, deletion costs and HPAs.
const OTHERS: [&str; 7] = [
    "cluster: admissionregistration.k8s.io/mutatingwebhookconfigurations portlane-operator.portlane: get, patch",
    "cluster: apps/deployments: get",
    "cluster: apps/replicasets: get",
    "cluster: apps/statefulsets: get",
    "cluster: autoscaling/horizontalpodautoscalers: get, list, watch, create, patch, delete",
    "cluster: pods: get, patch",
    "cluster: portlane.dev/portforwards/finalizers: update",
];

/// The rights of the live API.
const LIVE: [&str; 3] = [
    "cluster: apiregistration.k8s.io/apiservices v1alpha1.live.portlane.dev: get, patch",
    "portlane: discovery.k8s.io/endpointslices portlane-metrics portlane-metrics-ipv6: create, patch",
    "portlane: services portlane-metrics: get",
];

/// The rights of fleets, in a scope.
const FLEETS: [&str; 6] = [
    "apps/deployments: get, list, watch, create, patch",
    "networking.k8s.io/networkpolicies: get, list, watch, delete",
    "policy/poddisruptionbudgets: get, list, watch, create, patch",
    "portlane.dev/forwardgateways/finalizers: update",
    "serviceaccounts: get, list, watch, create, patch",
    "services: get, create, patch, delete",
];

/// The rights in the namespace of the API server's Service, if that is not watched.
const API_SERVER: [&str; 2] =
    ["default: discovery.k8s.io/endpointslices kubernetes: list, watch", "default: services kubernetes: list, watch"];

/// The rights of fleets with claims.
const CLAIMS: [&str; 3] = [
    "cluster: apps/statefulsets: get, list, watch, create, patch",
    "cluster: batch/jobs: list, watch, create, delete",
    "cluster: persistentvolumeclaims: list, watch, delete",
];

// RBAC
#[test]
fn the_operator_has_these_rights_and_no_others() {
    let Some(server) = crate::server::shared(KubernetesVersion::Newest) else { return };
    let sorted = |parts: &[&[&str]], fleets: &[&str]| {
        let scoped = fleets.iter().flat_map(|scope| FLEETS.iter().map(move |right| format!("{scope}: {right}")));
        let mut all: Vec<String> = parts.concat().into_iter().map(str::to_owned).chain(scoped).collect();
        all.sort();
        all
    };
    assert_eq!(rights(server, &[]), sorted(&[&LEAST, &OTHERS, &LIVE], &["cluster"]));
    let nothing = "gateways.enabled=false,autoscaling.enabled=false,deletionCost.enabled=false,injection.enabled=false,\
                   liveApi.enabled=false";
    assert_eq!(rights(server, &["--set", nothing]), sorted(&[&LEAST], &[]));
    let claims = rights(server, &["--set", "claims.enabled=true"]);
    assert_eq!(claims, sorted(&[&LEAST, &OTHERS, &LIVE, &CLAIMS], &["cluster"]));
    let some = rights(server, &["--set", "gateways.namespaces={edge,dmz}"]);
    assert_eq!(some, sorted(&[&LEAST, &OTHERS, &LIVE], &["edge", "dmz"]));

    // With a list of namespaces, tokens, the webhook and the APIService are all that is cluster-wide.
    let watched = rights(server, &["--set", "watchNamespaces={a,b},gateways.namespaces={b}"]);
    assert_eq!(watched.iter().filter(|right| right.starts_with("cluster: ")).count(), 3, "{watched:?}");
    let accounts: Vec<&String> = watched.iter().filter(|right| right.contains("serviceaccounts")).collect();
    assert_eq!(accounts, ["b: serviceaccounts: get, list, watch, create, patch"]);
    let api_server: Vec<&String> = watched.iter().filter(|right| right.starts_with("default: ")).collect();
    assert_eq!(api_server, API_SERVER);
    let policies = rights(server, &["--set-json", r#"networkPolicy.fleets={"enabled": true, "from": [{}]}"#]);
    let expected = "cluster: networking.k8s.io/networkpolicies: get, list, watch, delete, create, patch";
    assert!(policies.iter().any(|right| right == expected), "{policies:?}");
    let metrics = rights(server, &["--set", "customMetrics.enabled=true,liveApi.enabled=false"]);
    let expected = [LIVE[0].replace("v1alpha1.live.portlane.dev", "v1beta2.custom.metrics.k8s.io"), LIVE[1].to_owned()];
    assert!(expected.iter().all(|expected| metrics.contains(expected)), "{metrics:?}");
    let tunnels = rights(server, &["--set", "tunnels.enabled=true,tunnels.namespaces={homes}"]);
    let expected = ["portlane: secrets portlane-tunnel-roots: get, update", "homes: secrets: get, create, update"];
    assert!(expected.iter().all(|expected| tunnels.iter().any(|right| right == expected)), "{tunnels:?}");
}

/// Asserts that the API server has refused the operator nothing.
pub(crate) fn was_refused_nothing(operator: &Operator) {
    let events = operator.program.events();
    let refused = events.iter().find(|event| event.to_string().to_lowercase().contains("forbidden"));
    assert!(refused.is_none(), "{refused:?}");
    assert!(operator.metric("portlane_operator_events_total{result=\"failed\"}") < 1.0, "an Event was refused");
}

#[test]
fn the_rights_of_a_namespace_are_enough_for_a_gateway_that_forwards_and_scales() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("rights-fleet");
    let values = format!("watchNamespaces={{{}}}", namespace.name());
    let _chart = Chart::apply(&namespace, &["serviceaccount", "rbac"], &["--set", &values]);
    let operator = Operator::with_account(&namespace, "portlane-operator", &[]);
    let fleet = Fleet::of(&namespace, operator, "{service: {type: None}}");
    let (backend, port) = (Backend::reachable(Behaviour::Echo), free_port());
    namespace.apply(&service("web", backend.port));
    namespace.apply(&forward("web", port, "{service: {name: web, port: 80}}"));
    until_ready(&namespace, "web", "True", "Ready");
    namespace.apply(&gateway("{autoscaling: {maxReplicas: 3, targetConnectionsPerPod: 9}}"));
    namespace.until::<HorizontalPodAutoscaler>("edge", "exists", |_| true);
    namespace.apply(&gateway("{replicas: 1}"));
    namespace.until_gone::<HorizontalPodAutoscaler>("edge");
    let kept = gateway("{durability: {volumeClaim: {size: 1Gi}}}").replace("name: edge", "name: kept");
    namespace.apply(&kept);
    namespace.until::<ForwardGateway>("kept", "has no fleet", |gateway| {
        let mut conditions = gateway.status.iter().flat_map(|status| &status.conditions);
        conditions.any(|condition| condition.reason == "FleetsNotPermitted")
    });
    was_refused_nothing(&fleet.operator);
}

#[test]
fn an_operator_without_rights_for_fleets_and_hpas_is_ready_and_reports_gateways() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Oldest) else { return };
    let namespace = server.namespace("rights-none");
    let watched = format!("watchNamespaces={{{}}}", namespace.name());
    let off = "gateways.enabled=false,autoscaling.enabled=false,deletionCost.enabled=false";
    let _chart = Chart::apply(&namespace, &["serviceaccount", "rbac"], &["--set", &watched, "--set", off]);
    let options = ["--fleet-namespaces", "", "--autoscaling", "false", "--deletion-cost", "false"];
    let operator = Operator::with_account(&namespace, "portlane-operator", &options);
    namespace.apply(&gateway("{autoscaling: {maxReplicas: 3, targetConnectionsPerPod: 9}}"));
    namespace.until::<ForwardGateway>("edge", "has neither fleet nor HPA", |gateway| {
        let conditions = gateway.status.iter().flat_map(|status| &status.conditions);
        let reasons: Vec<&str> = conditions.map(|condition| condition.reason.as_str()).collect();
        reasons.contains(&"FleetsNotPermitted") && reasons.contains(&"AutoscalingOff")
    });
    was_refused_nothing(&operator);
}
