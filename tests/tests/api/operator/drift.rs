//! Children and autoscalers of a gateway that somebody deletes or changes come back within seconds.

use std::time::Duration;

use harness::{Namespace, Namespaced, Operator, free_port, programs::KubernetesVersion, until};
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};

use super::{forward, gateway};

/// Far below the ten minutes after which children, and the minute after which autoscalers, are applied in any case.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn children_that_somebody_deletes_or_changes_come_back_within_seconds() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = &server.namespace("drift").with_patience(SOON);
    let operator = Operator::with(namespace, &["--fleet-network-policies", "true"]);
    namespace.apply(&gateway("{replicas: 2}"));
    namespace.apply(&forward("web", free_port(), "{address: {host: 192.0.2.1, port: 80}}"));
    comes_back::<Service>(namespace);
    comes_back::<Deployment>(namespace);
    comes_back::<PodDisruptionBudget>(namespace);
    comes_back::<NetworkPolicy>(namespace);
    comes_back::<ServiceAccount>(namespace);

    let patch = "{\"spec\": {\"selector\": {\"portlane.dev/gateway\": \"nobody\"}}}";
    namespace.kubectl(&["patch", "service", "edge", "--type=merge", "--patch", patch]).ok();
    namespace.until::<Service>("edge", "leads to the fleet again", |service| {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.and_then(|labels| labels.get("portlane.dev/gateway")).is_some_and(|name| name == "edge")
    });
    namespace.kubectl(&["scale", "deployment", "edge", "--replicas=7"]).ok();
    namespace.until::<Deployment>("edge", "has the replicas of the gateway again", |deployment| {
        deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(2)
    });
    // Without the label, the watch shows the object no more.
    namespace.kubectl(&["label", "networkpolicy", "edge", "app.kubernetes.io/managed-by-"]).ok();
    namespace.until::<NetworkPolicy>("edge", "has its label again", |policy| {
        policy.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key("app.kubernetes.io/managed-by"))
    });
    // A repair applies all children, so it may also undo the next change.
    let repaired = || operator.metric("portlane_operator_children_applied_total{result=\"repaired\"}");
    until("repairs are counted", || repaired() >= 4.0);
    assert!(repaired() < 16.0, "8 changes by others were repaired {} times", repaired());
}

#[test]
fn an_autoscaler_that_somebody_changes_or_deletes_comes_back_within_seconds() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = &server.namespace("drift-scaler").with_patience(SOON);
    let operator = Operator::start(namespace);
    namespace.apply(&gateway("{autoscaling: {maxReplicas: 5, targetConnectionsPerPod: 100}}"));
    namespace.until::<HorizontalPodAutoscaler>("edge", "exists", |_| true);

    let patch = "{\"spec\": {\"maxReplicas\": 50}}";
    namespace.kubectl(&["patch", "hpa", "edge", "--type=merge", "--patch", patch]).ok();
    namespace.until::<HorizontalPodAutoscaler>("edge", "has the limit of the gateway again", |scaler| {
        scaler.spec.as_ref().is_some_and(|spec| spec.max_replicas == 5)
    });
    comes_back::<HorizontalPodAutoscaler>(namespace);
    let repaired = "portlane_operator_children_applied_total{result=\"repaired\"}";
    until("both repairs are counted", || operator.metric(repaired) >= 2.0);
}

/// Deletes a child, and waits for the one that takes its place.
#[track_caller]
fn comes_back<K: Namespaced>(namespace: &Namespace<'_>) {
    let first = namespace.until::<K>("edge", "exists", |_| true).meta().uid.clone();
    namespace.kubectl(&["delete", &K::plural(&()), "edge"]).ok();
    namespace.until::<K>("edge", "is back", |child| child.meta().uid != first);
}
