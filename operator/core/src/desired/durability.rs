//! The fields of a fleet for the claims of its pods, for a gateway with `spec.durability`.

use crds::{ForwardGateway, TargetKind, VolumeClaim};
use serde_json::{Value, json};

use crate::{
    names::{CLASS_LABEL, NAME},
    world::ObjectKey,
};

/// Name of the volume, and of the claim template: the claim of a pod is named after template and pod.
pub(super) const VOLUME: &str = "messages";
/// Mount path of the volume in the container.
const FOLDER: &str = "/var/lib/portlane-messages";

/// The claim that each pod of a fleet has.
pub(super) fn claim(gateway: &ForwardGateway) -> Option<&VolumeClaim> {
    gateway.spec.durability.as_ref().map(|durability| &durability.volume_claim)
}

/// The kind of a gateway's fleet, as an HPA names it.
pub(super) fn target(gateway: &ForwardGateway) -> TargetKind {
    if claim(gateway).is_some() { TargetKind::StatefulSet } else { TargetKind::Deployment }
}

/// Completes the spec of a `StatefulSet`. The claim template, including its labels, can never change: the API server
/// refuses that.
pub(super) fn complete(spec: &mut Value, key: &ObjectKey, gateway: &ForwardGateway, claim: &VolumeClaim) {
    let mut labels = json!({"app.kubernetes.io/managed-by": NAME});
    if let Some(class) = &gateway.spec.controller_class {
        labels[CLASS_LABEL] = json!(class);
    }
    let mut wanted = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": claim.size}},
    });
    if let Some(class) = &claim.storage_class_name {
        wanted["storageClassName"] = json!(class);
    }
    // Older API servers require a name. Nothing resolves the names of single pods, so the Service may be missing.
    spec["serviceName"] = json!(key.name);
    spec["podManagementPolicy"] = json!("Parallel");
    // Pods are replaced one after the other, as two pods cannot use one claim.
    spec["updateStrategy"] = json!({"type": "RollingUpdate"});
    spec["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    spec["volumeClaimTemplates"] = json!([{"metadata": {"name": VOLUME, "labels": labels}, "spec": wanted}]);
}

/// Mounts the volume in the container of a pod. The group of the proxy must own it.
pub(super) fn mount(pod: &mut Value) {
    // Changing the owner of every file at each start would take minutes on a large volume.
    pod["securityContext"]["fsGroupChangePolicy"] = json!("OnRootMismatch");
    if let Some(mounts) = pod.pointer_mut("/containers/0/volumeMounts").and_then(Value::as_array_mut) {
        mounts.push(json!({"name": VOLUME, "mountPath": FOLDER}));
    }
}

/// Variables of a proxy with a claim. The messages outlive the pod, so its end does not wait for sinks.
pub(super) fn variables(claim: &VolumeClaim) -> [Value; 2] {
    let bytes = bytes(&claim.size) / 16 * 15;
    [
        json!({"name": "PORTLANE_DATA", "value": FOLDER}),
        json!({"name": "PORTLANE_DATA_BYTES", "value": bytes.to_string()}),
    ]
}

/// The bytes of a size in `Gi` or `Ti`; 0 if it is neither.
fn bytes(size: &str) -> u64 {
    let number = |unit: &str| size.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
    let gibibytes = number("Gi").or_else(|| number("Ti").map(|number| number.saturating_mul(1 << 10)));
    gibibytes.unwrap_or(0).saturating_mul(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_bytes() {
        assert_eq!((bytes("1Gi"), bytes("16384Gi"), bytes("16Ti")), (1 << 30, 16 << 40, 16 << 40));
        assert_eq!((bytes("1Mi"), bytes("Gi"), bytes("99999999999999Ti")), (0, 0, u64::MAX));
    }
}
