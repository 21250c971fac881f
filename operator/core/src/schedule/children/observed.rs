//! States that count only after some time, measured from the moment at which this leader first saw them.

use std::{collections::BTreeMap, mem, time::Duration};

use crate::world::{
    ObjectKey,
    cache::Cache,
    objects::{FleetState, Hold, PodInfo, Progress},
};

/// The longest time without progress of a rollout; a Deployment has the same default.
const STILL: Duration = Duration::from_secs(600);
/// The longest time that a pod should remain beyond its grace period.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// Longest time that a node needs to mount the volume of a pod and to give it a network.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// The progress deadline of a `StatefulSet`, which has no deadline of its own.
#[derive(Default)]
pub(super) struct Deadline {
    last: Option<Step>,
}

/// A step of a rollout.
#[derive(PartialEq, Eq)]
struct Step {
    uid: String,
    generation: Option<i64>,
    replicas: i32,
    updated: i32,
    ready: i32,
    /// Whether a pod is being deleted.
    leaves: bool,
    since: Duration,
}

impl Deadline {
    /// Returns the progress of a fleet's rollout. The rollout of a `StatefulSet` has stopped if its counts have not
    /// changed for too long. A `StatefulSet` waits for each pod that it deletes, and a draining pod may use its whole
    /// grace period.
    pub(super) fn progress(&mut self, gateway: &ObjectKey, cache: &Cache, now: Duration) -> Progress {
        let last = self.last.take();
        let Some(fleet) = cache.fleet(gateway) else { return Progress::default() };
        // Until the controller has observed the change, its pod counts are stale.
        let updated = fleet.updated.filter(|_| fleet.is_observed && fleet.rollout == Progress::Running);
        let Some(updated) = updated else { return fleet.rollout };
        let grace = cache.grace(gateway).map(|grace| Duration::from_secs(grace.into()));
        let still = grace.map_or(STILL, |grace| grace.saturating_add(GONE_WITHIN).max(STILL));
        let step = |since| {
            let FleetState { generation, replicas, ready, .. } = *fleet;
            Step { uid: fleet.uid.clone(), generation, replicas, updated, ready, leaves: grace.is_some(), since }
        };
        let same = last.filter(|last| *last == step(last.since));
        let step = same.unwrap_or_else(|| step(now));
        let is_still = now >= step.since.saturating_add(still);
        self.last = Some(step);
        if is_still { Progress::Stopped } else { Progress::Running }
    }
}

/// The pods that their nodes have not started, by uid, with the time at which each was first seen.
#[derive(Default)]
pub(super) struct Starts {
    since: BTreeMap<String, Duration>,
    /// When the next of these pods is late.
    next: Option<Duration>,
}

impl Starts {
    /// Records the pods that have not started.
    pub(super) fn see<'a, K>(&mut self, held: impl Iterator<Item = (K, &'a PodInfo)>, now: Duration) {
        let before = mem::take(&mut self.since);
        let waiting = held.map(|(_, pod)| pod).filter(|pod| pod.hold == Hold::Unprepared);
        self.since = waiting.map(|pod| (pod.uid.clone(), before.get(&pod.uid).copied().unwrap_or(now))).collect();
        let ends = self.since.values().map(|since| since.saturating_add(STARTS_WITHIN));
        self.next = ends.filter(|end| now < *end).min();
    }

    /// Whether a pod has become late since the last record.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.next.is_some_and(|next| now >= next)
    }

    /// Whether the node of a pod has had enough time.
    pub(super) fn is_late(&self, pod: &PodInfo, now: Duration) -> bool {
        self.since.get(&pod.uid).is_some_and(|since| now >= since.saturating_add(STARTS_WITHIN))
    }
}
