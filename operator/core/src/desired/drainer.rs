//! The drainer: a Job that sends the messages on the claim of a pod that a smaller fleet no longer has.

use std::collections::BTreeMap;

use crds::ForwardGateway;
use serde_json::{Map, Value, json};

use crate::{
    desired::{
        durability::VOLUME,
        gateway::{Fleets, pod_template},
        jetstream,
    },
    names::{CLASS_LABEL, DRAINED_FOR, DRAINER, DRAINS_LABEL, HEALTH_PORT, NAME, PROXY_LABEL},
    world::ObjectKey,
};

/// Fields that a drainer lacks: it serves nothing, so no endpoint leads to it.
const SERVING: [&str; 2] = ["readinessProbe", "lifecycle"];

/// A drainer to create.
#[derive(Clone, Debug, PartialEq)]
pub struct Drainer {
    /// Namespace and name of the Job.
    pub key: ObjectKey,
    /// The whole manifest.
    pub manifest: Value,
}

/// Namespace and name of the drainer of a claim.
#[must_use]
pub fn key(gateway: &ObjectKey, ordinal: i32) -> ObjectKey {
    ObjectKey::new(gateway.namespace.clone(), format!("{}-drain-{ordinal}", gateway.name))
}

/// The drainer of a claim. `fleets.image` is the image of the fleet, `roots` the CA bundle, PEM, and `drained_for` says
/// what its success will prove.
#[must_use]
pub fn drainer(
    (gateway_key, gateway): (&ObjectKey, &ForwardGateway),
    fleets: &Fleets,
    roots: &str,
    (claim, ordinal): (&ObjectKey, i32),
    drained_for: &str,
) -> Drainer {
    let key = key(gateway_key, ordinal);
    let labels = labels(gateway_key, gateway);
    let mut of_pods = labels.clone();
    of_pods.insert(PROXY_LABEL, DRAINER);
    let mut template = pod_template(gateway_key, gateway, fleets, roots);
    // A Service may select labels that the author of the gateway chose.
    template["metadata"]["labels"] = json!(of_pods);
    complete(&mut template["spec"], claim);
    let manifest = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": labels,
            "annotations": {DRAINED_FOR: drained_for},
            "ownerReferences": [{
                "apiVersion": format!("{}/{}", crds::GROUP, crds::VERSION),
                "kind": "ForwardGateway",
                "name": gateway_key.name,
                "uid": gateway.metadata.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        // A drainer is never given up: nothing else would send these messages. Its pod is replaced only after it has
        // ended, because only one pod may use the claim.
        "spec": {"backoffLimit": i32::MAX, "podReplacementPolicy": "Failed", "template": template},
    });
    Drainer { key, manifest }
}

fn labels<'a>(key: &'a ObjectKey, gateway: &'a ForwardGateway) -> BTreeMap<&'static str, &'a str> {
    let own = [
        ("app.kubernetes.io/name", "portlane-drainer"),
        ("app.kubernetes.io/instance", key.name.as_str()),
        ("app.kubernetes.io/managed-by", NAME),
        (DRAINS_LABEL, key.name.as_str()),
    ];
    let class = gateway.spec.controller_class.as_deref().map(|class| (CLASS_LABEL, class));
    own.into_iter().chain(class).collect()
}

/// Turns the pod of a fleet into the pod of a drainer.
fn complete(pod: &mut Value, claim: &ObjectKey) {
    pod["restartPolicy"] = json!("OnFailure");
    // A drainer sends the messages on the claim, and must not wait for a Secret.
    jetstream::unmount(pod);
    if let Some(volumes) = pod["volumes"].as_array_mut() {
        volumes.push(json!({"name": VOLUME, "persistentVolumeClaim": {"claimName": claim.name}}));
    }
    if let Some(fields) = pod.as_object_mut() {
        // The volume decides where the pod can run, and pods of the fleet must not keep it away from there.
        fields.remove("topologySpreadConstraints");
        if let Some(affinity) = fields.get_mut("affinity").and_then(Value::as_object_mut) {
            affinity.retain(|kind, _| kind == "nodeAffinity");
        }
    }
    if let Some(container) = pod.pointer_mut("/containers/0").and_then(Value::as_object_mut) {
        drain_only(container);
    }
}

fn drain_only(container: &mut Map<String, Value>) {
    container.retain(|field, _| !SERVING.contains(&field.as_str()));
    // Prometheus finds a drainer by its metrics port.
    if let Some(ports) = container.get_mut("ports").and_then(Value::as_array_mut) {
        ports.retain(|port| port["containerPort"] == HEALTH_PORT);
    }
    // A program that cannot drain would ignore a variable and might exit with 0; it refuses an unknown argument.
    container.insert("args".to_owned(), json!(["--drain-only"]));
}
