//! The endpoint sets that listeners use.

use std::collections::{BTreeMap, BTreeSet};

use super::forwards::Forwards;
use crate::{
    translate::{backends::SetName, groups::Group, program::Sets, surroundings},
    world::{ObjectKey, World, changes::Changes},
};

/// The endpoint sets that listeners use.
#[derive(Debug, Default)]
pub(super) struct EndpointSets {
    sets: Sets,
}

/// Endpoint sets that are up to date.
#[derive(Debug)]
pub(super) struct Refreshed<'a> {
    /// All sets by name.
    pub(super) sets: &'a Sets,
    /// Names of the sets that changed, each with the groups whose listeners use the set.
    pub(super) changed: BTreeMap<String, BTreeSet<Group>>,
    /// The reserved sets of the gateways whose surroundings may have changed.
    pub(super) reserved: BTreeMap<Group, Sets>,
}

impl EndpointSets {
    /// Adds sets that are new, and updates the sets of changed Services. The set of a deleted Service stays as it was,
    /// for listeners that run in their last good version.
    pub(super) fn refresh(
        &mut self,
        world: &World,
        changes: &Changes,
        resolved: Sets,
        forwards: &Forwards,
    ) -> Refreshed<'_> {
        for (name, set) in resolved {
            self.sets.entry(name).or_insert(set);
        }
        let services: BTreeSet<&ObjectKey> = if changes.all {
            forwards.services().collect()
        } else {
            changes.services.iter().chain(&changes.endpoints).chain(&changes.podless).collect()
        };
        let mut refreshed: BTreeMap<String, BTreeSet<Group>> =
            services.into_iter().flat_map(|service| self.refresh_service(world, service, forwards)).collect();
        let gateways = surroundings::changed(world, changes);
        refreshed.extend(self.refresh_guests(world, &gateways, forwards));
        let reserved = |gateway: ObjectKey| {
            let sets = surroundings::sets(world, &gateway);
            (Group::Gateway(gateway), sets)
        };
        let reserved = gateways.into_iter().map(reserved).collect();
        Refreshed { sets: &self.sets, changed: refreshed, reserved }
    }

    /// Updates what guests of these gateways may use.
    fn refresh_guests(
        &mut self,
        world: &World,
        gateways: &BTreeSet<ObjectKey>,
        forwards: &Forwards,
    ) -> Vec<(String, BTreeSet<Group>)> {
        if gateways.is_empty() {
            return Vec::new();
        }
        let is_theirs = |name: &SetName| name.host.as_ref().is_some_and(|host| gateways.contains(host));
        let names: Vec<SetName> = self.sets.keys().filter_map(|name| SetName::parse(name)).filter(is_theirs).collect();
        names.iter().filter_map(|name| self.refresh_set(world, name, forwards)).collect()
    }

    /// Updates the sets of one Service, or drops them if no forward depends on the Service.
    fn refresh_service(
        &mut self,
        world: &World,
        service: &ObjectKey,
        forwards: &Forwards,
    ) -> Vec<(String, BTreeSet<Group>)> {
        let is_used = forwards.of_service(service).next().is_some();
        let mut changed = Vec::new();
        for name in self.names_of(service) {
            if !is_used {
                self.sets.remove(&name);
                continue;
            }
            changed.extend(SetName::parse(&name).and_then(|name| self.refresh_set(world, &name, forwards)));
        }
        changed
    }

    /// Updates one set. Returns its name and the groups that use it, if it changed.
    fn refresh_set(&mut self, world: &World, name: &SetName, forwards: &Forwards) -> Option<(String, BTreeSet<Group>)> {
        let (text, set) = (name.to_string(), name.endpoints(world)?);
        if self.sets.get(&text) == Some(&set) {
            return None;
        }
        self.sets.insert(text.clone(), set);
        let groups = forwards.groups_using(&name.service, &text);
        Some((text, groups))
    }

    /// Names of the sets of one Service.
    fn names_of(&self, service: &ObjectKey) -> Vec<String> {
        let first = format!("{service}:");
        let names = self.sets.range(first.clone()..).map(|(name, _)| name);
        names.take_while(|name| name.starts_with(&first)).cloned().collect()
    }
}
