//! Autoscalers: created for fleets and workloads unless another writer holds the replicas; nothing shrinks when an
//! autoscaler takes over.

use std::thread;

use crds::{ForwardGateway, PortForward};
use harness::{ControlPlane, Namespace, Operator, block_on, programs::KubernetesVersion, until};
use k8s_openapi::{
    api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, discovery::v1::EndpointSlice},
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::Api;

use super::{condition, gateway};

/// Name of the autoscaler of the forward `db`.
const OF_DB: &str = "portforward-db";

#[test]
fn an_autoscaler_takes_replicas_over_and_gives_them_back_and_fights_with_nobody() {
    let server = ControlPlane::start_with_controller_manager(KubernetesVersion::Oldest);
    if !crate::server::without_kubelets(&server) {
        return;
    }
    server.install_crds();
    // Each has a namespace and an operator of its own, and mostly waits for the controller of autoscalers.
    thread::scope(|scope| {
        scope.spawn(|| fleet(&server));
        scope.spawn(|| workload(&server));
        scope.spawn(|| other_workloads(&server));
    });
    // Last: an aggregated API that does not answer changes what autoscalers report, and blocks the deletion of
    // namespaces.
    foreign_metrics_api(&server);
}

fn replicas(namespace: &Namespace<'_>, name: &str) -> Option<i32> {
    namespace.get::<Deployment>(name)?.spec?.replicas
}

fn scaler(namespace: &Namespace<'_>, name: &str) -> Option<HorizontalPodAutoscaler> {
    namespace.get::<HorizontalPodAutoscaler>(name)
}

/// The fleet of a gateway.
fn fleet(server: &ControlPlane) {
    let namespace = &server.namespace("scaling-fleet");
    let _operator = Operator::start(namespace);
    namespace.apply(&gateway("{replicas: 3}"));
    until("the fleet exists", || replicas(namespace, "edge") == Some(3));
    namespace
        .apply(&gateway("{replicas: 3, autoscaling: {minReplicas: 2, maxReplicas: 5, targetConnectionsPerPod: 100}}"));
    until("the fleet has an autoscaler", || scaler(namespace, "edge").is_some());
    let spec = scaler(namespace, "edge").and_then(|scaler| scaler.spec).expect("a spec");
    assert_eq!((spec.scale_target_ref.kind.as_str(), spec.min_replicas, spec.max_replicas), ("Deployment", Some(2), 5));
    let metrics = spec.metrics.expect("metrics");
    let pods = metrics[0].pods.as_ref().expect("of pods");
    assert_eq!(
        (pods.metric.name.as_str(), &pods.target.average_value.as_ref().expect("a value").0),
        ("portlane_connections", &"100".to_owned())
    );
    // The gateway's own metrics and behavior are passed on.
    namespace.apply(&gateway(
        "{autoscaling: {minReplicas: 2, maxReplicas: 5, targetConnectionsPerPod: 100, metrics: [{type: Resource, resource: \
         {name: cpu, target: {type: Utilization, averageUtilization: 80}}}], behavior: {scaleDown: {stabilizationWindowSeconds: \
         7}}}}",
    ));
    until("metrics and behavior are passed on", || {
        let spec = scaler(namespace, "edge").and_then(|scaler| scaler.spec).expect("a spec");
        let window = spec.behavior.and_then(|it| it.scale_down).and_then(|it| it.stabilization_window_seconds);
        window == Some(7) && spec.metrics.is_some_and(|metrics| metrics.len() == 2)
    });
    // Nobody serves metrics here, which status says.
    let until_reason = |reason: &str| {
        namespace.until::<ForwardGateway>("edge", &format!("ScalingActive for {reason}"), |gateway| {
            let conditions = gateway.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|it| it.type_ == "ScalingActive" && it.reason == reason)
        })
    };
    until_reason("NoMetricsProvider");
    // Somebody scales the gateway by hand all the same, which does not reach the Deployment.
    namespace.kubectl(&["scale", "forwardgateway/edge", "--replicas=1"]).ok();
    namespace.until::<ForwardGateway>("edge", "the change is observed", |gateway| {
        gateway.status.as_ref().and_then(|status| status.observed_generation) == gateway.metadata.generation
    });
    assert_eq!(replicas(namespace, "edge"), Some(3), "an autoscaler without metrics leaves the replicas alone");
    // Metrics that the API server refuses.
    namespace.apply(&gateway("{autoscaling: {maxReplicas: 5, metrics: [{type: Nonsense}]}}"));
    until_reason("ScalerFailed");
    // Without autoscaling, replicas of the spec count again.
    namespace.apply(&gateway("{replicas: 2}"));
    until("the fleet has the replicas of the spec", || replicas(namespace, "edge") == Some(2));
    until("the autoscaler is gone", || scaler(namespace, "edge").is_none());
    comes_up_with_its_minimum(namespace);
}

fn comes_up_with_its_minimum(namespace: &Namespace<'_>) {
    // A fleet parked at zero comes up.
    namespace.apply(&gateway("{replicas: 0}"));
    until("the fleet is parked", || replicas(namespace, "edge") == Some(0));
    namespace
        .apply(&gateway("{replicas: 0, autoscaling: {minReplicas: 3, maxReplicas: 5, targetConnectionsPerPod: 100}}"));
    until("the fleet comes up with minReplicas", || replicas(namespace, "edge") == Some(3));
    // A fleet with autoscaling from the start begins with minReplicas.
    namespace.kubectl(&["delete", "forwardgateway", "edge"]).ok();
    until("the fleet is gone", || replicas(namespace, "edge").is_none());
    namespace.apply(&gateway("{autoscaling: {minReplicas: 4, maxReplicas: 5, targetConnectionsPerPod: 100}}"));
    until("the fleet begins with minReplicas", || replicas(namespace, "edge") == Some(4));
}

fn deployment(replicas: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: shop}}, spec: {{{replicas} selector: {{matchLabels: {{app: \
         shop}}}}, template: {{metadata: {{labels: {{app: shop}}}}, spec: {{containers: [{{name: app, image: app}}]}}}}}}}}"
    )
}

/// A forward in the pods of the workload `shop`.
fn forward(autoscaling: &str) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: db}}, spec: {{placement: {{sidecar: \
         {{selector: {{matchLabels: {{app: shop}}}}}}}}, {autoscaling} listeners: [{{name: tcp, protocol: TCP, port: 5432, \
         backends: [{{local: {{port: 1}}}}]}}]}}}}"
    )
}

/// Another forward for the same workload, with metrics that the API server refuses.
fn other_forward(name: &str, port: u16) -> String {
    let autoscaling = "autoscaling: {targetRef: {kind: Deployment, name: shop}, maxReplicas: 4, metrics: [{type: Nonsense}], \
                       targetConnectionsPerPod: 10},";
    forward(autoscaling).replace("name: db", &format!("name: {name}")).replace("port: 5432", &format!("port: {port}"))
}

/// The same forward without these metrics.
fn good_forward(name: &str, port: u16) -> String {
    other_forward(name, port).replace("metrics: [{type: Nonsense}], ", "")
}

/// Waits for this reason of the condition of `db`; returns the message.
fn until_reason(namespace: &Namespace<'_>, reason: &str) -> String {
    let forward = namespace.until::<PortForward>("db", &format!("ScalingActive for {reason}"), |forward| {
        condition(forward, "ScalingActive").1 == reason
    });
    let conditions = forward.status.expect("status").conditions;
    conditions.into_iter().find(|it| it.type_ == "ScalingActive").expect("the condition").message
}

/// A user's workload, scaled for a forward in its pods.
fn workload(server: &ControlPlane) {
    let namespace = &server.namespace("scaling-workload");
    let _operator = Operator::start(namespace);
    namespace.apply(&gateway("{autoscaling: {minReplicas: 4, maxReplicas: 5, targetConnectionsPerPod: 100}}"));
    begins_once_no_writer_holds_the_replicas(namespace);
    gives_way_to_a_foreign_autoscaler(namespace);
    keeps_its_workload(namespace);
    // Only the gateway scales its fleet.
    namespace.apply(&forward(
        "autoscaling: {targetRef: {kind: Deployment, name: edge}, maxReplicas: 4, targetConnectionsPerPod: 10},",
    ));
    assert!(until_reason(namespace, "TargetTaken").contains("the fleet of ForwardGateway edge"));
    assert!(scaler(namespace, OF_DB).is_none() && scaler(namespace, "edge").is_some());
    // An autoscaler that the API server refuses leaves the workload to a younger forward.
    let nonsense =
        "autoscaling: {targetRef: {kind: Deployment, name: shop}, maxReplicas: 4, metrics: [{type: Nonsense}]},";
    namespace.apply(&forward(nonsense));
    until_reason(namespace, "ScalerFailed");
    namespace.apply(&good_forward("good", 5434));
    until("the younger forward scales", || scaler(namespace, "portforward-good").is_some());
    until_reason(namespace, "TargetTaken");
    namespace.kubectl(&["delete", "pf", "good"]).ok();
    namespace.apply(&forward(""));
    let after = namespace.until::<PortForward>("db", "has no condition of scaling", |forward| {
        condition(forward, "ScalingActive").1.is_empty()
    });
    assert_eq!(condition(&after, "Accepted").0, "True");
}

/// The workload has to exist, and no other writer may hold its replicas.
fn begins_once_no_writer_holds_the_replicas(namespace: &Namespace<'_>) {
    namespace.apply(&forward(
        "autoscaling: {targetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}, maxReplicas: 3, targetConnectionsPerPod: 10},",
    ));
    assert!(until_reason(namespace, "TargetNotFound").contains("Deployment shop"));
    namespace.apply(&deployment("replicas: 1,"));
    assert!(until_reason(namespace, "ReplicasHeld").contains("kubectl-client-side-apply"));
    assert!(scaler(namespace, OF_DB).is_none());
    namespace.apply(&deployment(""));
    until("no other writer holds the replicas", || scaler(namespace, OF_DB).is_some());
    let selector = "--output=jsonpath={.spec.metrics[0].pods.metric.selector.matchLabels.forward}";
    assert_eq!(namespace.kubectl(&["get", "hpa", OF_DB, selector]).ok(), "db", "connections of this forward count");
    until_reason(namespace, "NoMetricsProvider");
}

/// A foreign autoscaler scales the workload: the forward's autoscaler gives way.
fn gives_way_to_a_foreign_autoscaler(namespace: &Namespace<'_>) {
    namespace.kubectl(&["autoscale", "deployment", "shop", "--max=2"]).ok();
    namespace.kubectl(&["label", "pf", "db", "touched=yes"]).ok();
    namespace.apply(&forward(
        "autoscaling: {targetRef: {kind: Deployment, name: shop}, maxReplicas: 4, targetConnectionsPerPod: 10},",
    ));
    assert!(until_reason(namespace, "TargetTaken").contains("HorizontalPodAutoscaler shop"));
    until("the forward's autoscaler is gone", || scaler(namespace, OF_DB).is_none());
    namespace.kubectl(&["delete", "hpa", "shop"]).ok();
    until("the forward's autoscaler is back", || scaler(namespace, OF_DB).is_some());
}

/// Another forward wants the same workload: the forward that scales it keeps it, whatever the names.
fn keeps_its_workload(namespace: &Namespace<'_>) {
    namespace.apply(&other_forward("a-late", 5433));
    namespace.until::<PortForward>("a-late", "gives way to db", |forward| {
        condition(forward, "ScalingActive").1 == "TargetTaken"
    });
    assert!(scaler(namespace, OF_DB).is_some() && scaler(namespace, "portforward-a-late").is_none());
    namespace.apply(&good_forward("a-late", 5433));
    namespace.apply(&forward(""));
    until("the autoscaler of db is gone", || scaler(namespace, OF_DB).is_none());
    until("a-late scales the workload", || scaler(namespace, "portforward-a-late").is_some());
    namespace.kubectl(&["delete", "pf", "a-late"]).ok();
}

/// A forward scales every kind that has the scale subresource.
fn other_workloads(server: &ControlPlane) {
    let namespace = &server.namespace("scaling-others");
    let _operator = Operator::start(namespace);
    for (kind, more) in [("StatefulSet", "serviceName: shop,"), ("ReplicaSet", "")] {
        let forward = format!(
            "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: db}}, spec: {{placement: {{sidecar: \
             {{selector: {{matchLabels: {{app: shop}}}}}}}}, autoscaling: {{targetRef: {{apiVersion: apps/v1, kind: {kind}, name: \
             other}}, maxReplicas: 3, targetConnectionsPerPod: 10}}, listeners: [{{name: tcp, protocol: TCP, port: 5432, backends: \
             [{{local: {{port: 1}}}}]}}]}}}}"
        );
        namespace.apply(&forward);
        let workload = deployment(more).replace("kind: Deployment, metadata: {name: shop}", "KIND");
        namespace.apply(&workload.replace("KIND", &format!("kind: {kind}, metadata: {{name: other}}")));
        until("the workload has an autoscaler", || {
            let target = scaler(namespace, OF_DB).and_then(|it| it.spec).map(|spec| spec.scale_target_ref);
            target.is_some_and(|target| target.kind == kind && target.name == "other")
        });
        // The controller of autoscalers finds the workload.
        until("the workload can be scaled", || {
            let status = scaler(namespace, OF_DB).and_then(|scaler| scaler.status);
            let conditions = status.and_then(|status| status.conditions).unwrap_or_default();
            conditions.iter().any(|it| it.type_ == "AbleToScale" && it.status == "True")
        });
    }
}

/// A provider of the metrics API from before the operator is left alone.
fn foreign_metrics_api(server: &ControlPlane) {
    let namespace = server.namespace("metrics");
    let address = format!("127.0.0.1:{}", harness::free_port());
    let own = super::own_address().to_string();
    let _operator = Operator::with(&namespace, &["--custom-metrics-address", &address, "--pod-ips", &own]);
    namespace
        .apply("{apiVersion: v1, kind: Service, metadata: {name: portlane-metrics}, spec: {ports: [{port: 443}]}}");
    let provider = |place: &str| {
        namespace.apply(&format!(
            "{{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {{name: v1beta2.custom.metrics.k8s.io}}, spec: \
             {{group: custom.metrics.k8s.io, version: v1beta2, groupPriorityMinimum: 100, versionPriority: 200, service: \
             {{name: portlane-metrics, namespace: {place}, port: 443}}}}}}"
        ));
    };
    let apis: Api<APIService> = Api::all(server.client());
    let has_bundle = || {
        let api = block_on(async { apis.get("v1beta2.custom.metrics.k8s.io").await }).expect("the APIService exists");
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
    provider("default");
    until("the metrics API is served", is_served);
    looked();
    assert!(!has_bundle(), "the APIService of another namespace is left alone");
    provider(namespace.name());
    until("the operator's own APIService has a CA bundle", has_bundle);
    namespace.kubectl(&["delete", "apiservice", "v1beta2.custom.metrics.k8s.io"]).ok();
}
