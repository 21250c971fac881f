//! Finds the forwards and groups that a change affects.

use std::collections::{BTreeSet, btree_map::Entry};

use super::{Step, Translator};
use proxy_api::Origin;

use crate::{
    translate::{
        claims::Ledger,
        groups::{Group, Sidecars},
        program::Program,
    },
    world::{ObjectKey, World, changes::Changes},
};

impl Translator {
    /// Creates the programs of the laptop and of gateways, which exist even if empty, and drops those of deleted
    /// gateways.
    pub(super) fn open_groups(&mut self, world: &World, changes: &Changes, step: &mut Step) {
        if world.site.is_laptop() {
            self.programs.entry(Group::Laptop).or_default();
            step.touched.insert(Group::Laptop);
            return;
        }
        let gateways: BTreeSet<&ObjectKey> = if changes.all {
            let known = self.programs.keys().filter_map(|group| match group {
                Group::Gateway(key) => Some(key),
                _ => None,
            });
            known.chain(world.gateways.keys()).collect()
        } else {
            changes.gateways.iter().collect()
        };
        let gateways: Vec<ObjectKey> = gateways.into_iter().cloned().collect();
        for key in gateways {
            let group = Group::Gateway(key.clone());
            step.touched.insert(group.clone());
            if world.gateways.contains_key(&key) {
                self.programs.entry(group.clone()).or_default();
                self.ledgers.entry(group.clone()).or_default();
                step.claims.insert(group);
            } else {
                self.programs.remove(&group);
                self.ledgers.remove(&group);
            }
        }
    }

    /// The forwards to read again.
    pub(super) fn to_read(&self, world: &World, changes: &Changes) -> BTreeSet<Origin> {
        if changes.all {
            let there = world.forwards.keys().chain(world.unreadable.keys()).map(Origin::from);
            return there.chain(self.known.keys().cloned()).collect();
        }
        let mut keys: BTreeSet<Origin> = changes.forwards.iter().map(Origin::from).collect();
        for gateway in &changes.gateways {
            keys.extend(self.by_gateway.of(gateway).cloned());
        }
        for namespace in &changes.namespaces {
            let first = ObjectKey::new(namespace.clone(), "");
            let there = world.forwards.range(first..).take_while(|(key, _)| key.namespace == *namespace);
            keys.extend(there.filter(|(_, it)| it.spec.placement.gateway.is_some()).map(|(key, _)| key.into()));
        }
        keys
    }

    /// Updates the groups of changed pods, and of pods that changed selectors select.
    pub(super) fn move_pods(&mut self, world: &World, changes: &Changes, step: &mut Step) {
        if world.site.is_laptop() {
            return;
        }
        let mut pods = changes.pods.clone();
        if changes.all {
            pods.extend(world.pods.keys().cloned());
            let known = self.sidecars.values().flat_map(Sidecars::groups);
            pods.extend(known.flat_map(|(_, pods)| pods).cloned());
        }
        let mut namespaces = std::mem::take(&mut step.reselected);
        namespaces.extend(pods.iter().map(|pod| pod.namespace.clone()));
        for namespace in namespaces {
            let Some(sidecars) = self.sidecars.get_mut(&namespace) else { continue };
            sidecars.place(&namespace, &pods, world, &mut step.moved, &mut step.update.work);
            if sidecars.is_empty() {
                self.sidecars.remove(&namespace);
            }
        }
        step.update.pods.extend(step.moved.groups.iter().cloned());
        step.update.placed.append(&mut step.moved.pods);
        // A pod that joins or leaves a group that others stay in changes no verdict.
        step.judge.extend(std::mem::take(&mut step.moved.turned).iter().flat_map(Group::selecting));
    }

    /// Creates programs and ledgers of groups that gained their first pod, and drops those of groups without pods.
    pub(super) fn move_forwards(&mut self, step: &mut Step) {
        for group in std::mem::take(&mut step.moved.groups) {
            if self.pods(&group).is_none() {
                self.programs.remove(&group);
                self.ledgers.remove(&group);
                step.touched.insert(group);
            } else if let Entry::Vacant(program) = self.programs.entry(group.clone()) {
                program.insert(Program::default());
                self.ledgers.insert(group.clone(), Ledger::default());
                step.claims.insert(group.clone());
                step.touched.insert(group);
            }
        }
    }

    /// Adds the forwards that depend on changed Services or grants.
    pub(super) fn add_dependents(&self, changes: &Changes, step: &mut Step) {
        for service in &changes.services {
            step.judge.extend(self.by_service.of(service).cloned());
        }
        if changes.grants {
            step.judge.extend(self.foreign.iter().cloned());
        }
    }
}
