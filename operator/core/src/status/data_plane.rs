//! Sums up the state of one forward over the proxies that should run it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::RejectedListener;
use proxy_api::{BackendHealth, Delivery, ListenerId, Origin, ReachedLimit};

use crate::{
    status::proxies::{Ack, Proxies, ProxyState},
    translate::{
        groups::Group,
        program::Snapshot,
        verdict::{Outcome, Verdict},
    },
    world::{Pod, crash_loop::CrashLoop, proxy_id::ProxyId},
};

/// Most rejections, late proxies and pod issues of a kind that a status names.
pub(crate) const NAMED: usize = 8;

/// The current pods of a group and the snapshot that they should run.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// The snapshot that the group should run.
    pub snapshot: Arc<Snapshot>,
    /// Proxies of the group: one for each pod that is not terminating, injected or not.
    pub members: BTreeSet<ProxyId>,
    /// Number of ready pods.
    pub ready: usize,
    /// Pods without a proxy, with an ignored annotation, or with an app in a crash loop.
    pub issues: BTreeMap<ProxyId, PodIssue>,
    /// Number of pods that were created without a proxy.
    pub uninjected: usize,
}

/// The problems of a pod that should run forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodIssue {
    /// Whether the pod was created with a proxy.
    pub injected: bool,
    /// The reason why injection failed or ignored an annotation.
    pub problem: Option<String>,
    /// An app container of the pod is in a crash loop.
    pub crash_loop: Option<CrashLoop>,
}

impl PodIssue {
    /// Returns the issue of a pod; `None` if the pod has a proxy and nothing is wrong.
    #[must_use]
    pub fn of(pod: &Pod, crash_loop: Option<&CrashLoop>) -> Option<Self> {
        let issue = Self { injected: pod.carries, problem: pod.problem.clone(), crash_loop: crash_loop.cloned() };
        (!issue.injected || !issue.is_empty()).then_some(issue)
    }

    fn is_empty(&self) -> bool {
        self.problem.is_none() && self.crash_loop.is_none()
    }

    fn kind(&self) -> (bool, bool) {
        (self.injected, self.crash_loop.is_some())
    }
}

/// The sum over the proxies that should run a forward.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataPlane {
    /// Pods that should run the forward.
    pub total: u32,
    /// Proxies that run every listener of the forward as published. A proxy that rejected a listener, or whose group
    /// lost the listener's port, does not count, whatever else it runs.
    pub acked: u32,
    /// Proxies that have not reported yet; at most eight.
    pub late: Vec<ProxyId>,
    /// Listeners that do not run, by pod; at most eight.
    pub rejected: Vec<RejectedListener>,
    /// Number of all listeners that do not run, over all pods.
    pub rejected_count: u32,
    /// Whether the gateway of the forward has no ready proxy.
    pub no_proxies: bool,
    /// Health of the backends by listener, over the proxies that run the listener.
    pub backends: BTreeMap<String, BackendHealth>,
    /// The delivery state of durable listeners, by listener: the worst among the proxies that run the listener.
    pub deliveries: BTreeMap<String, Delivery>,
    /// Pods whose proxies recently refused sessions of a listener because its namespace has used up its share; at most
    /// eight.
    pub limited: Vec<String>,
    /// Pods in whose proxies DNS names recently waited for their lookups because the namespace has used up its share of
    /// these; at most eight.
    pub lookups_limited: Vec<String>,
    /// Listeners, each with its pod, that recently refused sessions because one source had its share of them; at most
    /// eight.
    pub sources_limited: Vec<String>,
    /// Listeners, each with its pod, that recently had a loop; at most eight.
    pub looped: Vec<String>,
    /// Pods without a proxy.
    pub uninjected: u32,
    /// Pods with an app in a crash loop.
    pub crash_looping: u32,
    /// Pods with an issue; at most eight of each kind: uninjected, crash loop, other.
    pub issues: Vec<(String, PodIssue)>,
}

/// Sums up the proxies in every group of an origin.
#[must_use]
pub fn data_plane(origin: &Origin, verdict: &Verdict, fleets: &BTreeMap<Group, Fleet>, proxies: &Proxies) -> DataPlane {
    let mut sum = DataPlane::default();
    for rejected in &verdict.rejected {
        for proxy in fleets.get(&rejected.group).into_iter().flat_map(|fleet| &fleet.members) {
            sum.reject(proxy, &rejected.listener, &rejected.message);
        }
    }
    let lost_a_port: BTreeSet<&Group> = verdict.rejected.iter().map(|rejected| &rejected.group).collect();
    let published: Vec<ListenerId> = verdict
        .listeners
        .iter()
        .filter(|listener| matches!(listener.outcome, Outcome::Published(_)))
        .map(|listener| ListenerId::new(origin.clone(), &*listener.name))
        .collect();
    for group in &verdict.groups {
        let Some(fleet) = fleets.get(group) else { continue };
        sum.no_proxies |= matches!(group, Group::Gateway(_)) && fleet.ready == 0;
        let runs_all = !lost_a_port.contains(group);
        for proxy in &fleet.members {
            sum.total += 1;
            if !sum.is_uninjected(proxy, fleet.issues.get(proxy), proxies)
                && sum.has_bound(proxy, &published, &fleet.snapshot, proxies)
                && runs_all
            {
                sum.acked += 1;
            }
        }
    }
    sum
}

impl DataPlane {
    fn issue(&mut self, proxy: &ProxyId, issue: PodIssue) {
        self.crash_looping += u32::from(issue.crash_loop.is_some());
        let alike = self.issues.iter().filter(|(_, other)| other.kind() == issue.kind()).count();
        if alike < NAMED {
            self.issues.push((proxy.name().to_owned(), issue));
        }
    }

    /// Adds the report of a proxy; returns whether it has bound every published listener that its group runs.
    fn has_bound(&mut self, proxy: &ProxyId, published: &[ListenerId], snapshot: &Snapshot, proxies: &Proxies) -> bool {
        let Some(state) = proxies.get(proxy) else {
            self.late(proxy);
            return false;
        };
        self.limits(proxy, published, state);
        let (mut all, mut is_late) = (true, false);
        for id in published {
            // A listener that lost its port in this group was already counted as rejected.
            let Some(published) = snapshot.listeners.get(id) else { continue };
            match state.ack(id, published.offer.revision(), published.since) {
                Ack::Bound => {
                    self.backends(&id.listener, state.backends(id));
                    self.delivery(&id.listener, state.delivery(id));
                }
                Ack::Pending => is_late = true,
                Ack::Failed(failure) => {
                    all = false;
                    self.reject(proxy, &id.listener, &failure.message);
                }
            }
        }
        if is_late {
            self.late(proxy);
        }
        all && !is_late
    }

    /// Adds the limits that the listeners reached in one proxy, and their loops. Limits that only newer proxies know
    /// are left out: their meaning is unknown.
    fn limits(&mut self, proxy: &ProxyId, published: &[ListenerId], state: &ProxyState) {
        let reached: Vec<ReachedLimit> = published.iter().filter_map(|id| state.reached(id)).collect();
        for (limit, pods) in
            [(ReachedLimit::Tenant, &mut self.limited), (ReachedLimit::Lookups, &mut self.lookups_limited)]
        {
            if reached.contains(&limit) && pods.len() < NAMED {
                pods.push(proxy.name().to_owned());
            }
        }
        for id in published {
            let is_of_source = state.reached(id) == Some(ReachedLimit::Source);
            for (is_so, places) in [(is_of_source, &mut self.sources_limited), (state.looped(id), &mut self.looped)] {
                if is_so && places.len() < NAMED {
                    places.push(format!("listener '{}' of pod {}", id.listener, proxy.name()));
                }
            }
        }
    }

    /// Adds the health of a listener's backends as one proxy sees it. Proxies that disagree add up to `Some`.
    fn backends(&mut self, listener: &str, seen: BackendHealth) {
        match self.backends.get_mut(listener) {
            Some(sum) if *sum != seen => *sum = BackendHealth::Some,
            Some(_) => {}
            None => drop(self.backends.insert(listener.to_owned(), seen)),
        }
    }

    /// Adds the delivery state of a listener in one proxy.
    fn delivery(&mut self, listener: &str, seen: Option<Delivery>) {
        let Some(seen) = seen else { return };
        let worst = self.deliveries.entry(listener.to_owned()).or_insert(seen);
        *worst = seen.max(*worst);
    }

    /// Whether a pod has no proxy; also counts the pod and its issue. A pod with a connected proxy has one, however
    /// the pod was created.
    fn is_uninjected(&mut self, proxy: &ProxyId, issue: Option<&PodIssue>, proxies: &Proxies) -> bool {
        let Some(issue) = issue else { return false };
        let is_uninjected = !issue.injected && proxies.get(proxy).is_none();
        self.uninjected += u32::from(is_uninjected);
        if is_uninjected || !issue.is_empty() {
            self.issue(proxy, PodIssue { injected: !is_uninjected, ..issue.clone() });
        }
        is_uninjected
    }

    fn late(&mut self, proxy: &ProxyId) {
        if self.late.len() < NAMED {
            self.late.push(proxy.clone());
        }
    }

    fn reject(&mut self, proxy: &ProxyId, listener: &str, reason: &str) {
        self.rejected_count += 1;
        if self.rejected.len() < NAMED {
            let reason = reason.chars().take(1000).collect();
            self.rejected.push(RejectedListener {
                pod: proxy.name().to_owned(),
                listener: listener.to_owned(),
                reason,
            });
        }
    }
}
