//! The incremental translation.
//!
//! Each part of the state has an owner. An update has the following phases, in this order. Each phase returns what
//! changed, as the argument of the next phases:
//!
//! ```text
//! Changes ─▶ Forwards::read        ─▶ [Reread]     forwards that were read again, and where they run
//!         ─▶ Members::regroup      ─▶ Regrouped    groups that opened, closed or have other members
//!         ─▶ Ledgers::settle       ─▶ Settled      groups whose claims were decided, forwards with another outcome
//!         ─▶ Protected::refresh    ─▶ {IpAddr}     addresses that gateways began or ceased to refuse
//!         ─▶ judging::due          ─▶ {Origin}     forwards that may be judged differently
//!         ─▶ judging::judge        ─▶ Judged       new judgements
//!         ─▶ Forwards::record      ─▶ Recorded     forwards with the listeners of their old judgements, other verdicts
//!         ─▶ EndpointSets::refresh ─▶ Refreshed    endpoint sets that changed, and the groups that use them
//!         ─▶ Programs::publish     ─▶ Republished  groups with another snapshot or other ports
//! ```
//!
//! The cost of a change follows the objects that depend on it, not the number of forwards. The result equals a
//! translation of the whole world, except for listeners that keep running in their last good version.

mod dependents;
mod endpoints;
mod forwards;
mod judging;
mod known;
mod ledgers;
mod meetings;
mod members;
mod programs;
mod protected;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proxy_api::{Configuration, Origin, Transport, Version};

use self::{
    endpoints::EndpointSets, forwards::Forwards, known::Known, ledgers::Ledgers, members::Members, programs::Programs,
    protected::Protected,
};
use crate::{
    translate::{groups::Group, program::Snapshot, update::Update, verdict::Verdict, work::Work},
    world::{ObjectKey, World, changes::Changes, subject::forward_of},
};

/// The translation of a whole world.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// The configuration of every group, without a version.
    pub configurations: BTreeMap<Group, Configuration>,
    /// The verdict on every forward.
    pub verdicts: BTreeMap<Origin, Verdict>,
    /// The pods of every sidecar group.
    pub pods: BTreeMap<Group, BTreeSet<ObjectKey>>,
}

/// The translation of a world, with the indexes that incremental updates need.
#[derive(Debug, Default)]
pub struct Translator {
    forwards: Forwards,
    members: Members,
    ledgers: Ledgers,
    protected: Protected,
    endpoints: EndpointSets,
    programs: Programs,
}

impl Translator {
    /// Brings the translation up to date. Changed snapshots get this version; its number must be greater than that of
    /// any earlier update.
    pub fn update(&mut self, world: &World, changes: &Changes, version: &Version) -> Update {
        let reread = self.forwards.read(world, changes);
        let regrouped = self.members.regroup(world, changes, &reread);
        let settled = self.ledgers.settle(world, &regrouped, &self.forwards, &self.members);
        let claims = settled.work;
        let moved = self.protected.refresh(world, changes);
        let due = judging::due(world, changes, &regrouped, settled, &moved, &self.forwards);
        let looked_at = due.len() as u64;
        let judged = judging::judge(world, due, &self.forwards, &self.members, &self.ledgers);
        let recorded = self.forwards.record(judged.judgements);
        let sets = (judged.endpoints, recorded.replaced.as_slice());
        let refreshed = self.endpoints.refresh(world, changes, sets, &self.forwards);
        let published = self.programs.publish(
            (world, changes, version),
            (&regrouped, &self.members),
            &recorded.replaced,
            &refreshed,
            &self.forwards,
        );
        let work = Work { claims, judged: looked_at, sidecars: published.sidecars, ..regrouped.work };
        let groups = published.agents.iter().flat_map(|uid| self.programs.groups_of(uid));
        let unreached = groups.flat_map(Group::selecting).filter_map(|origin| forward_of(&origin)).collect();
        Update {
            verdicts: recorded.verdicts,
            programs: published.programs,
            ports: published.ports,
            agents: published.agents,
            reaching: published.reaching,
            unreached,
            pods: regrouped.pods,
            placed: regrouped.placed,
            work,
        }
    }

    /// The verdict on a forward.
    #[must_use]
    pub fn verdict(&self, key: &Origin) -> Option<&Verdict> {
        self.forwards.get(key).map(Known::verdict)
    }

    /// Whether the verdict on a forward is about this UID and generation.
    #[must_use]
    pub fn is_about(&self, key: &Origin, metadata: &ObjectMeta) -> bool {
        self.forwards.get(key).is_some_and(|known| known.is_about(metadata))
    }

    /// Every verdict.
    pub fn verdicts(&self) -> impl Iterator<Item = (&Origin, &Verdict)> {
        self.forwards.all().map(|(key, known)| (key, known.verdict()))
    }

    /// The configuration that a group should run.
    #[must_use]
    pub fn snapshot(&self, group: &Group) -> Option<&Arc<Snapshot>> {
        self.programs.snapshot(group)
    }

    /// Every group with the configuration that it should run.
    pub fn snapshots(&self) -> impl Iterator<Item = (&Group, &Arc<Snapshot>)> {
        self.programs.snapshots()
    }

    /// The ports of a group's listeners, including suspended forwards: if a Service lost a port, the port would get
    /// another node port when the forward resumes.
    pub fn ports(&self, group: &Group) -> BTreeSet<(Transport, u16)> {
        self.programs.ports(group)
    }

    /// The number of pods that the agent of this uid does not reach although listeners in their sidecars use it: the
    /// agent, or the gateway that it dials, has no room for them.
    #[must_use]
    pub fn left_out(&self, gateway: &ObjectKey, uid: &str) -> usize {
        self.programs.left_out(gateway, uid)
    }

    /// The pods with sidecars that the agent of this uid reaches.
    #[must_use]
    pub fn reached(&self, gateway: &ObjectKey, uid: &str) -> Option<&BTreeSet<ObjectKey>> {
        self.programs.reached(gateway, uid)
    }

    /// The pods of a sidecar group.
    #[must_use]
    pub fn pods(&self, group: &Group) -> Option<&BTreeSet<ObjectKey>> {
        self.members.pods(group)
    }

    /// The group of a pod, if sidecar forwards select it.
    #[must_use]
    pub fn group_of(&self, pod: &ObjectKey) -> Option<&Group> {
        self.members.group_of(pod)
    }

    /// The forwards of a group.
    pub fn forwards<'a>(&'a self, group: &'a Group) -> Box<dyn Iterator<Item = Origin> + 'a> {
        match group {
            Group::Laptop => Box::new(self.forwards.all().map(|(key, _)| key.clone())),
            Group::Gateway(key) => Box::new(self.forwards.of_gateway(key).cloned()),
            Group::Sidecars(_) => Box::new(group.selecting()),
        }
    }

    /// The number of stored endpoint sets: those of listeners that some group should run.
    #[must_use]
    pub fn endpoint_sets(&self) -> usize {
        self.endpoints.len()
    }

    /// The number of accepted forwards that name a gateway.
    #[must_use]
    pub fn attached(&self, gateway: &ObjectKey) -> usize {
        let accepted = |key: &&Origin| self.verdict(key).is_some_and(|verdict| verdict.accepted.status);
        self.forwards.of_gateway(gateway).filter(accepted).count()
    }

    /// The whole translation as one value, without versions.
    #[must_use]
    pub fn translation(&self) -> Translation {
        let configuration =
            |snapshot: &Snapshot| Configuration { version: Version::default(), ..snapshot.configuration() };
        Translation {
            configurations: self.snapshots().map(|(group, now)| (group.clone(), configuration(now))).collect(),
            verdicts: self.verdicts().map(|(key, verdict)| (key.clone(), verdict.clone())).collect(),
            pods: self.members.sidecar_groups().map(|(group, pods)| (group.clone(), pods.clone())).collect(),
        }
    }
}
