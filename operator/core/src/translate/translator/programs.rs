//! The configurations that groups run.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proxy_api::{Origin, Transport, Version};

use super::{
    endpoints::Refreshed,
    forwards::{Forwards, Replaced},
    known::Known,
    meetings::{Candidates, Meetings, Met},
    members::{Members, Regrouped},
};
use crate::{
    translate::{
        agents::{self, Admissions},
        groups::{Group, SidecarGroup},
        judge::Compiled,
        peers,
        program::{Program, Sets, Snapshot},
        sidecars,
    },
    world::{ObjectKey, World, agents::has_half_of_sidecars, changes::Changes},
};

/// The programs of all groups, and their snapshots.
#[derive(Debug, Default)]
pub(super) struct Programs {
    by_group: BTreeMap<Group, Program>,
    /// The gateway groups in which suspended forwards keep their ports.
    held_in: BTreeMap<Origin, Group>,
    meetings: Meetings,
    snapshots: BTreeMap<Group, Arc<Snapshot>>,
}

/// Programs that changed.
#[derive(Debug, Default)]
pub(super) struct Republished {
    /// Groups whose snapshot changed, or that are gone.
    pub(super) programs: BTreeSet<Group>,
    /// Groups whose listener ports changed.
    pub(super) ports: BTreeSet<Group>,
    /// Uids of agents for which the number of unreached pods changed.
    pub(super) agents: BTreeSet<String>,
    /// Uids of agents whose reached pods changed.
    pub(super) reaching: BTreeSet<String>,
    /// Number of pods that were compared for the tables of sidecars.
    pub(super) sidecars: u64,
}

impl Programs {
    /// Updates the programs and publishes a snapshot with this version for every group that changed. Listeners are
    /// removed first; then those that won their ports are put; then kept listeners whose ports are still free.
    pub(super) fn publish(
        &mut self,
        (world, changes, version): (&World, &Changes, &Version),
        (regrouped, members): (&Regrouped, &Members),
        replaced: &[Replaced],
        refreshed: &Refreshed<'_>,
        forwards: &Forwards,
    ) -> Republished {
        let steps = [
            self.follow(regrouped),
            self.set_endpoints(refreshed),
            self.remove_listeners(replaced, forwards),
            self.put_listeners(replaced, forwards, refreshed.sets, version.number),
            self.hold_ports(replaced, forwards),
            self.admit_agents(world, changes),
            self.name_peers(world, changes),
        ];
        let mut touched: BTreeSet<Group> = steps.into_iter().flatten().collect();
        let gateways = self.meet_agents(world, changes, &mut touched);
        let named = self.name_sidecars((world, changes), (regrouped, members), gateways, &mut touched);
        let Republished { programs, ports, .. } = self.take_snapshots(version, touched);
        Republished { programs, ports, ..named }
    }

    /// Opens and closes programs with their groups.
    fn follow(&mut self, regrouped: &Regrouped) -> BTreeSet<Group> {
        for group in &regrouped.open {
            self.by_group.entry(group.clone()).or_default();
        }
        for group in &regrouped.closed {
            self.by_group.remove(group);
        }
        regrouped.open.union(&regrouped.closed).cloned().collect()
    }

    fn set_endpoints(&mut self, refreshed: &Refreshed<'_>) -> BTreeSet<Group> {
        let mut touched = BTreeSet::new();
        for (name, groups) in &refreshed.changed {
            let Some(set) = refreshed.sets.get(name) else { continue };
            for group in groups {
                if let Some(program) = self.by_group.get_mut(group) {
                    program.set_endpoints(name, set);
                    touched.insert(group.clone());
                }
            }
        }
        for (group, sets) in &refreshed.reserved {
            let Some(program) = self.by_group.get_mut(group) else { continue };
            for (name, set) in sets {
                program.surround(name, set.clone());
            }
            touched.insert(group.clone());
        }
        touched
    }

    /// Removes the listeners that a group no longer runs.
    fn remove_listeners(&mut self, replaced: &[Replaced], forwards: &Forwards) -> BTreeSet<Group> {
        let mut touched = BTreeSet::new();
        for Replaced { key, before } in replaced {
            let now = forwards.compiled(key);
            for Compiled { id, groups, .. } in before {
                let stays = now.iter().find(|now| now.id == *id).map(|now| &now.groups);
                let is_left = |group: &&Group| stays.is_none_or(|stays| stays.binary_search(group).is_err());
                for group in groups.iter().filter(is_left) {
                    if let Some(program) = self.by_group.get_mut(group) {
                        program.remove(id);
                        touched.insert(group.clone());
                    }
                }
            }
        }
        touched
    }

    /// Puts the listeners that won their ports, then kept listeners whose ports are still free.
    fn put_listeners(
        &mut self,
        replaced: &[Replaced],
        forwards: &Forwards,
        sets: &Sets,
        number: u64,
    ) -> BTreeSet<Group> {
        let mut touched = BTreeSet::new();
        for kept in [false, true] {
            let compiled = replaced.iter().flat_map(|replaced| forwards.compiled(&replaced.key));
            for Compiled { id, offer, groups, .. } in compiled.filter(|compiled| compiled.kept == kept) {
                for group in groups {
                    let Some(program) = self.by_group.get_mut(group) else { continue };
                    if kept {
                        program.put_if_free(id, offer, number, sets);
                    } else {
                        program.put(id, offer, number, sets);
                    }
                    touched.insert(group.clone());
                }
            }
        }
        touched
    }

    /// Holds the ports of suspended forwards in their gateways.
    fn hold_ports(&mut self, replaced: &[Replaced], forwards: &Forwards) -> BTreeSet<Group> {
        let mut touched = BTreeSet::new();
        for Replaced { key, .. } in replaced {
            let held = forwards.get(key).and_then(Known::held).filter(|(_, ports)| !ports.is_empty());
            let (group, ports) = held.map(|(group, ports)| (Some(group.clone()), ports.clone())).unwrap_or_default();
            let before = match &group {
                Some(group) => self.held_in.insert(key.clone(), group.clone()),
                None => self.held_in.remove(key),
            };
            let left = before.filter(|before| Some(before) != group.as_ref());
            for (at, ports) in [(left, BTreeSet::new()), (group, ports)] {
                let Some(at) = at else { continue };
                if let Some(program) = self.by_group.get_mut(&at) {
                    program.hold(key, &ports);
                    touched.insert(at);
                }
            }
        }
        touched
    }

    /// Sets the agents that may dial the process of a laptop, or the proxies of their gateway.
    fn admit_agents(&mut self, world: &World, changes: &Changes) -> BTreeSet<Group> {
        if let Some(program) = self.by_group.get_mut(&Group::Laptop) {
            program.set_agents(agents::all(world));
            return BTreeSet::from([Group::Laptop]);
        }
        let mut touched = BTreeSet::new();
        for gateway in agents::changed_gateways(world, changes) {
            let group = Group::Gateway(gateway.clone());
            if let Some(program) = self.by_group.get_mut(&group) {
                program.set_agents(agents::of_gateway(world, &gateway));
                touched.insert(group);
            }
        }
        touched
    }

    /// Sets the proxies of each gateway, so that they know each other.
    fn name_peers(&mut self, world: &World, changes: &Changes) -> BTreeSet<Group> {
        let mut touched = BTreeSet::new();
        for gateway in peers::changed_gateways(world, changes) {
            let group = Group::Gateway(gateway.clone());
            if let Some(program) = self.by_group.get_mut(&group) {
                program.set_peers(peers::of_gateway(world, &gateway));
                touched.insert(group);
            }
        }
        touched
    }

    /// Sets the agents that the listeners of sidecars reach. Returns the gateways that these agents dial, or dialled.
    fn meet_agents(&mut self, world: &World, changes: &Changes, touched: &mut BTreeSet<Group>) -> BTreeSet<ObjectKey> {
        let mut groups: BTreeSet<Group> = touched.iter().filter(|group| group.sidecars().is_some()).cloned().collect();
        for key in agents::changed(world, changes) {
            let Some(agent) = world.agents.get(&key) else { continue };
            groups.extend(self.meetings.groups_of(&agents::uid(&key, agent)).cloned());
        }
        let admissions = Admissions::new(world);
        let mut gateways = BTreeSet::new();
        for group in groups {
            let found = match (self.by_group.get(&group), group.sidecars().map(SidecarGroup::namespace)) {
                (Some(program), Some(namespace)) => {
                    agents::of_sidecars(&admissions, namespace, &program.used_agents().collect())
                }
                _ => BTreeMap::new(),
            };
            let (mut met, mut configured) = (BTreeMap::new(), BTreeMap::new());
            for (uid, (gateway, agent)) in found {
                let instances = usize::try_from(agent.max_instances).unwrap_or(usize::MAX);
                met.insert(uid.clone(), Met { gateway, instances });
                configured.insert(uid, agent);
            }
            gateways.extend(self.meetings.set(&group, met));
            if let Some(program) = self.by_group.get_mut(&group) {
                program.set_agents(configured);
                touched.insert(group);
            }
        }
        gateways
    }

    /// Sets the sidecars to which proxies hand connections over, for these gateways and for those whose agents reach
    /// changed pods. Returns the agents that this affects, and the number of pods that were compared.
    fn name_sidecars(
        &mut self,
        (world, changes): (&World, &Changes),
        (regrouped, members): (&Regrouped, &Members),
        mut gateways: BTreeSet<ObjectKey>,
        touched: &mut BTreeSet<Group>,
    ) -> Republished {
        let moved = changes.sidecar_pods.iter().filter_map(|pod| members.group_of(pod));
        for group in regrouped.pods.iter().chain(moved) {
            gateways.extend(self.meetings.gateways_of(group).cloned());
        }
        let mut named = Republished::default();
        for gateway in gateways {
            let found = world.gateways.get(&gateway);
            let uid = found.and_then(|found| found.metadata.uid.as_deref()).unwrap_or_default();
            let has_share = |of: &str| found.is_some_and(|found| has_half_of_sidecars(&gateway, found, of));
            let Candidates { pods, others } = self.meetings.candidates(&gateway, members, world);
            named.sidecars += pods.len() as u64;
            let mut table = sidecars::table(uid, has_share, pods);
            for (agent, pods) in others {
                *table.left_out.entry(agent).or_default() += pods;
            }
            named.agents.extend(self.meetings.leave_out(&gateway, table.left_out));
            named.reaching.extend(self.meetings.reach(&gateway, table.reached));
            let group = Group::Gateway(gateway);
            if let Some(program) = self.by_group.get_mut(&group) {
                program.set_sidecars(table.sidecars);
                touched.insert(group);
            }
        }
        named
    }

    /// Takes a snapshot of every program that changed.
    fn take_snapshots(&mut self, version: &Version, touched: BTreeSet<Group>) -> Republished {
        let mut republished = Republished::default();
        for group in touched {
            let has_changed = match self.by_group.get_mut(&group) {
                None => self.snapshots.remove(&group).is_some(),
                Some(program) => {
                    if program.take_ports_changed() {
                        republished.ports.insert(group.clone());
                    }
                    let next = program.publish(version).map(Arc::new);
                    next.map(|next| self.snapshots.insert(group.clone(), next)).is_some()
                }
            };
            if has_changed {
                republished.programs.insert(group);
            }
        }
        republished
    }

    /// The configuration that a group should run.
    pub(super) fn snapshot(&self, group: &Group) -> Option<&Arc<Snapshot>> {
        self.snapshots.get(group)
    }

    /// Every group with the configuration that it should run.
    pub(super) fn snapshots(&self) -> impl Iterator<Item = (&Group, &Arc<Snapshot>)> {
        self.snapshots.iter()
    }

    /// The sidecar groups whose listeners reach the agent of this uid.
    pub(super) fn groups_of(&self, uid: &str) -> impl Iterator<Item = &Group> {
        self.meetings.groups_of(uid)
    }

    /// The number of pods that an agent of a gateway does not reach.
    pub(super) fn left_out(&self, gateway: &ObjectKey, uid: &str) -> usize {
        self.meetings.left_out(gateway, uid)
    }

    /// The pods that an agent of a gateway reaches.
    pub(super) fn reached(&self, gateway: &ObjectKey, uid: &str) -> Option<&BTreeSet<ObjectKey>> {
        self.meetings.reached(gateway, uid)
    }

    /// The ports of a group's listeners, including suspended forwards.
    pub(super) fn ports(&self, group: &Group) -> BTreeSet<(Transport, u16)> {
        self.by_group.get(group).map(Program::ports).unwrap_or_default()
    }
}
