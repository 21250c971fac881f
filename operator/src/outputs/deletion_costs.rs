//! Writes the deletion costs of pods.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::PartialObjectMeta,
};
use serde_json::json;

use operator_core::{
    ObjectKey,
    names::{DELETION_COST, NAME},
    schedule::CostWrite,
    world::{objects::Cost, read::cost_of},
};

use crate::{
    outputs::deadline::{RequestError, answer},
    platform::metrics::{Metrics, count},
};

/// Writes the cost of one pod, and counts the result.
pub async fn write(client: Client, CostWrite { pod, uid, cost }: CostWrite, metrics: Arc<Metrics>) {
    let result = match write_cost(client, &pod, &uid, cost).await {
        Ok(result) => result,
        // The pod is gone, was replaced, or changed since it was read.
        Err(error) if matches!(error.code(), Some(404 | 409)) => "outdated",
        Err(_) => {
            count(&metrics.api_errors, "request", "deletion-cost");
            "failed"
        }
    };
    count(&metrics.deletion_costs, "result", result);
}

/// Writes the cost unless the pod was replaced or another client has set a cost meanwhile.
async fn write_cost(client: Client, pod: &ObjectKey, uid: &str, cost: i32) -> Result<&'static str, RequestError> {
    let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(client, &pod.namespace);
    let current = answer(api.get_metadata(&pod.name)).await?.metadata;
    if current.uid.as_deref() != Some(uid) || cost_of(&current) == Cost::Foreign {
        return Ok("outdated");
    }
    let metadata = json!({
        "uid": uid, "resourceVersion": current.resource_version, "annotations": {DELETION_COST: cost.to_string()},
    });
    let parameters = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"metadata": metadata}));
    answer(api.patch_metadata(&pod.name, &parameters, &patch)).await?;
    Ok("written")
}
