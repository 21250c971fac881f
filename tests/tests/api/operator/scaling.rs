//! Autoscalers: made for fleets and workloads, unless somebody else holds the replicas; nothing shrinks when one takes over.

use crds::{ForwardGateway, PortForward};
use harness::{ControlPlane, Namespace, Operator, programs::KubernetesVersion, until};
use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler};

use super::{condition, gateway};

#[test]
fn an_autoscaler_takes_replicas_over_and_gives_them_back_and_fights_with_nobody() {
    let server = ControlPlane::start_with_controller_manager(KubernetesVersion::Oldest);
    if !crate::server::without_kubelets(&server) {
        return;
    }
    server.install_crds();
    let namespace = server.namespace("scaling");
    let _operator = Operator::start(&namespace);
    fleet(&namespace);
    workload(&namespace);
}

fn replicas(namespace: &Namespace<'_>, name: &str) -> Option<i32> {
    namespace.get::<Deployment>(name)?.spec?.replicas
}

fn scaler(namespace: &Namespace<'_>, name: &str) -> Option<HorizontalPodAutoscaler> {
    namespace.get::<HorizontalPodAutoscaler>(name)
}

fn fleet(namespace: &Namespace<'_>) {
    namespace.apply(&gateway("{replicas: 3}"));
    until("the fleet is there", || replicas(namespace, "edge") == Some(3));
    namespace
        .apply(&gateway("{replicas: 3, autoscaling: {minReplicas: 2, maxReplicas: 5, targetConnectionsPerPod: 100}}"));
    until("its autoscaler is there", || scaler(namespace, "edge").is_some());
    let spec = scaler(namespace, "edge").and_then(|scaler| scaler.spec).expect("a spec");
    assert_eq!((spec.scale_target_ref.kind.as_str(), spec.min_replicas, spec.max_replicas), ("Deployment", Some(2), 5));
    let metrics = spec.metrics.expect("metrics");
    let pods = metrics[0].pods.as_ref().expect("of pods");
    assert_eq!(
        (pods.metric.name.as_str(), &pods.target.average_value.as_ref().expect("a value").0),
        ("portlane_connections", &"100".to_owned())
    );
    // Nobody serves metrics here, which is told with what to do.
    let told = |reason: &str| {
        namespace.until::<ForwardGateway>("edge", &format!("ScalingActive for {reason}"), |gateway| {
            let conditions = gateway.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|it| it.type_ == "ScalingActive" && it.reason == reason)
        })
    };
    told("NoMetricsProvider");
    // Scaled by hand, all the same; and nothing of it reaches the Deployment.
    namespace.kubectl(&["scale", "forwardgateway/edge", "--replicas=1"]).ok();
    namespace.until::<ForwardGateway>("edge", "the change is seen", |gateway| {
        gateway.status.as_ref().and_then(|status| status.observed_generation) == gateway.metadata.generation
    });
    assert_eq!(replicas(namespace, "edge"), Some(3), "an autoscaler without metrics leaves them as they were");
    // What the API server would not take is told.
    namespace.apply(&gateway("{autoscaling: {maxReplicas: 5, metrics: [{type: Nonsense}]}}"));
    told("ScalerFailed");
    // Without, it is as it was before.
    namespace.apply(&gateway("{replicas: 2}"));
    until("the replicas are given back", || replicas(namespace, "edge") == Some(2));
    until("the autoscaler is gone", || scaler(namespace, "edge").is_none());
    // One that was parked comes up.
    namespace.apply(&gateway("{replicas: 0}"));
    until("it is parked", || replicas(namespace, "edge") == Some(0));
    namespace
        .apply(&gateway("{replicas: 0, autoscaling: {minReplicas: 3, maxReplicas: 5, targetConnectionsPerPod: 100}}"));
    until("it comes up with the least", || replicas(namespace, "edge") == Some(3));
    // A fleet that scales from its beginning begins with the least.
    namespace.kubectl(&["delete", "forwardgateway", "edge"]).ok();
    until("it is gone", || replicas(namespace, "edge").is_none());
    namespace.apply(&gateway("{autoscaling: {minReplicas: 4, maxReplicas: 5, targetConnectionsPerPod: 100}}"));
    until("it begins with the least", || replicas(namespace, "edge") == Some(4));
}

fn deployment(replicas: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: shop}}, spec: {{{replicas} selector: {{matchLabels: {{app: \
         shop}}}}, template: {{metadata: {{labels: {{app: shop}}}}, spec: {{containers: [{{name: app, image: app}}]}}}}}}}}"
    )
}

fn workload(namespace: &Namespace<'_>) {
    let forward = |autoscaling: &str| {
        format!(
            "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: db}}, spec: {{placement: {{sidecar: \
             {{selector: {{matchLabels: {{app: shop}}}}}}}}, {autoscaling} listeners: [{{name: tcp, protocol: TCP, port: 5432, \
             backends: [{{local: {{port: 1}}}}]}}]}}}}"
        )
    };
    let told = |reason: &str| {
        let forward = namespace.until::<PortForward>("db", &format!("ScalingActive for {reason}"), |forward| {
            condition(forward, "ScalingActive").1 == reason
        });
        let conditions = forward.status.expect("status").conditions;
        conditions.into_iter().find(|it| it.type_ == "ScalingActive").expect("there").message
    };
    namespace.apply(&forward(
        "autoscaling: {targetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}, maxReplicas: 3, targetConnectionsPerPod: 10},",
    ));
    assert!(told("TargetNotFound").contains("Deployment shop"));
    namespace.apply(&deployment("replicas: 1,"));
    assert!(told("ReplicasHeld").contains("kubectl-client-side-apply"));
    let name = "portforward-db";
    assert!(scaler(namespace, name).is_none());
    namespace.apply(&deployment(""));
    until("nobody holds them any more", || scaler(namespace, name).is_some());
    let selector = "--output=jsonpath={.spec.metrics[0].pods.metric.selector.matchLabels.forward}";
    assert_eq!(namespace.kubectl(&["get", "hpa", name, selector]).ok(), "db", "connections of this forward count");
    told("NoMetricsProvider");
    // Somebody else's autoscaler was there first, as far as this one can see: it gives way.
    namespace.kubectl(&["autoscale", "deployment", "shop", "--max=2"]).ok();
    namespace.kubectl(&["label", "pf", "db", "touched=yes"]).ok();
    namespace.apply(&forward(
        "autoscaling: {targetRef: {kind: Deployment, name: shop}, maxReplicas: 4, targetConnectionsPerPod: 10},",
    ));
    assert!(told("TargetTaken").contains("HorizontalPodAutoscaler shop"));
    until("it has given way", || scaler(namespace, name).is_none());
    namespace.kubectl(&["delete", "hpa", "shop"]).ok();
    until("it is back", || scaler(namespace, name).is_some());
    // Another forward wants the same workload: the first by name has it, and keeps it.
    let other = forward(
        "autoscaling: {targetRef: {kind: Deployment, name: shop}, maxReplicas: 4, targetConnectionsPerPod: 10},",
    );
    namespace.apply(&other.replace("name: db", "name: late").replace("port: 5432", "port: 5433"));
    namespace.until::<PortForward>("late", "it gives way to db", |forward| {
        condition(forward, "ScalingActive").1 == "TargetTaken"
    });
    assert!(scaler(namespace, name).is_some() && scaler(namespace, "portforward-late").is_none());
    namespace.apply(&forward(""));
    until("it is gone", || scaler(namespace, name).is_none());
    until("the other one has the workload now", || scaler(namespace, "portforward-late").is_some());
    namespace.kubectl(&["delete", "pf", "late"]).ok();
    let after = namespace
        .until::<PortForward>("db", "no word of scaling", |forward| condition(forward, "ScalingActive").1.is_empty());
    assert_eq!(condition(&after, "Accepted").0, "True");
}
