//! Namespaces whose LimitRange or ResourceQuota counts the sidecar: the API server refuses the pod and says why, the
//! chart value `injection.resources` and annotations of the pod make it fit, and status says where to look.

use harness::{CommandOutput, Namespace, free_port, programs::KubernetesVersion, until};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{
    injection::{Webhook, carries, forward, message, operator},
    until_ready,
};

/// What the chart value `injection.resources` becomes: resources that fit [`LIMITS`], as the defaults do not.
const RESOURCES: &str =
    r#"{"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}}"#;
/// The requests and limits of each container.
const LIMITS: &str = "{apiVersion: v1, kind: LimitRange, metadata: {name: small}, spec: {limits: [{type: Container, min: \
                      {cpu: 50m, memory: 32Mi}, max: {cpu: 500m, memory: 64Mi}, maxLimitRequestRatio: {cpu: 10}}]}}";
/// The limits of all pods together. A container without a limit has 64Mi by [`LIMITS`].
const QUOTA: &str =
    "{apiVersion: v1, kind: ResourceQuota, metadata: {name: little}, spec: {hard: {limits.memory: 100Mi}}}";

#[test]
fn a_pod_that_a_limit_range_or_a_quota_refuses_fits_with_the_resources_that_the_pages_name() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("quotas");
    let operator = operator(&namespace, &["--sidecar-resources", RESOURCES]);
    let _webhook = Webhook::create(&namespace, "portlane", &operator);

    namespace.apply(LIMITS);
    let above = json!({"portlane.dev/proxy-cpu-limit": "1"});
    until("the API server enforces the LimitRange", || !create(&namespace, &above).success);
    let refused = create(&namespace, &above).refused();
    assert!(refused.contains("maximum cpu usage per Container is 500m, but limit is 1"), "{refused}");
    let spread = create(&namespace, &json!({"portlane.dev/proxy-cpu-request": "20m"})).refused();
    assert!(spread.contains("minimum cpu usage per Container is 50m, but request is 20m"), "{spread}");
    assert!(spread.contains("max limit to request ratio per Container is 10"), "{spread}");
    fits(&namespace, &json!({}));

    namespace.apply(QUOTA);
    // No controller computes what is used.
    let status = r#"{"status": {"hard": {"limits.memory": "100Mi"}, "used": {"limits.memory": "0"}}}"#;
    namespace
        .kubectl(&["patch", "resourcequota/little", "--subresource=status", "--type=merge", "--patch", status])
        .ok();
    let mut refused = String::new();
    until("the API server enforces the quota", || {
        let output = create(&namespace, &json!({}));
        refused = output.stderr;
        !output.success
    });
    assert!(refused.contains("exceeded quota: little, requested: limits.memory=128Mi"), "{refused}");
    fits(&namespace, &json!({"portlane.dev/proxy-memory-limit": "32Mi"}));

    namespace.apply(&forward("refused", "refused"));
    until_ready(&namespace, "refused", "True", "NoMatchingPods");
    let advice = message(&namespace, "refused", "NoMatchingPods");
    assert!(advice.contains("kubectl get events --field-selector reason=FailedCreate"), "{advice}");
}

/// Creates a pod that asks for a sidecar, as a controller would.
fn create(namespace: &Namespace<'_>, annotations: &Value) -> CommandOutput {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("p-{}", free_port()), "labels": {"portlane.dev/inject": "enabled"}, "annotations": annotations,
        },
        "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app"}]},
    });
    namespace.kubectl_with(&["create", "-f", "-", "--output=name"], &pod.to_string())
}

/// Asserts that a pod with these annotations is created, and carries a proxy.
#[track_caller]
fn fits(namespace: &Namespace<'_>, annotations: &Value) {
    let created = create(namespace, annotations).ok();
    let name = created.trim().trim_start_matches("pod/").to_owned();
    assert!(carries(&namespace.get::<Pod>(&name).expect("the pod")), "{name} has no proxy");
}
