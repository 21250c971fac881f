//! Who holds `spec.replicas` of a workload, so that an autoscaler would fight with them.

use k8s_openapi::{api::autoscaling::v2::HorizontalPodAutoscaler, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::Value;

use crate::{
    desired::autoscaler::Scaler,
    names::{HANDOVER, NAME},
    status::scaling::NoScaler,
    world::managed_fields::{REPLICAS, has_field},
};

/// Replicas of a workload that does not say how many (apps/v1).
const DEFAULT: i32 = 1;
/// How managers begin that work as Helm does: itself, Flux's `helm-controller`, Terraform.
const HELM: [&str; 2] = ["helm", "terraform-provider-helm"];
/// What `kubectl apply` and Argo CD remember of their manifests.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager whose manifests say how many replicas there are, if there is one.
///
/// Of server-side appliers the managed fields tell. Others are named there for every field of an object that they made,
/// defaults included; what they wrote themselves stands in an annotation. Helm before its version 4 has no such annotation:
/// it holds replicas if it set others than the default, and the next upgrade sets them again. Whoever scales once (`kubectl
/// scale`, another autoscaler) does not come back to it.
#[must_use]
pub fn holder(metadata: &ObjectMeta, replicas: Option<i32>) -> Option<String> {
    let entries = metadata.managed_fields.as_deref().unwrap_or_default();
    let mut holding = entries.iter().filter(|entry| has_field(entry, &REPLICAS) && entry.subresource.is_none());
    let is_other = |manager: &str| manager != NAME && manager != HANDOVER;
    let applier = holding
        .clone()
        .find(|entry| entry.operation.as_deref() == Some("Apply") && entry.manager.as_deref().is_some_and(is_other));
    if let Some(applier) = applier {
        return applier.manager.clone();
    }
    let is_helm = |manager: &String| HELM.iter().any(|helm| manager.starts_with(helm));
    let helm = holding.clone().find_map(|entry| entry.manager.clone().filter(is_helm));
    if let Some(helm) = helm.filter(|_| replicas.is_some_and(|replicas| replicas != DEFAULT)) {
        return Some(helm);
    }
    let kept = metadata.annotations.as_ref().and_then(|all| all.get(LAST_APPLIED));
    let kept: Option<Value> = kept.and_then(|text| serde_json::from_str(text).ok());
    if kept.is_none_or(|kept| kept["spec"]["replicas"].is_null()) {
        return None;
    }
    let updater = holding.find_map(|entry| entry.manager.clone().filter(|manager| is_other(manager)));
    Some(updater.unwrap_or_else(|| "kubectl apply".to_owned()))
}

/// What keeps an autoscaler of ours from being made: no target, or somebody else who sets its replicas. `target` is the
/// metadata of the workload with its `spec.replicas`; `others` are the autoscalers of the namespace.
#[must_use]
pub fn obstacle(
    scaler: &Scaler,
    target: Option<(&ObjectMeta, Option<i32>)>,
    others: &[HorizontalPodAutoscaler],
) -> Option<NoScaler> {
    let no = |reason, message: String| Some(NoScaler { reason, message });
    let (kind, name) = (scaler.target_kind.as_str(), &scaler.target);
    let Some((metadata, replicas)) = target else {
        let message =
            format!("{kind} {name} does not exist in this namespace: create it, or correct autoscaling.targetRef");
        return no("TargetNotFound", message);
    };
    if let Some(holder) = holder(metadata, replicas) {
        let message = format!(
            "spec.replicas of {kind} {name} is managed by '{holder}', which would undo what an autoscaler does: remove replicas \
             from its manifest"
        );
        return no("ReplicasHeld", message);
    }
    let is_ours = |other: &HorizontalPodAutoscaler| {
        other.metadata.owner_references.iter().flatten().any(|owner| owner.uid == scaler.owner)
    };
    for other in others.iter().filter(|other| !is_ours(other)) {
        let other_name = other.metadata.name.as_deref().unwrap_or_default();
        if other_name == scaler.key.name {
            let message = format!(
                "HorizontalPodAutoscaler {other_name} exists and does not belong to this object: delete or rename it"
            );
            return no("NameTaken", message);
        }
        let aim = other.spec.as_ref().map(|spec| &spec.scale_target_ref);
        if aim.is_some_and(|aim| aim.kind == kind && aim.name == *name) {
            let message = format!(
                "HorizontalPodAutoscaler {other_name} already scales {kind} {name}, and two would fight: delete it, or remove \
                 spec.autoscaling"
            );
            return no("TargetTaken", message);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(manager: &str, operation: &str, subresource: Option<&str>, applied: Option<&str>) -> ObjectMeta {
        let fields = json!({"f:spec": {"f:replicas": {}}});
        let mut entry = json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
            "fieldsV1": fields});
        if let Some(subresource) = subresource {
            entry["subresource"] = json!(subresource);
        }
        let annotations = applied.map(|applied| json!({LAST_APPLIED: applied}));
        serde_json::from_value(json!({"managedFields": [entry], "annotations": annotations})).expect("metadata")
    }

    #[test]
    fn whoever_comes_back_to_the_replicas_holds_them() {
        let held = |manager, operation, subresource, applied| {
            holder(&metadata(manager, operation, subresource, applied), Some(1))
        };
        assert_eq!(held("argocd-controller", "Apply", None, None).as_deref(), Some("argocd-controller"));
        assert_eq!(held(NAME, "Apply", None, None), None);
        assert_eq!(held(HANDOVER, "Apply", None, None), None);
        assert_eq!(held("kube-controller-manager", "Update", Some("scale"), None), None, "an autoscaler's own work");
        let manager = "kubectl-client-side-apply";
        assert_eq!(held(manager, "Update", None, Some("{\"spec\": {}}")), None, "only a default");
        assert_eq!(held(manager, "Update", None, Some("{\"spec\": {\"replicas\": 2}}")).as_deref(), Some(manager));
        assert_eq!(held("helm", "Update", None, None), None, "a default, as far as one can see");
        let upgraded = metadata("helm", "Update", None, None);
        assert_eq!(holder(&upgraded, Some(3)).as_deref(), Some("helm"));
        let flux = metadata("helm-controller", "Update", None, None);
        assert_eq!(holder(&flux, Some(3)).as_deref(), Some("helm-controller"));
        assert_eq!(holder(&metadata("kube-controller-manager", "Update", Some("scale"), None), Some(3)), None);
        assert_eq!(holder(&ObjectMeta::default(), Some(3)), None);
    }
}
