//! Gateways with claims. The test plays the controllers of `StatefulSet`s and Jobs.

use crds::ForwardGateway;
use harness::{Namespace, Namespaced, Operator, block_on, programs::KubernetesVersion};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::PersistentVolumeClaim,
};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::gateway;
use crate::rights::{Chart, was_refused_nothing};

/// The claim of the second pod, which the controller of `StatefulSet`s has made. Its finalizer lets the test see that
/// it goes.
const CLAIM: &str = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: messages-edge-1, finalizers: \
                     [example.com/hold], labels: {app.kubernetes.io/managed-by: portlane-operator, \
                     portlane.dev/gateway: edge}}, spec: {accessModes: [ReadWriteOnce], resources: {requests: \
                     {storage: 1Gi}}}}";

#[track_caller]
fn write<K: Namespaced>(namespace: &Namespace<'_>, name: &str, status: &Value) {
    let (api, patch) = (namespace.api::<K>(), json!({"status": status}));
    let written = block_on(async { api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await });
    assert!(written.is_ok(), "cannot write the status of {name}: {:?}", written.err());
}

/// The controller has seen the newest generation of the fleet.
#[track_caller]
fn observe(namespace: &Namespace<'_>) {
    let generation = namespace.get::<StatefulSet>("edge").expect("the fleet").metadata.generation;
    write::<StatefulSet>(namespace, "edge", &json!({"observedGeneration": generation, "replicas": 1}));
}

fn draining(gateway: &ForwardGateway) -> Option<u32> {
    gateway.status.as_ref()?.draining_claims
}

#[test]
fn a_gateway_with_claims_is_a_stateful_set_and_a_claim_beyond_it_is_drained_before_it_goes() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = &server.namespace("claims");
    let values = format!("watchNamespaces={{{}}},claims.enabled=true", namespace.name());
    let _chart = Chart::apply(namespace, &["serviceaccount", "rbac", "claims-policy"], &["--set", &values]);
    let operator = Operator::with_account(namespace, "portlane-operator", &["--fleet-claims", "true"]);
    namespace.apply(&gateway("{replicas: 1, durability: {volumeClaim: {size: 1Gi}}}"));
    namespace.until::<StatefulSet>("edge", "exists", |_| true);
    assert!(namespace.get::<Deployment>("edge").is_none());
    for durability in [Value::Null, json!({"volumeClaim": {"size": "2Gi"}})] {
        let patch = json!({"spec": {"durability": durability}}).to_string();
        let refused = namespace.kubectl(&["patch", "fgw/edge", "--type=merge", "--patch", &patch]).refused();
        assert!(refused.contains("durability cannot be added, changed or removed"), "{refused}");
    }

    namespace.apply(CLAIM);
    observe(namespace);
    let job = namespace.until::<Job>("edge-drain-1", "is made", |_| true);
    let template = job.spec.expect("a spec").template;
    let labels = template.metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
    assert_eq!(labels.get("portlane.dev/proxy").map(String::as_str), Some("drainer"));
    assert!(!labels.contains_key("portlane.dev/gateway"), "{labels:?}");
    namespace.until::<ForwardGateway>("edge", "counts the claim", |gateway| draining(gateway) == Some(1));

    // The fleet has the pod again, and loses it again.
    namespace.kubectl(&["scale", "forwardgateway/edge", "--replicas=2"]).ok();
    namespace.until_gone::<Job>("edge-drain-1");
    let claim = namespace.get::<PersistentVolumeClaim>("messages-edge-1").expect("the claim");
    assert!(claim.metadata.deletion_timestamp.is_none());
    namespace.kubectl(&["scale", "forwardgateway/edge", "--replicas=1"]).ok();
    namespace.until::<StatefulSet>("edge", "is small again", |set| {
        set.spec.as_ref().and_then(|spec| spec.replicas) == Some(1)
    });
    observe(namespace);
    namespace.until::<Job>("edge-drain-1", "is made again", |_| true);

    // The sinks have everything.
    let time = "2026-01-01T00:00:00Z";
    let conditions =
        ["SuccessCriteriaMet", "Complete"].map(|kind| json!({"type": kind, "status": "True", "reason": "Test"}));
    let ended = json!({"startTime": time, "completionTime": time, "succeeded": 1, "conditions": conditions});
    write::<Job>(namespace, "edge-drain-1", &ended);
    namespace.until::<PersistentVolumeClaim>("messages-edge-1", "is being deleted", |claim| {
        claim.metadata.deletion_timestamp.is_some()
    });
    namespace.until_gone::<Job>("edge-drain-1");
    let release = r#"{"metadata": {"finalizers": null}}"#;
    namespace.kubectl(&["patch", "pvc", "messages-edge-1", "--type=merge", "--patch", release]).ok();
    namespace.until::<ForwardGateway>("edge", "counts no claim", |gateway| draining(gateway).is_none());
    was_refused_nothing(&operator);
}
