//! Finds the forwards and groups that a change affects.

use std::collections::BTreeSet;

use super::{Step, Translator};
use proxy_api::Origin;

use crate::{
    translate::groups::{Group, Sidecars},
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

    /// Updates the groups of changed pods.
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
        for key in pods {
            if let Some(sidecars) = self.sidecars.get_mut(&key.namespace) {
                sidecars.pod(&key, world.pods.get(&key), &mut step.moved);
                // Ports lost in a leaving pod do not count, so a pod that starts to leave can change verdicts.
                step.judge.extend(sidecars.group_of(&key.name).into_iter().flat_map(Group::selecting));
            }
        }
        step.update.pods.extend(step.moved.groups.iter().cloned());
        step.update.placed.append(&mut step.moved.pods);
        step.judge.extend(std::mem::take(&mut step.moved.forwards));
    }

    /// Creates programs and ledgers of groups that gained their first pod, and drops those of groups without pods.
    pub(super) fn move_forwards(&mut self, step: &mut Step) {
        for group in std::mem::take(&mut step.moved.groups) {
            let has_pods = self.pods(&group).is_some_and(|pods| !pods.is_empty());
            step.touched.insert(group.clone());
            if has_pods {
                self.programs.entry(group.clone()).or_default();
                self.ledgers.entry(group.clone()).or_default();
                step.claims.insert(group);
            } else {
                self.programs.remove(&group);
                self.ledgers.remove(&group);
            }
        }
    }

    /// Adds the forwards that depend on changed Services, grants or fleets.
    pub(super) fn add_dependents(&self, changes: &Changes, step: &mut Step) {
        for service in changes.services.union(&changes.podless) {
            step.judge.extend(self.by_service.of(service).cloned());
        }
        for gateway in &changes.fronts {
            step.judge.extend(self.by_gateway.of(gateway).cloned());
        }
        if changes.grants {
            step.judge.extend(self.foreign.iter().cloned());
        }
    }
}
