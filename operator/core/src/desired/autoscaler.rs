//! The desired HPA of a gateway or a forward.

use crds::{Autoscaling, ForwardGateway, PortForward, Raw, TargetKind};
use serde_json::{Value, json};

use crate::{
    desired::durability,
    names::{CLASS_LABEL, FORWARD_LABEL, GATEWAY_LABEL, NAME},
    world::ObjectKey,
};

/// Name of the default metric: live connections and flows of a pod.
pub const CONNECTIONS: &str = "portlane_connections";

/// Reason of `ScalingActive` if the API server refuses the HPA or cannot be reached.
pub const FAILED: &str = "ScalerFailed";

/// A desired HPA.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaler {
    /// Namespace and name of the HPA.
    pub key: ObjectKey,
    /// Uid of the object that owns the HPA.
    pub owner: String,
    /// Kind of the target workload.
    pub target_kind: TargetKind,
    /// Name of the target workload.
    pub target: String,
    /// The whole manifest.
    pub manifest: Value,
}

struct Parts<'a> {
    kind: &'static str,
    label: &'static str,
    owner: &'a ObjectKey,
    uid: &'a str,
    class: Option<&'a str>,
    name: String,
    target: (TargetKind, String),
    replicas: (i32, i32),
    /// Target connections per pod, and the forward whose connections count; `None` counts all.
    connections: Option<(i32, Option<&'a str>)>,
    metrics: &'a [Raw],
    behavior: Option<&'a Raw>,
}

/// The HPA of a gateway with `spec.autoscaling`. It targets the Deployment or `StatefulSet`, so `spec.replicas` of the
/// gateway stays untouched.
#[must_use]
pub fn of_gateway(key: &ObjectKey, gateway: &ForwardGateway) -> Option<Scaler> {
    let autoscaling = gateway.spec.autoscaling.as_ref()?;
    Some(scaler(Parts {
        kind: "ForwardGateway",
        label: GATEWAY_LABEL,
        owner: key,
        uid: gateway.metadata.uid.as_deref().unwrap_or_default(),
        class: gateway.spec.controller_class.as_deref(),
        name: key.name.clone(),
        target: (durability::target(gateway), key.name.clone()),
        replicas: (least(autoscaling), autoscaling.max_replicas),
        connections: autoscaling.target_connections_per_pod.map(|target| (target, None)),
        metrics: &autoscaling.metrics,
        behavior: autoscaling.behavior.as_ref(),
    }))
}

/// `minReplicas` of a fleet.
#[must_use]
pub fn least(autoscaling: &Autoscaling) -> i32 {
    autoscaling.min_replicas.unwrap_or_else(|| autoscaling.max_replicas.min(2))
}

/// The HPA of a sidecar forward with `spec.autoscaling`. It targets the workload whose pods carry the sidecars.
#[must_use]
pub fn of_forward(key: &ObjectKey, forward: &PortForward) -> Option<Scaler> {
    let autoscaling = forward.spec.autoscaling.as_ref()?;
    Some(scaler(Parts {
        kind: "PortForward",
        label: FORWARD_LABEL,
        owner: key,
        uid: forward.metadata.uid.as_deref().unwrap_or_default(),
        class: forward.spec.controller_class.as_deref(),
        // A gateway of the same name may have an HPA too.
        name: format!("portforward-{}", key.name),
        target: (autoscaling.target_ref.kind, autoscaling.target_ref.name.clone()),
        replicas: (autoscaling.min_replicas.unwrap_or(1), autoscaling.max_replicas),
        connections: autoscaling.target_connections_per_pod.map(|target| (target, Some(key.name.as_str()))),
        metrics: &autoscaling.metrics,
        behavior: autoscaling.behavior.as_ref(),
    }))
}

fn scaler(parts: Parts<'_>) -> Scaler {
    let (kind, name) = &parts.target;
    let mut metrics: Vec<Value> = parts.connections.iter().map(connections).collect();
    metrics.extend(parts.metrics.iter().map(|raw| json!(raw)));
    let mut spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind.as_str(), "name": name},
        "minReplicas": parts.replicas.0,
        "maxReplicas": parts.replicas.1,
        "metrics": metrics,
    });
    if let Some(behavior) = parts.behavior {
        spec["behavior"] = json!(behavior);
    }
    let key = ObjectKey::new(parts.owner.namespace.clone(), parts.name);
    let mut manifest = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": {"app.kubernetes.io/managed-by": NAME, parts.label: parts.owner.name},
            "ownerReferences": [{
                "apiVersion": format!("{}/{}", crds::GROUP, crds::VERSION),
                "kind": parts.kind,
                "name": parts.owner.name,
                "uid": parts.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": spec,
    });
    if let Some(class) = parts.class {
        manifest["metadata"]["labels"][CLASS_LABEL] = json!(class);
    }
    let (target_kind, target) = parts.target;
    Scaler { key, owner: parts.uid.to_owned(), target_kind, target, manifest }
}

fn connections((target, forward): &(i32, Option<&str>)) -> Value {
    let mut metric = json!({"name": CONNECTIONS});
    if let Some(forward) = forward {
        metric["selector"] = json!({"matchLabels": {"forward": forward}});
    }
    json!({"type": "Pods", "pods": {"metric": metric, "target": {"type": "AverageValue", "averageValue": target.to_string()}}})
}
