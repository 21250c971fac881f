//! Obstacles to an HPA: a missing target, another owner of `spec.replicas`, or another HPA.

use k8s_openapi::{api::autoscaling::v2::HorizontalPodAutoscaler, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::Value;

use crate::{
    desired::autoscaler::{FAILED, Scaler},
    names::{HANDOVER, NAME},
    world::managed_fields::{REPLICAS, has_field},
};

/// Default of `spec.replicas` (apps/v1).
const DEFAULT: i32 = 1;
/// Prefixes of field managers that work like Helm: Helm itself, Flux's `helm-controller`, Terraform.
const HELM: [&str; 2] = ["helm", "terraform-provider-helm"];
/// Annotation in which `kubectl apply` and Argo CD keep the last manifest.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Why an HPA is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoScaler {
    /// The reason, one CamelCase word.
    pub reason: &'static str,
    /// The cause and the remedy, for a person.
    pub message: String,
}

/// Whether an earlier HPA must be deleted for this reason. A failed request proves nothing.
#[must_use]
pub fn ends_earlier(why: &NoScaler) -> bool {
    why.reason != FAILED
}

/// The field manager whose manifest sets `spec.replicas`; `None` if no manifest does.
///
/// Managed fields name server-side appliers reliably. A client-side manager that created an object is listed for every
/// field, defaults included; the last-applied annotation shows which fields its manifest sets. Helm before version 4
/// writes no such annotation: it holds `spec.replicas` if the value is not the default, because the next upgrade sets
/// it again. A manager that scaled once (`kubectl scale`, another HPA) does not return, so it holds nothing.
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

/// Why an HPA cannot be applied: the target does not exist, or something else sets its replicas. `target` is the
/// metadata of the workload with its `spec.replicas`; `others` are the HPAs of the namespace.
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
            format!("{kind} {name} does not exist in this namespace: create it, or correct spec.autoscaling.targetRef");
        return no("TargetNotFound", message);
    };
    if let Some(holder) = holder(metadata, replicas) {
        let message = format!(
            "spec.replicas of {kind} {name} is managed by '{holder}', which would undo every scaling: remove \
             spec.replicas from that manifest"
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
                "HorizontalPodAutoscaler {other_name} exists, but this object does not own it: delete or rename the \
                 HorizontalPodAutoscaler"
            );
            return no("NameTaken", message);
        }
        let aim = other.spec.as_ref().map(|spec| &spec.scale_target_ref);
        if aim.is_some_and(|aim| aim.kind == kind && aim.name == *name) {
            let message = format!(
                "HorizontalPodAutoscaler {other_name} already scales {kind} {name}, and two would undo each other's \
                 work: delete the HorizontalPodAutoscaler, or remove spec.autoscaling from this object"
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
        let mut entry = json!({
            "manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        });
        if let Some(subresource) = subresource {
            entry["subresource"] = json!(subresource);
        }
        let annotations = applied.map(|applied| json!({LAST_APPLIED: applied}));
        serde_json::from_value(json!({"managedFields": [entry], "annotations": annotations})).expect("metadata")
    }

    #[test]
    fn a_manager_that_sets_replicas_again_holds_them() {
        let held = |manager, operation, subresource, applied| {
            holder(&metadata(manager, operation, subresource, applied), Some(1))
        };
        assert_eq!(held("argocd-controller", "Apply", None, None).as_deref(), Some("argocd-controller"));
        assert_eq!(held(NAME, "Apply", None, None), None);
        assert_eq!(held(HANDOVER, "Apply", None, None), None);
        assert_eq!(held("kube-controller-manager", "Update", Some("scale"), None), None, "scaled by an HPA");
        let manager = "kubectl-client-side-apply";
        assert_eq!(held(manager, "Update", None, Some("{\"spec\": {}}")), None, "only the default");
        assert_eq!(held(manager, "Update", None, Some("{\"spec\": {\"replicas\": 2}}")).as_deref(), Some(manager));
        assert_eq!(held("helm", "Update", None, None), None, "possibly the default");
        let upgraded = metadata("helm", "Update", None, None);
        assert_eq!(holder(&upgraded, Some(3)).as_deref(), Some("helm"));
        let flux = metadata("helm-controller", "Update", None, None);
        assert_eq!(holder(&flux, Some(3)).as_deref(), Some("helm-controller"));
        assert_eq!(holder(&metadata("kube-controller-manager", "Update", Some("scale"), None), Some(3)), None);
        assert_eq!(holder(&ObjectMeta::default(), Some(3)), None);
    }

    #[test]
    fn an_applier_of_other_fields_does_not_hold_replicas() {
        let mut applied = metadata("argocd-controller", "Apply", None, None);
        assert!(holder(&applied, Some(3)).is_some());
        let entry = &mut applied.managed_fields.as_mut().expect("entries")[0];
        entry.fields_v1.as_mut().expect("fields").0 = json!({"f:spec": {"f:template": {}}});
        assert_eq!(holder(&applied, Some(3)), None);
    }
}
