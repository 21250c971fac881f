//! What the proxies of one forward make of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::RejectedListener;
use proxy_api::ListenerId;

use crate::{Ack, Group, ObjectKey, Outcome, Proxies, Snapshot, Verdict};

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
}

/// Asks every pod of every group of a forward.
#[must_use]
pub fn data_plane(key: &ObjectKey, verdict: &Verdict, fleets: &BTreeMap<Group, Fleet>, proxies: &Proxies) -> DataPlane {
    let mut sum = DataPlane::default();
    for rejected in &verdict.rejected {
        sum.reject(&rejected.pod, &rejected.listener, &rejected.message);
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
            sum.pod(pod, &published, &fleet.snapshot, proxies);
        }
    }
    sum
}

impl DataPlane {
    fn pod(&mut self, pod: &ObjectKey, published: &[ListenerId], snapshot: &Snapshot, proxies: &Proxies) {
        let Some(state) = proxies.get(pod) else { return self.late(pod) };
        let mut all = true;
        for id in published {
            // A listener that lost its port in this pod stands among the rejections already.
            let Some(published) = snapshot.listeners.get(id) else { continue };
            match state.ack(id, published.offer.revision(), published.since) {
                Ack::Bound => {}
                Ack::Pending => {
                    self.late(pod);
                    return;
                }
                Ack::Failed(failure) => {
                    all = false;
                    self.reject(pod, &id.listener, &failure.message);
                }
            }
        }
        self.acked += u32::from(all);
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
