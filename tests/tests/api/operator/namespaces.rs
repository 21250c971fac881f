//! An operator that watches two namespaces and has no permission in one of them.

use std::{fs, time::Duration};

use harness::{Namespace, Operator, programs::KubernetesVersion, until};
use serde_json::Value;

use super::until_ready;

/// Whom the operator acts as.
const USER: &str = "scoped-operator";
/// A forward that is ready as soon as an operator has seen it.
const FORWARD: &str = "apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {name: web}
spec:
  placement: {sidecar: {selector: {matchLabels: {app: nobody}}}}
  listeners: [{name: web, protocol: TCP, port: 8080, backends: [{local: {port: 80}}]}]
";

#[test]
fn a_namespace_that_refuses_the_operator_holds_up_no_other_and_is_served_once_it_permits() {
    // C6
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    // Retries come half a minute apart.
    let closed = server.namespace("closed").with_patience(Duration::from_secs(120));
    let open = server.namespace("open");
    let folder = tempfile::tempdir().expect("folder");
    let kubeconfig = folder.path().join("kubeconfig");
    fs::write(&kubeconfig, acting(open.cluster().kubeconfig())).expect("a kubeconfig");
    permit(&open);

    // The operator becomes ready, which takes the time that a starting API server may refuse everybody.
    let operator = Operator::with_kubeconfig(&open, &kubeconfig, &["--watch-namespaces", closed.name()]);
    open.apply(FORWARD);
    until_ready(&open, "web", "True", "NoMatchingPods");
    let refused = || operator.metric("portlane_operator_watches_refused{kind=\"PortForward\"}");
    assert!(refused() > 0.0, "the watch that is refused is counted");

    closed.apply(FORWARD);
    permit(&closed);
    until_ready(&closed, "web", "True", "NoMatchingPods");
    until("no watch of forwards is refused", || refused() < 1.0);
    until("the operator has compared the CRDs with its own", || {
        operator.metric("portlane_operator_crd_checks_total{result=\"complete\"}") > 0.0
    });
    let (status, said) = harness::http_get(operator.health, "/livez").expect("livez");
    assert_eq!((status, said.as_str()), (200, "ok\n"));
}

/// The kubeconfig of an administrator who acts as [`USER`].
fn acting(administrator: &std::path::Path) -> String {
    let text = fs::read_to_string(administrator).expect("a kubeconfig");
    let mut kubeconfig: Value = serde_yaml::from_str(&text).expect("YAML");
    kubeconfig["users"][0]["user"]["as"] = Value::from(USER);
    kubeconfig.to_string()
}

/// Permits everything in one namespace.
fn permit(namespace: &Namespace<'_>) {
    namespace.apply(&format!(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: operator}}
rules: [{{apiGroups: ['*'], resources: ['*'], verbs: ['*']}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: operator}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: operator}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {USER}}}]
"
    ));
}
