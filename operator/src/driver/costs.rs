//! What it costs to delete a pod (`controller.kubernetes.io/pod-deletion-cost`): the more live sessions, the more. So the
//! emptiest pod of a fleet leaves first when it shrinks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::PartialObjectMeta,
};
use operator_core::{Group, ObjectKey, PodMetric, deletion_cost};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::Leading;
use crate::{
    NAME,
    cache::Cache,
    metrics::{Metrics, count},
    status_writer::Subject,
    watch::{Cost, DELETION_COST},
};

/// Writes in one tick of a quarter of a second: 8 a second in all.
const WRITES_PER_TICK: usize = 2;
/// How long the cache may take to show what was written.
const SHOWN: Duration = Duration::from_secs(10);
/// Longest time for one write.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was written of late.
pub struct Costs {
    /// Absent: nothing is written at all.
    client: Option<Client>,
    metrics: std::sync::Arc<Metrics>,
    written: BTreeMap<ObjectKey, (i32, Instant)>,
}

impl Costs {
    /// Nothing yet.
    #[must_use]
    pub fn new(client: Option<Client>, metrics: std::sync::Arc<Metrics>) -> Self {
        Self { client, metrics, written: BTreeMap::new() }
    }

    pub(super) fn forget(&mut self) {
        self.written.clear();
    }

    /// Writes some of what differs.
    pub(super) fn tick(&mut self, leading: &Leading, cache: &Cache, now: Instant) {
        let Some(client) = &self.client else { return };
        self.written.retain(|_, (_, at)| now < *at + SHOWN);
        let mut due = Vec::new();
        // A fleet at its least does not shrink.
        for state in cache.scalers.values().filter(|state| state.desired > state.least) {
            for pod in pods(&state.subject, leading) {
                if due.len() == WRITES_PER_TICK {
                    break;
                }
                let written = self.written.get(&pod).map(|(cost, _)| *cost);
                if let Some(cost) = cost(&pod, written, leading, cache) {
                    due.push((pod, cost));
                }
            }
        }
        for (pod, cost) in due {
            self.written.insert(pod.clone(), (cost, now));
            let uid = cache.proxy_pods.get(&pod).map(|info| info.uid.clone()).unwrap_or_default();
            tokio::spawn(write(client.clone(), pod, uid, cost, self.metrics.clone()));
        }
    }
}

/// The pods that an autoscaler may take away.
fn pods(subject: &Subject, leading: &Leading) -> BTreeSet<ObjectKey> {
    let fleets = leading.fleets.all();
    match subject {
        Subject::Gateway(key) => {
            fleets.get(&Group::Gateway(key.clone())).map(|fleet| fleet.pods.clone()).unwrap_or_default()
        }
        Subject::Forward(key) => {
            let groups = leading.translator.verdict(key).into_iter().flat_map(|verdict| &verdict.groups);
            groups.filter_map(|group| fleets.get(group)).flat_map(|fleet| fleet.pods.iter().cloned()).collect()
        }
    }
}

/// The cost that a pod should have, if it has another and nobody else has set it.
fn cost(pod: &ObjectKey, written: Option<i32>, leading: &Leading, cache: &Cache) -> Option<i32> {
    let info = cache.proxy_pods.get(pod).filter(|info| info.of_replica_set && !info.leaving)?;
    let there = match &info.cost {
        Cost::Foreign => return None,
        Cost::Unset => None,
        Cost::Ours(cost) => Some(*cost),
    };
    let wanted = deletion_cost(leading.proxies.load(pod, PodMetric::Connections, None)?);
    // Without a cost it has none, which is the same as 0.
    (written.or(there).unwrap_or(0) != wanted).then_some(wanted)
}

async fn write(client: Client, pod: ObjectKey, uid: String, cost: i32, metrics: std::sync::Arc<Metrics>) {
    let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(client, &pod.namespace);
    let patch = Patch::Merge(json!({"metadata": {"uid": uid, "annotations": {DELETION_COST: cost.to_string()}}}));
    let parameters = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
    let result = match timeout(PATIENCE, api.patch_metadata(&pod.name, &parameters, &patch)).await {
        Ok(Ok(_)) => "written",
        // It is gone, or another one.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => "outdated",
        Ok(Err(_)) | Err(_) => {
            count(&metrics.api_errors, "request", "deletion-cost");
            "failed"
        }
    };
    count(&metrics.deletion_costs, "result", result);
}
