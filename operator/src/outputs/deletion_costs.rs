//! Writes the deletion costs of pods.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    schedule::{CostWrite, is_outdated, upkeep::Cause},
    world::{objects::Cost, read::cost_of},
};

use crate::platform::{
    deadline::{RequestError, answer},
    metrics::{Metrics, count},
};

/// Writes costs, and logs and counts the results.
#[derive(Clone)]
pub struct CostWriter {
    client: Client,
    metrics: Arc<Metrics>,
    /// Status code of the last failed write; the inner `None` means that the API server did not answer. The messages of
    /// the API server name the pod, so each failure would have another cause.
    cause: Arc<Mutex<Cause<Option<u16>>>>,
}

impl CostWriter {
    /// A writer that uses this client.
    #[must_use]
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self { client, metrics, cause: Arc::default() }
    }

    /// Writes the cost of one pod.
    pub async fn write(self, CostWrite { pod, uid, cost }: CostWrite) {
        let result = match write_cost(self.client.clone(), &pod, &uid, cost).await {
            // A pod that was only read proves nothing about the permission to write.
            Ok(Outcome::Outdated) => "outdated",
            Ok(Outcome::Written) => {
                self.cause().succeeded();
                "written"
            }
            // The pod is gone, was recreated, or has changed since it was read.
            Err(error) if is_outdated(error.code()) => "outdated",
            Err(error) => {
                count(&self.metrics.api_errors, "request", "deletion-cost");
                // Each cause is logged once: a Role without permission to patch pods would cause eight lines per
                // second.
                if self.cause().failed(error.code()) {
                    tracing::warn!(%pod, %error, "cannot write the deletion cost of a pod, will retry");
                }
                "failed"
            }
        };
        count(&self.metrics.deletion_costs, "result", result);
    }

    fn cause(&self) -> MutexGuard<'_, Cause<Option<u16>>> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outcome of a write that the API server did not refuse.
enum Outcome {
    /// The pod has the cost.
    Written,
    /// The pod was recreated, or another client has set a cost.
    Outdated,
}

/// Writes the cost unless the pod was recreated or another client has set a cost meanwhile.
async fn write_cost(client: Client, pod: &ObjectKey, uid: &str, cost: i32) -> Result<Outcome, RequestError> {
    let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(client, &pod.namespace);
    let current = answer(api.get_metadata(&pod.name)).await?.metadata;
    if current.uid.as_deref() != Some(uid) || cost_of(&current) == Cost::Foreign {
        return Ok(Outcome::Outdated);
    }
    let metadata = json!({
        "uid": uid, "resourceVersion": current.resource_version, "annotations": {DELETION_COST: cost.to_string()},
    });
    let parameters = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"metadata": metadata}));
    answer(api.patch_metadata(&pod.name, &parameters, &patch)).await?;
    Ok(Outcome::Written)
}
