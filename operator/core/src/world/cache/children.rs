//! The children of gateways in the watches.

use super::{Cache, Touched};
use crate::world::{
    ObjectKey,
    child::{ChildKind, Mark, Shown},
    objects::{ClaimState, Drain, DrainerState, FleetState, Hold, PodInfo, Stage},
    watched::{Kind, Source},
};

/// Label of the pods of a Job: its name.
const JOB_LABEL: &str = "batch.kubernetes.io/job-name";
/// The names of the pods of a Job start with this many characters of its name, or with the whole name.
const POD_PREFIX: usize = 58;

impl Cache {
    /// The state of a gateway's child in the watches.
    #[must_use]
    pub fn shown(&self, kind: ChildKind, gateway: &ObjectKey) -> Shown {
        let mark = match kind {
            ChildKind::Deployment => self.deployments.get(gateway).map(|state| state.mark),
            ChildKind::StatefulSet => self.stateful_sets.get(gateway).map(|state| state.mark),
            ChildKind::Service => self.services.get(gateway).map(|info| info.mark),
            other => self.children.get(&other).and_then(|marks| marks.get(gateway)).copied(),
        };
        self.shown_as(mark, kind.watch(), &gateway.namespace)
    }

    /// The state of an HPA of this operator in the watches.
    #[must_use]
    pub fn shown_scaler(&self, key: &ObjectKey) -> Shown {
        let mark = self.scalers.get(key).map(|state| state.mark);
        self.shown_as(mark, Kind::Scalers, &key.namespace)
    }

    fn shown_as(&self, mark: Option<Mark>, kind: Kind, namespace: &str) -> Shown {
        match mark {
            Some(mark) => Shown::Present(mark),
            None if self.is_listed(kind, namespace) => Shown::Absent,
            None => Shown::Unknown,
        }
    }

    /// The fleet of a gateway, by its workload.
    #[must_use]
    pub fn fleet(&self, gateway: &ObjectKey) -> Option<&FleetState> {
        match self.world.gateways.get(gateway).map(ChildKind::of_fleet) {
            Some(ChildKind::StatefulSet) => self.stateful_sets.get(gateway),
            _ => self.deployments.get(gateway),
        }
    }

    /// The claims of a fleet, ordered by name. A claim with another name belongs to another owner.
    pub fn claims_of<'a>(&'a self, gateway: &'a ObjectKey) -> impl Iterator<Item = (&'a ObjectKey, &'a ClaimState)> {
        let first = ObjectKey::new(gateway.namespace.clone(), "");
        let here = self.claims.range(first..).take_while(move |(key, _)| key.namespace == gateway.namespace);
        here.filter(move |(_, claim)| claim.gateway == gateway.name && claim.ordinal >= 0)
    }

    /// The claims of a fleet without a pod, because the fleet is smaller now.
    pub fn spare_claims<'a>(&'a self, gateway: &'a ObjectKey) -> impl Iterator<Item = (&'a ObjectKey, &'a ClaimState)> {
        let fleet = self.stateful_sets.get(gateway);
        self.claims_of(gateway).filter(move |(_, claim)| fleet.is_some_and(|fleet| !fleet.has_ordinal(claim.ordinal)))
    }

    /// The pods of a fleet, in the order of their names.
    pub(super) fn pods_of<'a>(&'a self, gateway: &'a ObjectKey) -> impl Iterator<Item = (&'a ObjectKey, &'a PodInfo)> {
        let first = ObjectKey::new(gateway.namespace.clone(), "");
        let here = self.proxy_pods.range(first..).take_while(move |(key, _)| key.namespace == gateway.namespace);
        here.filter(move |(_, pod)| pod.gateway.as_ref() == Some(&gateway.name) && pod.service_account == gateway.name)
    }

    /// If a fleet has claims, its pods that cannot start, in the order of their names.
    pub fn held_pods<'a>(&'a self, gateway: &'a ObjectKey) -> impl Iterator<Item = (&'a ObjectKey, &'a PodInfo)> {
        let has_claims = self.world.gateways.get(gateway).is_some_and(|gateway| gateway.spec.durability.is_some());
        let pods = has_claims.then(|| self.pods_of(gateway)).into_iter().flatten();
        pods.filter(|(_, pod)| pod.hold != Hold::None && !pod.leaving)
    }

    /// The most seconds that a terminating pod of a fleet has to end; `None` while no pod is being deleted.
    pub(crate) fn grace(&self, gateway: &ObjectKey) -> Option<u32> {
        let leaving = self.pods_of(gateway).filter(|(_, pod)| pod.leaving && !pod.ended);
        leaving.map(|(_, pod)| pod.grace).max()
    }

    /// The state of a drainer, from its Job and its pods. A Job that does not exist yet counts as about to start.
    #[must_use]
    pub fn drain(&self, job: &ObjectKey) -> Drain {
        let Some(state) = self.drainers.get(job) else { return Drain::default() };
        if state.stage == Stage::LacksPod {
            return Drain::NoPod;
        }
        let prefix = job.name.get(..POD_PREFIX).unwrap_or(&job.name);
        let first = ObjectKey::new(job.namespace.clone(), prefix);
        let near = self.proxy_pods.range(first..);
        let near = near.take_while(|(key, _)| key.namespace == job.namespace && key.name.starts_with(prefix));
        let of_job = near.map(|(_, pod)| pod).filter(|pod| {
            pod.drains.as_ref() == Some(&state.gateway) && pod.labels.get(JOB_LABEL) == Some(&job.name) && !pod.leaving
        });
        of_job.map(|pod| pod.drain).max().unwrap_or_default()
    }

    /// Whether a watch of this kind that covers the namespace is complete: an object that it does not show does not
    /// exist.
    pub(crate) fn is_listed(&self, kind: Kind, namespace: &str) -> bool {
        let is_complete = |namespace: Option<String>| {
            let state = self.sources.get(&Source { kind, namespace });
            state.is_some_and(|state| state.synced && !state.left_out.is_any())
        };
        is_complete(None) || is_complete(Some(namespace.to_owned()))
    }

    pub(super) fn take_child(&mut self, kind: ChildKind, key: ObjectKey, mark: Mark, touched: &mut Touched) {
        let before = self.children.entry(kind).or_default().insert(key.clone(), mark);
        if before != Some(mark) {
            touched.gateways.insert(key);
        }
    }

    /// Removes a child that this watch no longer shows.
    pub(super) fn lose_child(&mut self, kind: Kind, key: &ObjectKey, touched: &mut Touched) {
        if kind == Kind::Deployments {
            self.deployments.remove(key);
        }
        if kind == Kind::StatefulSets {
            self.stateful_sets.remove(key);
        }
        for (_, marks) in self.children.iter_mut().filter(|(child, _)| child.watch() == kind) {
            marks.remove(key);
        }
        touched.gateways.insert(key.clone());
    }

    pub(super) fn take_claim(&mut self, key: ObjectKey, claim: ClaimState, touched: &mut Touched) {
        touched.gateways.insert(ObjectKey::new(key.namespace.clone(), claim.gateway.clone()));
        self.claims.insert(key, claim);
    }

    pub(super) fn take_drainer(&mut self, key: ObjectKey, drainer: DrainerState, touched: &mut Touched) {
        touched.gateways.insert(ObjectKey::new(key.namespace.clone(), drainer.gateway.clone()));
        self.drainers.insert(key, drainer);
    }

    pub(super) fn lose_drainer(&mut self, key: &ObjectKey, touched: &mut Touched) {
        if let Some(drainer) = self.drainers.remove(key) {
            touched.gateways.insert(ObjectKey::new(key.namespace.clone(), drainer.gateway));
        }
    }

    pub(super) fn lose_claim(&mut self, key: &ObjectKey, touched: &mut Touched) {
        if let Some(claim) = self.claims.remove(key) {
            touched.gateways.insert(ObjectKey::new(key.namespace.clone(), claim.gateway));
        }
    }
}
