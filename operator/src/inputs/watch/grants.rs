//! Watch of the Gateway API's `ReferenceGrant`s, in clusters that serve the kind.

use std::time::Duration;

use kube::{
    Api,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher::watcher,
};
use tokio::time::sleep;

use super::Task;
use operator_core::world::{read, watched::Seen};

/// Interval between two checks whether the cluster serves the kind.
const LOOK: Duration = Duration::from_secs(30);

/// Watches grants once the cluster serves the kind. Until then the driver gets an empty list.
pub(super) async fn run(task: &Task) {
    let mut told = false;
    loop {
        if let Some(resource) = resource(task).await {
            let api = match &task.source.namespace {
                Some(namespace) => Api::<DynamicObject>::namespaced_with(task.client.clone(), namespace, &resource),
                None => Api::all_with(task.client.clone(), &resource),
            };
            let events = watcher(api, super::config());
            task.pump(events, |object| read::grants(&object)).await;
            return;
        }
        if !std::mem::replace(&mut told, true) {
            for seen in [Seen::Restarted, Seen::Synced] {
                if task.out.send((task.source.clone(), seen)).await.is_err() {
                    return;
                }
            }
        }
        sleep(LOOK).await;
    }
}

/// The kind in the version that this cluster serves. Absent if the cluster does not serve it, or does not answer.
async fn resource(task: &Task) -> Option<ApiResource> {
    for version in ["v1", "v1beta1"] {
        let group = format!("gateway.networking.k8s.io/{version}");
        let Ok(list) = task.client.list_api_group_resources(&group).await else { continue };
        if list.resources.iter().any(|resource| resource.kind == "ReferenceGrant") {
            let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", version, "ReferenceGrant");
            return Some(ApiResource::from_gvk(&kind));
        }
    }
    None
}
