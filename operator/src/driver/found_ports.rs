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
use proxy_api::Transport;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::Leading;
use crate::{
    NAME,
    cache::Cache,
    inject::{APP_PORTS, AppPorts, with_app_ports},
    metrics::{Metrics, count},
};

/// Writes in one tick of a quarter of a second: 8 a second in all.
const WRITES_PER_TICK: usize = 2;
/// Time for which a port has to be found in use: one of the proxy's own sockets may be about to close.
const SURE: Duration = Duration::from_secs(5);
/// Pause before a pod is written again that does not show what was written; twice as long after each time, up to 64 times.
const AGAIN: Duration = Duration::from_secs(10);
/// Longest time for one write.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ports that proxies found in use.
pub struct FoundPorts {
    /// Absent: nothing is written at all.
    client: Option<Client>,
    metrics: Arc<Metrics>,
    pods: BTreeMap<ObjectKey, Found>,
}

/// Those of one pod.
struct Found {
    uid: String,
    /// Since when each of them is in use.
    since: BTreeMap<(Transport, u16), Instant>,
    /// How often it was written, and not before when it may be written again.
    written: (u32, Instant),
}

impl Found {
    /// When the next of them is sure enough to be written.
    fn due(&self) -> Option<Instant> {
        let first = self.since.values().min()?;
        Some((*first + SURE).max(self.written.1))
    }
}

impl FoundPorts {
    /// None yet.
    #[must_use]
    pub fn new(client: Option<Client>, metrics: Arc<Metrics>) -> Self {
        Self { client, metrics, pods: BTreeMap::new() }
    }

    pub(super) fn forget(&mut self) {
        self.pods.clear();
    }

    /// A proxy reported: what it finds in use now, and nobody has said before.
    pub(super) fn reported(&mut self, pod: &ObjectKey, leading: &Leading, cache: &Cache, now: Instant) {
        let in_use = in_use(pod, leading, cache).filter(|ports| !ports.is_empty());
        let (Some(ports), Some(info)) = (in_use, cache.proxy_pods.get(pod)) else {
            self.pods.remove(pod);
            return;
        };
        if self.pods.get(pod).is_some_and(|found| found.uid != info.uid) {
            self.pods.remove(pod);
        }
        let found = self.pods.entry(pod.clone()).or_insert_with(|| Found {
            uid: info.uid.clone(),
            since: BTreeMap::new(),
            written: (0, now),
        });
        found.since.retain(|port, _| ports.contains(port));
        for port in ports {
            found.since.entry(port).or_insert(now);
        }
    }

    /// Writes some of what was found, first what is due for longest.
    pub(super) fn tick(&mut self, leading: &Leading, cache: &Cache, now: Instant) {
        let Some(client) = &self.client else { return self.pods.clear() };
        self.pods.retain(|pod, found| cache.proxy_pods.get(pod).is_some_and(|info| info.uid == found.uid));
        let due = self.pods.iter().filter_map(|(pod, found)| Some((found.due()?, pod.clone())));
        let mut due: Vec<(Instant, ObjectKey)> = due.filter(|(at, _)| *at <= now).collect();
        due.sort();
        for (_, pod) in due.into_iter().take(WRITES_PER_TICK) {
            // A proxy that has left since then may have found them free again.
            let in_use = in_use(&pod, leading, cache).unwrap_or_default();
            let Some(found) = self.pods.get_mut(&pod).filter(|_| !in_use.is_empty()) else {
                self.pods.remove(&pod);
                continue;
            };
            let sure = found.since.iter().filter(|(port, since)| **since + SURE <= now && in_use.contains(*port));
            let ports: AppPorts = sure.map(|(port, _)| *port).collect();
            let (times, _) = found.written;
            found.written = ((times + 1).min(6), now + AGAIN * (1 << times));
            tokio::spawn(write(client.clone(), pod, found.uid.clone(), ports, self.metrics.clone()));
        }
    }
}

/// What a sidecar finds in use and its pod does not say. A pod that says from which ports its connections are made may hold any of
/// them by one.
fn in_use(pod: &ObjectKey, leading: &Leading, cache: &Cache) -> Option<AppPorts> {
    let info = cache.proxy_pods.get(pod).filter(|info| !info.has_port_range)?;
    let group = leading.translator.group_of(pod).filter(|group| matches!(group, Group::Sidecars { .. }))?;
    let found = found_in_use(leading.proxies.get(pod)?, leading.translator.snapshot(group)?);
    Some(found.into_iter().filter(|port| !info.app_ports.contains(port) && !info.denied_ports.contains(port)).collect())
}

async fn write(client: Client, pod: ObjectKey, uid: String, ports: AppPorts, metrics: Arc<Metrics>) {
    let failed = |error: &dyn std::fmt::Display| {
        tracing::warn!(%pod, %error, "a port of its app cannot be written on a pod, and is tried again: may the operator patch pods?");
        count(&metrics.api_errors, "request", "found-ports");
        "failed"
    };
    let result = match timeout(PATIENCE, write_ports(client, &pod, &uid, &ports)).await {
        Ok(Ok(result)) => result,
        // It is gone, or was written meanwhile.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => "outdated",
        Ok(Err(error)) => failed(&error),
        Err(late) => failed(&late),
    };
    count(&metrics.found_ports, "result", result);
}

/// Adds the ports to the annotation of the pod as it is now. What it says of them otherwise stays.
async fn write_ports(
    client: Client,
    pod: &ObjectKey,
    uid: &str,
    ports: &AppPorts,
) -> Result<&'static str, kube::Error> {
    let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(client, &pod.namespace);
    let there = api.get_metadata(&pod.name).await?.metadata;
    if there.uid.as_deref() != Some(uid) {
        return Ok("outdated");
    }
    let annotation = there.annotations.as_ref().and_then(|all| all.get(APP_PORTS)).map_or("", String::as_str);
    let Some(annotation) = with_app_ports(annotation, ports) else { return Ok("known") };
    let metadata = json!({
        "uid": uid, "resourceVersion": there.resource_version, "annotations": {APP_PORTS: annotation},
    });
    let parameters = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
    api.patch_metadata(&pod.name, &parameters, &Patch::Merge(json!({"metadata": metadata}))).await?;
    Ok("written")
}
