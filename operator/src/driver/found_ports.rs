//! Ports that a sidecar found in use in its pod are its app's. They are written down on the pod, in the annotation that also says
//! which ports its containers declare: a proxy that only tried again would take such a port as soon as the app is restarted, and the
//! app would not start.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::PartialObjectMeta,
};
use operator_core::{Group, ObjectKey, found_in_use};
use proxy_api::{FailureReason, ReportPart};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::Leading;
use crate::{
    NAME,
    inject::{APP_PORTS, AppPorts, with_app_ports},
    metrics::{Metrics, count},
};

/// Writes in one tick of a quarter of a second: 8 a second in all.
const WRITES_PER_TICK: usize = 2;
/// Time for which a port has to be found in use: one of the proxy's own sockets may be about to close.
const SURE: Duration = Duration::from_secs(5);
/// Pause before a pod is written again, if its ports are still found in use; twice as long after each time, up to 64 times.
const AGAIN: Duration = Duration::from_secs(10);
/// Longest time for one write.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pods whose proxy found ports in use.
pub struct FoundPorts {
    /// Absent: nothing is written at all.
    client: Option<Client>,
    metrics: Arc<Metrics>,
    /// When to write, and how often it was done.
    due: BTreeMap<ObjectKey, (Instant, u32)>,
}

impl FoundPorts {
    /// None yet.
    #[must_use]
    pub fn new(client: Option<Client>, metrics: Arc<Metrics>) -> Self {
        Self { client, metrics, due: BTreeMap::new() }
    }

    pub(super) fn forget(&mut self) {
        self.due.clear();
    }

    /// A proxy reported.
    pub(super) fn reported(&mut self, pod: &ObjectKey, part: &ReportPart, now: Instant) {
        let mut failures = part.listeners.values().filter_map(|report| report.failure.as_ref());
        if failures.any(|failure| failure.reason == FailureReason::AddressInUse) {
            self.due.entry(pod.clone()).or_insert((now + SURE, 0));
        }
    }

    /// Writes some of what was found.
    pub(super) fn tick(&mut self, leading: &Leading, now: Instant) {
        let Some(client) = &self.client else { return self.due.clear() };
        let ports = |pod: &ObjectKey| -> Option<AppPorts> {
            let group = leading.translator.group_of(pod).filter(|group| matches!(group, Group::Sidecars { .. }))?;
            Some(found_in_use(leading.proxies.get(pod)?, leading.translator.snapshot(group)?))
        };
        let due = self.due.iter().filter(|(_, (at, _))| *at <= now).map(|(pod, _)| pod.clone()).take(WRITES_PER_TICK);
        for pod in due.collect::<Vec<_>>() {
            match ports(&pod).filter(|ports| !ports.is_empty()) {
                None => drop(self.due.remove(&pod)),
                Some(ports) => {
                    if let Some((at, times)) = self.due.get_mut(&pod) {
                        *at = now + AGAIN * (1 << *times);
                        *times = (*times + 1).min(6);
                    }
                    tokio::spawn(write(client.clone(), pod, ports, self.metrics.clone()));
                }
            }
        }
    }
}

async fn write(client: Client, pod: ObjectKey, ports: AppPorts, metrics: Arc<Metrics>) {
    let result = match timeout(PATIENCE, write_ports(client, &pod, &ports)).await {
        Ok(Ok(result)) => result,
        // It is gone, or was written meanwhile.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => "outdated",
        Ok(Err(_)) | Err(_) => {
            count(&metrics.api_errors, "request", "found-ports");
            "failed"
        }
    };
    count(&metrics.found_ports, "result", result);
}

/// Adds the ports to the annotation of the pod as it is now. What it says of them otherwise stays.
async fn write_ports(client: Client, pod: &ObjectKey, ports: &AppPorts) -> Result<&'static str, kube::Error> {
    let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(client, &pod.namespace);
    let there = api.get_metadata(&pod.name).await?.metadata;
    let annotation = there.annotations.as_ref().and_then(|all| all.get(APP_PORTS)).map_or("", String::as_str);
    let Some(annotation) = with_app_ports(annotation, ports) else { return Ok("known") };
    let metadata = json!({
        "uid": there.uid, "resourceVersion": there.resource_version, "annotations": {APP_PORTS: annotation},
    });
    let parameters = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
    api.patch_metadata(&pod.name, &parameters, &Patch::Merge(json!({"metadata": metadata}))).await?;
    Ok("written")
}
