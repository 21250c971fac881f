//! The endpoint sets that listeners use.

use std::collections::{BTreeMap, BTreeSet};

use super::forwards::{Forwards, Replaced};
use crate::{
    translate::{
        backends::SetName,
        groups::Group,
        judge::Compiled,
        program::{self, Sets},
        surroundings,
    },
    world::{ObjectKey, World, changes::Changes},
};

/// The endpoint sets that listeners use.
#[derive(Debug, Default)]
pub(super) struct EndpointSets {
    sets: Sets,
    /// Number of backends that use each set. A set without a backend is dropped.
    uses: BTreeMap<String, usize>,
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
    /// Number of sets.
    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }

    /// Adds sets that are new, drops those that no listener uses any more, and updates the sets of changed Services. The
    /// set of a deleted Service stays as it was, for listeners that run in their last good version.
    pub(super) fn refresh(
        &mut self,
        world: &World,
        changes: &Changes,
        (resolved, replaced): (Sets, &[Replaced]),
        forwards: &Forwards,
    ) -> Refreshed<'_> {
        self.count(replaced, forwards);
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

    /// Counts the sets of listeners that were replaced, and drops those that no listener uses any more.
    fn count(&mut self, replaced: &[Replaced], forwards: &Forwards) {
        let sets_of = |compiled: &Compiled| program::sets(&compiled.offer).cloned().collect::<Vec<String>>();
        for name in replaced.iter().flat_map(|replaced| forwards.compiled(&replaced.key)).flat_map(sets_of) {
            *self.uses.entry(name).or_default() += 1;
        }
        for name in replaced.iter().flat_map(|replaced| &replaced.before).flat_map(sets_of) {
            let Some(uses) = self.uses.get_mut(&name) else { continue };
            *uses -= 1;
            if *uses == 0 {
                self.uses.remove(&name);
                self.sets.remove(&name);
            }
        }
    }

    /// Updates the endpoints that guests of these gateways may use.
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

    /// Updates the sets of one Service.
    fn refresh_service(
        &mut self,
        world: &World,
        service: &ObjectKey,
        forwards: &Forwards,
    ) -> Vec<(String, BTreeSet<Group>)> {
        let names = self.names_of(service).into_iter().filter_map(|name| SetName::parse(&name));
        names.filter_map(|name| self.refresh_set(world, &name, forwards)).collect()
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
