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
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::Leading;
use crate::platform::metrics::{Metrics, count};
use operator_core::{
    Cache, Group, ObjectKey, PodMetric, Subject, deletion_cost,
    names::{DELETION_COST, NAME},
    world::{
        objects::{AutoscalerState, Cost, PodInfo},
        read::cost_of,
    },
};

/// Writes in one tick of a quarter of a second: 8 a second in all.
const WRITES_PER_TICK: usize = 2;
/// How long the cache may take to show what was written.
const SHOWN: Duration = Duration::from_secs(10);
/// Label of the pods of a `Deployment`, with the hash of their template.
const TEMPLATE_HASH: &str = "pod-template-hash";
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
        for state in cache.scalers.values() {
            let pods = pods(state, leading, cache);
            // A fleet at its least does not shrink.
            if pods.len() <= usize::try_from(state.least).unwrap_or(0) {
                continue;
            }
            for pod in pods {
                let written = self.written.get(&pod);
                if let Some((cost, there)) = cost(&pod, written.map(|(cost, _)| *cost), leading, cache) {
                    due.push((there.abs_diff(cost), written.map(|(_, at)| *at), pod, cost));
                }
            }
        }
        // Those that are furthest from the truth first, and of them those that were written longest ago.
        due.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| (one.1, &one.2).cmp(&(other.1, &other.2))));
        for (_, _, pod, cost) in due.into_iter().take(WRITES_PER_TICK) {
            self.written.insert(pod.clone(), (cost, now));
            let uid = cache.proxy_pods.get(&pod).map(|info| info.uid.clone()).unwrap_or_default();
            tokio::spawn(write(client.clone(), pod, uid, cost, self.metrics.clone()));
        }
    }
}

/// The pods that an autoscaler may take away: those of its target that stay.
fn pods(state: &AutoscalerState, leading: &Leading, cache: &Cache) -> BTreeSet<ObjectKey> {
    let fleets = leading.fleets.all();
    let groups: Vec<&Group> = match &state.subject {
        Subject::Gateway(key) => {
            fleets.get_key_value(&Group::Gateway(key.clone())).map(|(group, _)| group).into_iter().collect()
        }
        Subject::Forward(key) => {
            leading.translator.verdict(key).into_iter().flat_map(|verdict| &verdict.groups).collect()
        }
    };
    let pods = groups.into_iter().filter_map(|group| fleets.get(group)).flat_map(|fleet| &fleet.pods);
    let is_its =
        |pod: &&ObjectKey| cache.proxy_pods.get(*pod).is_some_and(|info| !info.leaving && is_of(&state.target, info));
    pods.filter(is_its).cloned().collect()
}

/// Whether a pod belongs to a workload whose pods leave by what they cost: a `ReplicaSet`, or a `Deployment` by its
/// `ReplicaSet`s, which have its name and the hash of their template.
fn is_of((kind, name): &(String, String), info: &PodInfo) -> bool {
    let Some(set) = &info.replica_set else { return false };
    match kind.as_str() {
        "ReplicaSet" => set == name,
        "Deployment" => info.labels.get(TEMPLATE_HASH).is_some_and(|hash| *set == format!("{name}-{hash}")),
        _ => false,
    }
}

/// The cost that a pod should have, and the one that it has, if that is another and nobody else has set it.
fn cost(pod: &ObjectKey, written: Option<i32>, leading: &Leading, cache: &Cache) -> Option<(i32, i32)> {
    let there = match cache.proxy_pods.get(pod)?.cost {
        Cost::Foreign => return None,
        // Without a cost it has none, which is the same as 0.
        Cost::Unset => 0,
        Cost::Ours(cost) => cost,
    };
    let there = written.unwrap_or(there);
    let wanted = deletion_cost(leading.proxies.load(pod, PodMetric::Connections, None)?);
    (there != wanted).then_some((wanted, there))
}

async fn write(client: Client, pod: ObjectKey, uid: String, cost: i32, metrics: std::sync::Arc<Metrics>) {
    let result = match timeout(PATIENCE, write_cost(client, &pod, &uid, cost)).await {
        Ok(Ok(result)) => result,
        // It is gone, or another one.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => "outdated",
        Ok(Err(_)) | Err(_) => {
            count(&metrics.api_errors, "request", "deletion-cost");
            "failed"
        }
    };
    count(&metrics.deletion_costs, "result", result);
}

/// Writes the cost of the pod as it is now: what somebody else has set meanwhile stays.
async fn write_cost(client: Client, pod: &ObjectKey, uid: &str, cost: i32) -> Result<&'static str, kube::Error> {
    let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(client, &pod.namespace);
    let there = api.get_metadata(&pod.name).await?.metadata;
    if there.uid.as_deref() != Some(uid) || cost_of(&there) == Cost::Foreign {
        return Ok("outdated");
    }
    let metadata = json!({
        "uid": uid, "resourceVersion": there.resource_version, "annotations": {DELETION_COST: cost.to_string()},
    });
    let parameters = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
    api.patch_metadata(&pod.name, &parameters, &Patch::Merge(json!({"metadata": metadata}))).await?;
    Ok("written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_the_target_are_told_from_others_that_the_forward_selects() {
        let pod = |set: Option<&str>, hash: &str| PodInfo {
            replica_set: set.map(str::to_owned),
            labels: BTreeMap::from([(TEMPLATE_HASH.to_owned(), hash.to_owned())]),
            ..PodInfo::default()
        };
        let target = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
        assert!(is_of(&target("Deployment", "shop"), &pod(Some("shop-5d9"), "5d9")));
        assert!(!is_of(&target("Deployment", "shop"), &pod(Some("shop-canary-5d9"), "5d9")));
        assert!(!is_of(&target("Deployment", "shop"), &pod(None, "5d9")), "it leaves by itself");
        assert!(is_of(&target("ReplicaSet", "shop"), &pod(Some("shop"), "5d9")));
        assert!(!is_of(&target("StatefulSet", "shop"), &pod(Some("shop"), "5d9")), "they leave by their numbers");
    }
}
