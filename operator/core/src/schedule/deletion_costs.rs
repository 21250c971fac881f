//! Schedules writes of the deletion cost of pods (`controller.kubernetes.io/pod-deletion-cost`). The cost rises with
//! the live sessions of the pod, so that scale-in removes the emptiest pod first.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    schedule::{CostWrite, View},
    status::loads::deletion_cost,
    translate::groups::Group,
    world::{
        ObjectKey,
        objects::{AutoscalerState, Cost, PodInfo},
        proxy_id::ProxyId,
        subject::Subject,
    },
};

/// The orders that choose the pod of each write of a tick. A tick takes 250 ms, so there are at most 8 writes per
/// second. The second write bounds the wait of every pod: pods whose costs cannot be written always differ the most.
const WRITES: [fn(&Due, &Due) -> Ordering; 2] = [furthest, longest];
/// Longest time until the cache shows a written cost.
const SHOWN: Duration = Duration::from_secs(10);
/// Label with the hash of the pod template, on pods of a `Deployment`.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Written costs that the cache may not show yet, and costs to write.
#[derive(Debug, Default)]
pub struct Costs {
    written: BTreeMap<ObjectKey, (i32, Duration)>,
    due: BTreeMap<ObjectKey, Due>,
}

/// A desired cost that differs from the present one.
#[derive(Debug)]
struct Due {
    cost: i32,
    distance: u32,
    since: Duration,
}

/// Orders by difference, the largest first; among equals, the one that waits longest.
fn furthest(one: &Due, other: &Due) -> Ordering {
    (Reverse(one.distance), one.since).cmp(&(Reverse(other.distance), other.since))
}

/// Orders by wait, the longest first; among equals, the one with the largest difference.
fn longest(one: &Due, other: &Due) -> Ordering {
    (one.since, Reverse(one.distance)).cmp(&(other.since, Reverse(other.distance)))
}

impl Costs {
    /// Returns the next costs to write, of those that differ.
    pub fn tick(&mut self, view: &View<'_>, now: Duration) -> Vec<CostWrite> {
        self.written.retain(|_, (_, at)| now < *at + SHOWN);
        let before = std::mem::take(&mut self.due);
        for state in view.cache.scalers.values() {
            let pods = pods(state, view);
            // A fleet at its minimum does not shrink.
            if pods.len() <= usize::try_from(state.least).unwrap_or(0) {
                continue;
            }
            for pod in pods {
                let written = self.written.get(&pod).map(|(cost, _)| *cost);
                if let Some((cost, current)) = cost(&pod, written, view, now) {
                    let since = before.get(&pod).map_or(now, |due| due.since);
                    self.due.insert(pod, Due { cost, distance: current.abs_diff(cost), since });
                }
            }
        }
        let mut writes = Vec::new();
        for order in WRITES {
            let next = self.due.iter().min_by(|(_, one), (_, other)| order(one, other)).map(|(pod, _)| pod.clone());
            let Some((pod, Due { cost, .. })) = next.and_then(|pod| self.due.remove_entry(&pod)) else { break };
            self.written.insert(pod.clone(), (cost, now));
            let uid = view.cache.proxy_pods.get(&pod).map(|info| info.uid.clone()).unwrap_or_default();
            writes.push(CostWrite { pod, uid, cost });
        }
        writes
    }
}

/// The pods that an HPA may remove: the non-terminating pods of its target.
fn pods(state: &AutoscalerState, view: &View<'_>) -> BTreeSet<ObjectKey> {
    let fleets = view.fleets.all();
    let groups: Vec<&Group> = match &state.subject {
        Subject::Gateway(key) => {
            fleets.get_key_value(&Group::Gateway(key.clone())).map(|(group, _)| group).into_iter().collect()
        }
        Subject::Forward(key) => {
            view.translator.verdict(&key.into()).into_iter().flat_map(|verdict| &verdict.groups).collect()
        }
        Subject::Agent(_) => Vec::new(),
    };
    let pods = groups.into_iter().filter_map(|group| fleets.get(group)).flat_map(|fleet| &fleet.members);
    let pods = pods.filter_map(ProxyId::pod);
    let is_its = |pod: &&ObjectKey| {
        view.cache.proxy_pods.get(*pod).is_some_and(|info| !info.leaving && is_of(&state.target, info))
    };
    pods.filter(is_its).cloned().collect()
}

/// Whether a pod belongs to a workload that honours deletion costs: a `ReplicaSet`, or a `Deployment`. The name of the
/// `ReplicaSet`s of a `Deployment` is its name and the hash of the pod template.
fn is_of((kind, name): &(String, String), info: &PodInfo) -> bool {
    let Some(set) = &info.replica_set else { return false };
    match kind.as_str() {
        "ReplicaSet" => set == name,
        "Deployment" => info.labels.get(TEMPLATE_HASH).is_some_and(|hash| *set == format!("{name}-{hash}")),
        _ => false,
    }
}

/// The desired and the current cost of a pod; `None` if they are equal, another client set the cost, or the sessions of
/// the pod are not known.
fn cost(pod: &ObjectKey, written: Option<i32>, view: &View<'_>, now: Duration) -> Option<(i32, i32)> {
    let current = match view.cache.proxy_pods.get(pod)?.cost {
        Cost::Foreign => return None,
        // Kubernetes treats an absent cost as 0.
        Cost::Unset => 0,
        Cost::Ours(cost) => cost,
    };
    let current = written.unwrap_or(current);
    let wanted = deletion_cost(view.proxies.last_load(&ProxyId::Pod(pod.clone()), now)?.sum.connections);
    (current != wanted).then_some((wanted, current))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_of_the_target_count_not_others_that_the_forward_selects() {
        let pod = |set: Option<&str>, hash: &str| PodInfo {
            replica_set: set.map(str::to_owned),
            labels: BTreeMap::from([(TEMPLATE_HASH.to_owned(), hash.to_owned())]),
            ..PodInfo::default()
        };
        let target = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
        assert!(is_of(&target("Deployment", "shop"), &pod(Some("shop-5d9"), "5d9")));
        assert!(!is_of(&target("Deployment", "shop"), &pod(Some("shop-canary-5d9"), "5d9")));
        assert!(!is_of(&target("Deployment", "shop"), &pod(None, "5d9")), "a pod without a ReplicaSet");
        assert!(is_of(&target("ReplicaSet", "shop"), &pod(Some("shop"), "5d9")));
        assert!(
            !is_of(&target("StatefulSet", "shop"), &pod(Some("shop"), "5d9")),
            "a StatefulSet removes pods by ordinal"
        );
    }
}
