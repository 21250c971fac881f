//! The endpoint sets that listeners use.

use std::collections::{BTreeMap, BTreeSet};

use super::forwards::Forwards;
use crate::{
    translate::{backends, groups::Group, program::Sets},
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
            changes.services.union(&changes.endpoints).collect()
        };
        let refreshed =
            services.into_iter().flat_map(|service| self.refresh_service(world, service, forwards)).collect();
        Refreshed { sets: &self.sets, changed: refreshed }
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
            let Some(set) = backends::endpoint_set(world, &name) else { continue };
            if self.sets.get(&name) != Some(&set) {
                self.sets.insert(name.clone(), set);
                changed.push((name.clone(), forwards.groups_using(service, &name)));
            }
        }
        changed
    }

    /// Names of the sets of one Service.
    fn names_of(&self, service: &ObjectKey) -> Vec<String> {
        let first = format!("{service}:");
        let names = self.sets.range(first.clone()..).map(|(name, _)| name);
        names.take_while(|name| name.starts_with(&first)).cloned().collect()
    }
}
