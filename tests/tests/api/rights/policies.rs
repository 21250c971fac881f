//! What the API server refuses the operator although RBAC cannot: to touch claims, Jobs and `StatefulSet`s that are not of
//! a gateway, and to write Secrets that are neither those of agents nor its own. Every write here is a dry run, which
//! policies judge, too.

use harness::{CommandOutput, ControlPlane, Namespace, until};
use serde_json::{Value, json};

use super::Chart;

on_both!(
    the_operator_deletes_claims_and_jobs_of_gateways_and_changes_their_stateful_sets_and_no_others,
    the_operator_writes_secrets_of_agents_and_its_own_and_no_others,
);

/// Claims and Jobs, and whether the operator may delete them: kind, name, labels.
const DELETED: [(&str, &str, &str, bool); 8] = [
    ("PersistentVolumeClaim", "messages-edge-1", "{OURS, portlane.dev/gateway: edge}", true),
    ("PersistentVolumeClaim", "messages-edge-2", "{portlane.dev/gateway: edge}", false),
    ("PersistentVolumeClaim", "messages-edge-3", "{OURS}", false),
    ("PersistentVolumeClaim", "data-db-0", "{OURS, portlane.dev/gateway: edge}", false),
    ("PersistentVolumeClaim", "data-db-1", "{}", false),
    ("Job", "edge-drain-1", "{OURS, portlane.dev/drains: edge}", true),
    ("Job", "edge-drain-2", "{portlane.dev/drains: edge}", false),
    ("Job", "backup", "{OURS}", false),
];

/// An object of [`DELETED`] as a manifest.
fn manifest((kind, name, labels, _): (&str, &str, &str, bool)) -> String {
    let labels = labels.replace("OURS", "app.kubernetes.io/managed-by: portlane-operator");
    let (version, spec) = match kind {
        "Job" => ("batch/v1", "{template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}"),
        _ => ("v1", "{accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}"),
    };
    format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}, labels: {labels}}}, spec: {spec}}}")
}

/// A `StatefulSet` whose owner has this kind.
fn stateful_set(name: &str, owner: &str) -> String {
    let owner = format!("{{apiVersion: portlane.dev/v1alpha1, kind: {owner}, name: {name}, uid: u-1}}");
    let template = "{metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: a}]}}";
    format!(
        "{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: {name}, ownerReferences: [{owner}]}}, spec: \
         {{serviceName: a, selector: {{matchLabels: {{app: a}}}}, template: {template}}}}}"
    )
}

/// Asserts the verdict of a policy on a write.
#[track_caller]
fn assert_verdict(output: &CommandOutput, is_allowed: bool, write: &str) {
    assert_eq!(output.success, is_allowed, "{write}: {}", output.stderr);
    assert!(is_allowed || output.stderr.contains("denied request: the operator may"), "{write}: {}", output.stderr);
}

fn the_operator_deletes_claims_and_jobs_of_gateways_and_changes_their_stateful_sets_and_no_others(
    server: &ControlPlane,
) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("rights-claims");
    let templates = ["serviceaccount", "rbac", "claims-policy"];
    let chart = Chart::apply(&namespace, &templates, &["--set", "claims.enabled=true"]);
    let mut objects: Vec<String> = DELETED.into_iter().map(manifest).collect();
    objects.extend([stateful_set("edge", "ForwardGateway"), stateful_set("db", "PortForward")]);
    namespace.apply(&objects.join("\n---\n"));
    let account = chart.account();
    let write = |what: &[&str]| namespace.kubectl(&[what, &["--dry-run=server", "--as", &account]].concat());
    // The API server enforces a new policy a moment later.
    until("the deletion of a stranger's claim is refused", || {
        !write(&["delete", "persistentvolumeclaim", "data-db-1"]).success
    });
    for (kind, name, _, is_allowed) in DELETED {
        assert_verdict(&write(&["delete", kind, name]), is_allowed, name);
    }
    let patch = r#"{"metadata": {"labels": {"a": "b"}}}"#;
    for (name, is_allowed) in [("edge", true), ("db", false)] {
        let output = write(&["patch", "statefulset", name, "--type=merge", "--patch", patch]);
        assert_verdict(&output, is_allowed, name);
    }
    // The policy concerns nobody else.
    namespace.kubectl(&["delete", "job", "backup", "--dry-run=server"]).ok();
}

/// References to an owner of this kind and name.
fn owned_by(kind: &str, name: &str) -> Value {
    json!([{"apiVersion": "portlane.dev/v1alpha1", "kind": kind, "name": name, "uid": "u-1"}])
}

fn secret(name: &str, owners: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "ownerReferences": owners}})
}

/// A write of a Secret by the operator: `create` or `replace`.
fn written(namespace: &Namespace<'_>, account: &str, verb: &str, secret: &Value) -> CommandOutput {
    let mut secret = secret.clone();
    secret["stringData"] = json!({"a": "b"});
    namespace.kubectl_with(&[verb, "-f", "-", "--dry-run=server", "--as", account], &secret.to_string())
}

fn the_operator_writes_secrets_of_agents_and_its_own_and_no_others(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let (namespace, elsewhere) = (server.namespace("rights-secrets"), server.namespace("rights-secrets-elsewhere"));
    let templates = ["serviceaccount", "rbac", "secrets-policy"];
    let chart = Chart::apply(&namespace, &templates, &["--set", "tunnels.enabled=true"]);
    let account = chart.account();
    let (none, home, lab) = (json!([]), owned_by("ForwardAgent", "home"), owned_by("ForwardAgent", "lab"));
    let found = [
        secret("portlane-roots", &none),
        secret("home-enrolment", &home),
        secret("shop-enrolment", &none),
        secret("db", &none),
    ];
    namespace.apply(&found.map(|secret| secret.to_string()).join("\n---\n"));
    // The API server enforces a new policy a moment later.
    until("a stranger's Secret is refused", || !written(&namespace, &account, "create", &secret("web", &none)).success);
    for (verb, name, owners, is_allowed) in [
        ("create", "lab-enrolment", &lab, true),
        ("create", "portlane-tunnel-roots", &none, true),
        ("create", "web", &none, false),
        ("create", "web", &lab, false),
        ("create", "lab-enrolment", &none, false),
        ("create", "lab-enrolment", &home, false),
        ("create", "lab-enrolment", &owned_by("ForwardGateway", "lab"), false),
        ("replace", "home-enrolment", &home, true),
        ("replace", "portlane-roots", &none, true),
        ("replace", "home-enrolment", &none, false),
        ("replace", "shop-enrolment", &none, false),
        ("replace", "shop-enrolment", &owned_by("ForwardAgent", "shop"), false),
        ("replace", "db", &none, false),
    ] {
        let output = written(&namespace, &account, verb, &secret(name, owners));
        assert_verdict(&output, is_allowed, &format!("{verb} {name} of {owners}"));
    }
    // A controller would fill in a token of that account, which the operator may read.
    let mut token = secret("lab-enrolment", &lab);
    token["type"] = json!("kubernetes.io/service-account-token");
    token["metadata"]["annotations"] = json!({"kubernetes.io/service-account.name": "portlane-operator"});
    assert_verdict(&written(&namespace, &account, "create", &token), false, "a token");
    let roots = secret("portlane-roots", &none);
    assert_verdict(&written(&elsewhere, &account, "create", &roots), false, "the roots of another namespace");
    // The policy concerns nobody else.
    let patch = r#"{"stringData": {"a": "b"}}"#;
    namespace.kubectl(&["patch", "secret", "db", "--type=merge", "--patch", patch]).ok();
}
