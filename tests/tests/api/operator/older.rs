//! An operator that is newer than the installed CRDs: the API server drops a restriction, and that is said everywhere.

use std::process::Command;

use crds::PortForward;
use harness::{CommandOutput, ControlPlane, Operator, binary, programs::KubernetesVersion, until};
use serde_json::Value;

/// Where an API server publishes the schemas of the kinds.
const SCHEMAS: &str = "/openapi/v3/apis/portlane.dev/v1alpha1";

/// A forward that admits one network.
const RESTRICTED: &str = "{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {name: db}, spec: {placement: \
    {sidecar: {selector: {matchLabels: {app: shop}}}}, access: {allowCIDRs: [192.0.2.0/24]}, listeners: [{name: tcp, \
    protocol: TCP, port: 5432, backends: [{local: {port: 80}}]}]}}";

/// The API server is this test's own, because the CRD is changed.
#[test]
fn a_restriction_that_older_crds_drop_is_named_by_the_object_the_log_the_metric_and_the_plugin() {
    let server = ControlPlane::start(KubernetesVersion::Newest);
    if server.is_existing() {
        return;
    }
    server.install_crds();
    let access = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/access";
    let patch = format!("[{{\"op\": \"remove\", \"path\": \"{access}\"}}]");
    server.kubectl(&["patch", "crd", "portforwards.portlane.dev", "--type=json", "--patch", &patch]).ok();
    until("the API server publishes the older schema", || lacks_access(&server));

    let namespace = server.namespace("older");
    let operator = Operator::start(&namespace);
    let apply = |validate: &str| namespace.kubectl_with(&["apply", validate, "-f", "-"], RESTRICTED);
    let refused = apply("--validate=strict").refused();
    assert!(refused.contains("unknown field \"spec.access\""), "{refused}");
    apply("--validate=ignore").ok();

    let mut plugin = Command::new(binary("kubectl-portlane"));
    plugin.env("KUBECONFIG", server.kubeconfig()).args(["status", "-n", namespace.name()]);
    let status = CommandOutput::of(plugin.args(["--operator-namespace", namespace.name()]), "").stdout;
    for part in ["! CRDs", "PortForward lacks 1 (spec.access)", "helm upgrade --install portlane-crds"] {
        assert!(status.contains(part), "{part} is not in\n{status}");
    }
    let missing = "portlane_operator_crd_fields_missing{kind=\"PortForward\"}";
    until("the metric counts the field", || operator.metric(missing) > 0.5);

    // A difference counts once a second comparison, half a minute later, agrees with the first one.
    let accepted = |forward: &PortForward| {
        let status = forward.status.as_ref();
        let accepted = status.and_then(|it| it.conditions.iter().find(|condition| condition.type_ == "Accepted"));
        accepted.map(|condition| condition.message.clone()).unwrap_or_default()
    };
    let db = namespace.until::<PortForward>("db", "names the field", |db| accepted(db).contains("spec.access"));
    let message = accepted(&db);
    assert!(message.contains("install the CRDs of the operator's release, and apply the manifests again"), "{message}");
    assert!(db.spec.access.is_none(), "the restriction is not stored");
    let named = |record: &&Value| {
        let text = record.to_string();
        text.contains("the installed CRD lacks fields") && text.contains("spec.access")
    };
    until("one record names the field", || operator.program.events().iter().filter(named).count() == 1);
}

/// Whether both kinds are published, one of them without `spec.access`.
fn lacks_access(server: &ControlPlane) -> bool {
    let published = server.kubectl(&["get", "--raw", SCHEMAS]).stdout;
    let published: Value = serde_json::from_str(&published).unwrap_or_default();
    let spec = |kind: &str| {
        let schema = &published["components"]["schemas"][format!("dev.portlane.v1alpha1.{kind}")];
        schema["properties"]["spec"]["properties"].clone()
    };
    let (forward, gateway) = (spec("PortForward"), spec("ForwardGateway"));
    forward.is_object() && gateway.is_object() && forward.get("access").is_none()
}
