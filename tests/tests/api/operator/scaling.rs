//! Autoscalers: created for fleets and workloads unless another writer holds the replicas; nothing shrinks when an
//! autoscaler takes over.
//!
//! Each test has a namespace and an operator of its own, and mostly waits for the controller of autoscalers.

use std::sync::{PoisonError, RwLockReadGuard};

use crds::{ForwardGateway, PortForward};
use harness::{ControlPlane, Namespace, Operator, block_on, until};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec},
        discovery::v1::EndpointSlice,
    },
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::Api;

use super::{condition, gateway};
use crate::server::with_controllers;

/// Name of the autoscaler of the forward `db`.
const OF_DB: &str = "portforward-db";
/// What an autoscaler of a forward follows.
const LOAD: &str = "targetConnectionsPerPod: 10";
/// Metrics that the API server refuses.
const NONSENSE: &str = "metrics: [{type: Nonsense}]";
/// The API that a provider of metrics serves.
const METRICS: &str = "v1beta2.custom.metrics.k8s.io";

/// The server with a controller of autoscalers, beside other tests.
fn shared() -> Option<RwLockReadGuard<'static, ControlPlane>> {
    with_controllers().map(|server| server.read().unwrap_or_else(PoisonError::into_inner))
}

/// A namespace with an operator.
struct Bed<'a> {
    _operator: Operator,
    namespace: Namespace<'a>,
}

impl<'a> Bed<'a> {
    fn of(server: &'a ControlPlane, purpose: &str) -> Self {
        let namespace = server.namespace(purpose);
        Self { _operator: Operator::start(&namespace), namespace }
    }

    /// With the workload `shop`, which the autoscaler of the forward `db` scales.
    fn scaling_shop(server: &'a ControlPlane, purpose: &str) -> Self {
        let bed = Self::of(server, purpose);
        bed.apply(&workload("Deployment", "shop", ""));
        bed.apply(&forward("db", 5432, &scales("shop", LOAD)));
        until("the forward has an autoscaler", || bed.has_scaler(OF_DB));
        bed
    }

    #[track_caller]
    fn apply(&self, manifest: &str) {
        self.namespace.apply(manifest);
    }

    #[track_caller]
    fn kubectl(&self, words: &[&str]) -> String {
        self.namespace.kubectl(words).ok()
    }

    /// Waits until the fleet has this many replicas.
    #[track_caller]
    fn until_fleet_has(&self, replicas: i32, what: &str) {
        until(what, || self.replicas() == Some(replicas));
    }

    /// Replicas of the fleet.
    fn replicas(&self) -> Option<i32> {
        self.namespace.get::<Deployment>("edge")?.spec?.replicas
    }

    fn has_scaler(&self, name: &str) -> bool {
        self.namespace.get::<HorizontalPodAutoscaler>(name).is_some()
    }

    fn scaler(&self, name: &str) -> Option<HorizontalPodAutoscalerSpec> {
        self.namespace.get::<HorizontalPodAutoscaler>(name)?.spec
    }

    /// Waits for this reason of `ScalingActive` of the gateway.
    #[track_caller]
    fn until_gateway_says(&self, reason: &str) {
        self.namespace.until::<ForwardGateway>("edge", &format!("ScalingActive for {reason}"), |gateway| {
            let conditions = gateway.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|it| it.type_ == "ScalingActive" && it.reason == reason)
        });
    }

    /// Waits for this reason of `ScalingActive` of a forward; returns the message.
    #[track_caller]
    fn until_forward_says(&self, name: &str, reason: &str) -> String {
        let forward = self.namespace.until::<PortForward>(name, &format!("ScalingActive for {reason}"), |forward| {
            condition(forward, "ScalingActive").1 == reason
        });
        let conditions = forward.status.expect("status").conditions;
        conditions.into_iter().find(|it| it.type_ == "ScalingActive").expect("the condition").message
    }
}

/// A workload of this kind, with more of its spec.
fn workload(kind: &str, name: &str, more: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{more} selector: {{matchLabels: {{app: \
         shop}}}}, template: {{metadata: {{labels: {{app: shop}}}}, spec: {{containers: [{{name: app, image: app}}]}}}}}}}}"
    )
}

/// A forward in the pods of `shop`.
fn forward(name: &str, port: u16, autoscaling: &str) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, spec: {{placement: {{sidecar: \
         {{selector: {{matchLabels: {{app: shop}}}}}}}}, {autoscaling} listeners: [{{name: tcp, protocol: TCP, port: {port}, \
         backends: [{{local: {{port: 1}}}}]}}]}}}}"
    )
}

/// Autoscaling of a Deployment by a forward.
fn scales(target: &str, by: &str) -> String {
    format!("autoscaling: {{targetRef: {{kind: Deployment, name: {target}}}, maxReplicas: 4, {by}}},")
}

/// Autoscaling of the kind and API version of this workload by a forward.
fn scales_a(kind: &str, target: &str) -> String {
    format!(
        "autoscaling: {{targetRef: {{apiVersion: apps/v1, kind: {kind}, name: {target}}}, maxReplicas: 3, {LOAD}}},"
    )
}

#[test]
fn an_autoscaler_takes_the_replicas_of_a_fleet_over_from_everybody_else_and_gives_them_back() {
    let Some(server) = shared() else { return };
    let bed = Bed::of(&server, "scaling-fleet");
    bed.apply(&gateway("{replicas: 3}"));
    bed.until_fleet_has(3, "the fleet exists");
    bed.apply(&gateway("{replicas: 3, autoscaling: {minReplicas: 2, maxReplicas: 5, targetConnectionsPerPod: 100}}"));
    until("the fleet has an autoscaler", || bed.has_scaler("edge"));
    let spec = bed.scaler("edge").expect("a spec");
    assert_eq!((spec.scale_target_ref.kind.as_str(), spec.min_replicas, spec.max_replicas), ("Deployment", Some(2), 5));
    let metrics = spec.metrics.expect("metrics");
    let pods = metrics[0].pods.as_ref().expect("of pods");
    assert_eq!(
        (pods.metric.name.as_str(), &pods.target.average_value.as_ref().expect("a value").0),
        ("portlane_connections", &"100".to_owned())
    );
    // Nobody serves metrics here, which status says.
    bed.until_gateway_says("NoMetricsProvider");
    // Somebody scales the gateway by hand all the same, which does not reach the Deployment.
    bed.kubectl(&["scale", "forwardgateway/edge", "--replicas=1"]);
    bed.namespace.until::<ForwardGateway>("edge", "the change is observed", |gateway| {
        gateway.status.as_ref().and_then(|status| status.observed_generation) == gateway.metadata.generation
    });
    assert_eq!(bed.replicas(), Some(3), "an autoscaler without metrics leaves the replicas alone");
    // Only the gateway scales its fleet.
    bed.apply(&forward("db", 5432, &scales("edge", LOAD)));
    assert!(bed.until_forward_says("db", "TargetTaken").contains("the fleet of ForwardGateway edge"));
    assert!(!bed.has_scaler(OF_DB) && bed.has_scaler("edge"));
    // Without autoscaling, replicas of the spec count again.
    bed.apply(&gateway("{replicas: 2}"));
    bed.until_fleet_has(2, "the fleet has the replicas of the spec");
    until("the autoscaler is gone", || !bed.has_scaler("edge"));
}

#[test]
fn an_autoscaler_has_the_metrics_and_the_behavior_of_its_gateway_unless_the_api_server_refuses_them() {
    let Some(server) = shared() else { return };
    let bed = Bed::of(&server, "scaling-metrics");
    bed.apply(&gateway("{autoscaling: {minReplicas: 2, maxReplicas: 5, targetConnectionsPerPod: 100}}"));
    until("the fleet has an autoscaler", || bed.has_scaler("edge"));
    bed.apply(&gateway(
        "{autoscaling: {minReplicas: 2, maxReplicas: 5, targetConnectionsPerPod: 100, metrics: [{type: Resource, resource: \
         {name: cpu, target: {type: Utilization, averageUtilization: 80}}}], behavior: {scaleDown: {stabilizationWindowSeconds: \
         7}}}}",
    ));
    until("metrics and behavior are passed on", || {
        let spec = bed.scaler("edge").expect("a spec");
        let window = spec.behavior.and_then(|it| it.scale_down).and_then(|it| it.stabilization_window_seconds);
        window == Some(7) && spec.metrics.is_some_and(|metrics| metrics.len() == 2)
    });
    bed.apply(&gateway(&format!("{{autoscaling: {{maxReplicas: 5, {NONSENSE}}}}}")));
    bed.until_gateway_says("ScalerFailed");
}

#[test]
fn a_fleet_comes_up_with_the_minimum_of_its_autoscaler_when_it_is_parked_and_when_it_is_new() {
    let Some(server) = shared() else { return };
    let bed = Bed::of(&server, "scaling-minimum");
    bed.apply(&gateway("{replicas: 2}"));
    bed.until_fleet_has(2, "the fleet exists");
    bed.apply(&gateway("{replicas: 0}"));
    bed.until_fleet_has(0, "the fleet is parked");
    bed.apply(&gateway("{replicas: 0, autoscaling: {minReplicas: 3, maxReplicas: 5, targetConnectionsPerPod: 100}}"));
    bed.until_fleet_has(3, "the fleet comes up with minReplicas");
    bed.kubectl(&["delete", "forwardgateway", "edge"]);
    until("the fleet is gone", || bed.replicas().is_none());
    bed.apply(&gateway("{autoscaling: {minReplicas: 4, maxReplicas: 5, targetConnectionsPerPod: 100}}"));
    bed.until_fleet_has(4, "the fleet begins with minReplicas");
}

#[test]
fn a_workload_is_scaled_once_it_exists_and_no_other_writer_holds_its_replicas() {
    let Some(server) = shared() else { return };
    let bed = Bed::of(&server, "scaling-workload");
    bed.apply(&forward("db", 5432, &scales_a("Deployment", "shop")));
    assert!(bed.until_forward_says("db", "TargetNotFound").contains("Deployment shop"));
    bed.apply(&workload("Deployment", "shop", "replicas: 1,"));
    assert!(bed.until_forward_says("db", "ReplicasHeld").contains("kubectl-client-side-apply"));
    assert!(!bed.has_scaler(OF_DB));
    bed.apply(&workload("Deployment", "shop", ""));
    until("no other writer holds the replicas", || bed.has_scaler(OF_DB));
    let selector = "--output=jsonpath={.spec.metrics[0].pods.metric.selector.matchLabels.forward}";
    assert_eq!(bed.kubectl(&["get", "hpa", OF_DB, selector]), "db", "connections of this forward count");
    bed.until_forward_says("db", "NoMetricsProvider");
}

#[test]
fn an_autoscaler_of_a_forward_gives_way_to_a_foreign_one_and_comes_back_after_it() {
    let Some(server) = shared() else { return };
    let bed = Bed::scaling_shop(&server, "scaling-foreign");
    bed.kubectl(&["autoscale", "deployment", "shop", "--max=2"]);
    bed.kubectl(&["label", "pf", "db", "touched=yes"]);
    bed.apply(&forward("db", 5432, &scales_a("Deployment", "shop")));
    assert!(bed.until_forward_says("db", "TargetTaken").contains("HorizontalPodAutoscaler shop"));
    until("the forward's autoscaler is gone", || !bed.has_scaler(OF_DB));
    bed.kubectl(&["delete", "hpa", "shop"]);
    until("the forward's autoscaler is back", || bed.has_scaler(OF_DB));
}

#[test]
fn of_two_forwards_the_one_that_scales_a_workload_keeps_it_whatever_their_names() {
    let Some(server) = shared() else { return };
    let bed = Bed::scaling_shop(&server, "scaling-kept");
    bed.apply(&forward("a-late", 5433, &scales("shop", &format!("{NONSENSE}, {LOAD}"))));
    bed.until_forward_says("a-late", "TargetTaken");
    assert!(bed.has_scaler(OF_DB) && !bed.has_scaler("portforward-a-late"));
    bed.apply(&forward("a-late", 5433, &scales("shop", LOAD)));
    bed.apply(&forward("db", 5432, ""));
    until("the autoscaler of db is gone", || !bed.has_scaler(OF_DB));
    until("a-late scales the workload", || bed.has_scaler("portforward-a-late"));
}

#[test]
fn a_younger_forward_scales_a_workload_if_the_api_server_refuses_the_autoscaler_of_the_older_one() {
    let Some(server) = shared() else { return };
    let bed = Bed::of(&server, "scaling-refused");
    bed.apply(&workload("Deployment", "shop", ""));
    bed.apply(&forward("db", 5432, &scales("shop", NONSENSE)));
    bed.until_forward_says("db", "ScalerFailed");
    bed.apply(&forward("good", 5434, &scales("shop", LOAD)));
    until("the younger forward scales", || bed.has_scaler("portforward-good"));
    bed.until_forward_says("db", "TargetTaken");
    bed.kubectl(&["delete", "pf", "good"]);
    bed.apply(&forward("db", 5432, ""));
    let after = bed.namespace.until::<PortForward>("db", "has no condition of scaling", |forward| {
        condition(forward, "ScalingActive").1.is_empty()
    });
    assert_eq!(condition(&after, "Accepted").0, "True");
}

#[test]
fn a_forward_scales_workloads_of_each_kind_that_has_the_scale_subresource() {
    let Some(server) = shared() else { return };
    let bed = Bed::of(&server, "scaling-others");
    for (kind, more) in [("StatefulSet", "serviceName: shop,"), ("ReplicaSet", "")] {
        bed.apply(&forward("db", 5432, &scales_a(kind, "other")));
        bed.apply(&workload(kind, "other", more));
        until("the workload has an autoscaler", || {
            let target = bed.scaler(OF_DB).map(|spec| spec.scale_target_ref);
            target.is_some_and(|target| target.kind == kind && target.name == "other")
        });
        // The controller of autoscalers finds the workload.
        until("the workload can be scaled", || {
            let status = bed.namespace.get::<HorizontalPodAutoscaler>(OF_DB).and_then(|scaler| scaler.status);
            let conditions = status.and_then(|status| status.conditions).unwrap_or_default();
            conditions.iter().any(|it| it.type_ == "AbleToScale" && it.status == "True")
        });
    }
}

/// A provider of the metrics API. Without it again, deletions of namespaces go on.
struct Provider<'a>(&'a Namespace<'a>);

impl Provider<'_> {
    /// Is a Service of this namespace from now on.
    fn moves_to(&self, place: &str) {
        self.0.apply(&format!(
            "{{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {{name: {METRICS}}}, spec: {{group: \
             custom.metrics.k8s.io, version: v1beta2, groupPriorityMinimum: 100, versionPriority: 200, service: {{name: \
             portlane-metrics, namespace: {place}, port: 443}}}}}}"
        ));
    }
}

impl Drop for Provider<'_> {
    fn drop(&mut self) {
        let _ = self.0.kubectl(&["delete", "apiservice", METRICS, "--ignore-not-found"]);
    }
}

/// Alone on the server: an aggregated API that does not answer changes what autoscalers report, and blocks the deletion of
/// namespaces. By its name it starts after the others, so that none of them waits for it.
#[test]
fn the_provider_of_the_metrics_api_from_before_the_operator_is_left_alone() {
    let Some(server) = with_controllers() else { return };
    let server = server.write().unwrap_or_else(PoisonError::into_inner);
    let namespace = server.namespace("metrics");
    let address = format!("127.0.0.1:{}", harness::free_port());
    let own = super::own_address().to_string();
    let _operator = Operator::with(&namespace, &["--custom-metrics-address", &address, "--pod-ips", &own]);
    namespace
        .apply("{apiVersion: v1, kind: Service, metadata: {name: portlane-metrics}, spec: {ports: [{port: 443}]}}");
    let apis: Api<APIService> = Api::all(server.client());
    let has_bundle = || {
        let api = block_on(async { apis.get(METRICS).await }).expect("the APIService exists");
        api.spec.and_then(|spec| spec.ca_bundle).is_some_and(|bundle| !bundle.0.is_empty())
    };
    let is_served = || namespace.get::<EndpointSlice>("portlane-metrics").is_some();
    // Each round of the operator restores the slice first and then reads the APIService: when the slice is back for the
    // second time, one whole round is over.
    let looked = || {
        for _ in 0..2 {
            let _ = namespace.kubectl(&["delete", "endpointslice", "portlane-metrics"]);
            until("the slice is back", is_served);
        }
    };
    let provider = Provider(&namespace);
    provider.moves_to("default");
    until("the metrics API is served", is_served);
    looked();
    assert!(!has_bundle(), "the APIService of another namespace is left alone");
    provider.moves_to(namespace.name());
    until("the operator's own APIService has a CA bundle", has_bundle);
}
