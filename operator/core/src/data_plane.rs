//! What the proxies of one forward make of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::RejectedListener;
use proxy_api::{BackendHealth, ListenerId};

use crate::{Ack, Failing, Group, ObjectKey, Outcome, Pod, Proxies, Snapshot, Verdict};

/// Rejections and late proxies that are named.
pub(crate) const NAMED: usize = 8;

/// One group as it is now.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// What it is to run.
    pub snapshot: Arc<Snapshot>,
    /// Its pods that are not terminating.
    pub pods: BTreeSet<ObjectKey>,
    /// How many of them are ready.
    pub ready: usize,
    /// Pods that were made without a proxy, or with one that is not as they asked; and those whose app ended soon after its start.
    pub remarks: BTreeMap<ObjectKey, Remark>,
}

/// What there is to say of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remark {
    /// Whether it was made with a proxy.
    pub carries: bool,
    /// What was wrong when it was made.
    pub problem: Option<String>,
    /// Its app ends soon after its start.
    pub failing: Option<Failing>,
}

impl Remark {
    /// Of a pod; nothing if all is well.
    #[must_use]
    pub fn of(pod: &Pod, failing: Option<&Failing>) -> Option<Self> {
        let remark = Self { carries: pod.carries, problem: pod.problem.clone(), failing: failing.cloned() };
        (!remark.carries || !remark.is_empty()).then_some(remark)
    }

    fn is_empty(&self) -> bool {
        self.problem.is_none() && self.failing.is_none()
    }

    fn kind(&self) -> (bool, bool) {
        (self.carries, self.failing.is_some())
    }

    /// Whether its app is left all ports of the pod now.
    fn is_left_all_ports(&self) -> bool {
        self.failing.as_ref().is_some_and(|failing| failing.left_all_ports)
    }
}

/// The sum over the proxies that should run a forward.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataPlane {
    /// Pods that should run it.
    pub total: u32,
    /// Pods in which every listener is bound as published.
    pub acked: u32,
    /// Pods that have not told yet, at most eight.
    pub late: Vec<String>,
    /// Listeners that do not run, at most eight.
    pub rejected: Vec<RejectedListener>,
    /// How many in all.
    pub rejected_count: u32,
    /// Its gateway has no ready proxy.
    pub no_proxies: bool,
    /// How many backends of each listener are healthy, over the proxies that run it.
    pub backends: BTreeMap<String, BackendHealth>,
    /// Pods that carry no proxy.
    pub bare: u32,
    /// Pods in which no listener runs for a while, so that their app may have its ports.
    pub left_to_apps: u32,
    /// Pods whose app ends soon after its start, and those that ended with it.
    pub failing: u32,
    /// Pods of which there is something to say, at most eight of each kind: those that carry no proxy, those whose app fails, others.
    pub remarks: Vec<(String, Remark)>,
}

/// Asks every pod of every group of a forward.
#[must_use]
pub fn data_plane(key: &ObjectKey, verdict: &Verdict, fleets: &BTreeMap<Group, Fleet>, proxies: &Proxies) -> DataPlane {
    let mut sum = DataPlane::default();
    if !verdict.rejected.is_empty() {
        let counted = verdict.groups.iter().filter_map(|group| fleets.get(group)).flat_map(|fleet| &fleet.pods);
        let counted: BTreeSet<&ObjectKey> = counted.collect();
        for rejected in verdict.rejected.iter().filter(|rejected| counted.contains(&rejected.pod)) {
            sum.reject(&rejected.pod, &rejected.listener, &rejected.message);
        }
    }
    let published: Vec<ListenerId> = verdict
        .listeners
        .iter()
        .filter(|listener| matches!(listener.outcome, Outcome::Published(_)))
        .map(|listener| ListenerId {
            namespace: key.namespace.clone(),
            forward: key.name.clone(),
            listener: listener.name.clone(),
        })
        .collect();
    for group in &verdict.groups {
        let Some(fleet) = fleets.get(group) else { continue };
        sum.no_proxies |= matches!(group, Group::Gateway(_)) && fleet.ready == 0;
        for pod in &fleet.pods {
            sum.total += 1;
            let remark = fleet.remarks.get(pod);
            if sum.is_bare(pod, remark, proxies) {
                continue;
            }
            if remark.is_some_and(Remark::is_left_all_ports) {
                sum.left_to_apps += 1;
            } else {
                sum.pod(pod, &published, &fleet.snapshot, proxies);
            }
        }
    }
    sum
}

impl DataPlane {
    /// Tells of pods that have ended with their app, and are none of the forward's any more.
    pub fn failed<'a>(&mut self, pods: impl Iterator<Item = (&'a ObjectKey, &'a Failing)>) {
        for (pod, failing) in pods {
            self.remark(pod, Remark { carries: true, problem: None, failing: Some(failing.clone()) });
        }
    }

    fn remark(&mut self, pod: &ObjectKey, remark: Remark) {
        self.failing += u32::from(remark.failing.is_some());
        let alike = self.remarks.iter().filter(|(_, other)| other.kind() == remark.kind()).count();
        if alike < NAMED {
            self.remarks.push((pod.name.clone(), remark));
        }
    }

    fn pod(&mut self, pod: &ObjectKey, published: &[ListenerId], snapshot: &Snapshot, proxies: &Proxies) {
        let Some(state) = proxies.get(pod) else { return self.late(pod) };
        let (mut all, mut is_late) = (true, false);
        for id in published {
            // A listener that lost its port in this pod stands among the rejections already.
            let Some(published) = snapshot.listeners.get(id) else { continue };
            match state.ack(id, published.offer.revision(), published.since) {
                Ack::Bound => self.backends(&id.listener, state.backends(id)),
                Ack::Pending => is_late = true,
                Ack::Failed(failure) => {
                    all = false;
                    self.reject(pod, &id.listener, &failure.message);
                }
            }
        }
        if is_late {
            return self.late(pod);
        }
        self.acked += u32::from(all);
    }

    /// Proxies that see it in different ways make it `Some`.
    fn backends(&mut self, listener: &str, seen: BackendHealth) {
        match self.backends.get_mut(listener) {
            Some(sum) if *sum != seen => *sum = BackendHealth::Some,
            Some(_) => {}
            None => drop(self.backends.insert(listener.to_owned(), seen)),
        }
    }

    /// Whether a pod has no proxy that could tell anything. One that connects has one, however it was made.
    fn is_bare(&mut self, pod: &ObjectKey, remark: Option<&Remark>, proxies: &Proxies) -> bool {
        let Some(remark) = remark else { return false };
        let is_bare = !remark.carries && proxies.get(pod).is_none();
        self.bare += u32::from(is_bare);
        if is_bare || !remark.is_empty() {
            self.remark(pod, Remark { carries: !is_bare, ..remark.clone() });
        }
        is_bare
    }

    fn late(&mut self, pod: &ObjectKey) {
        if self.late.len() < NAMED {
            self.late.push(pod.name.clone());
        }
    }

    fn reject(&mut self, pod: &ObjectKey, listener: &str, reason: &str) {
        self.rejected_count += 1;
        if self.rejected.len() < NAMED {
            let reason = reason.chars().take(1000).collect();
            self.rejected.push(RejectedListener { pod: pod.name.clone(), listener: listener.to_owned(), reason });
        }
    }
}
