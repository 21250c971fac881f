//! Tells proxies of gateways what is around them, and what their guests may use.

use std::collections::BTreeSet;

use super::{Step, Translator};
use crate::{
    translate::{
        backends::SetName,
        groups::Group,
        surroundings::{is_api_server, sets},
    },
    world::{ObjectKey, World, changes::Changes},
};

impl Translator {
    /// Updates the reserved endpoint sets of gateways.
    pub(super) fn surround(&mut self, world: &World, changes: &Changes, step: &mut Step) {
        for gateway in surrounded(world, changes) {
            let group = Group::Gateway(gateway);
            let (Some(program), Group::Gateway(gateway)) = (self.programs.get_mut(&group), &group) else { continue };
            for (name, set) in sets(world, gateway) {
                program.surround(&name, set);
            }
            step.touched.insert(group);
        }
    }

    /// Updates the endpoint sets of guests whose gateway or endpoints without a pod changed. Those of changed Services are
    /// up to date already.
    pub(super) fn refresh_guest_sets(&mut self, world: &World, changes: &Changes, step: &mut Step) {
        let gateways = surrounded(world, changes);
        if gateways.is_empty() && changes.podless.is_empty() {
            return;
        }
        let concerns = |name: &SetName| {
            name.host.as_ref().is_some_and(|host| gateways.contains(host) || changes.podless.contains(&name.service))
        };
        let names = self.sets.keys().filter_map(|text| SetName::parse(text)).filter(concerns);
        let names: Vec<SetName> = names.collect();
        for name in names {
            let text = name.to_string();
            let Some(set) = name.endpoints(world) else { continue };
            if self.sets.get(&text) != Some(&set) {
                self.set_endpoints(&name.service, &text, &set, step);
                self.sets.insert(text, set);
            }
        }
    }
}

/// The gateways whose surroundings may have changed.
fn surrounded(world: &World, changes: &Changes) -> BTreeSet<ObjectKey> {
    let mut services = changes.services.iter().chain(&changes.endpoints);
    if changes.all || services.any(is_api_server) {
        return world.gateways.keys().cloned().collect();
    }
    changes.reach.union(&changes.gateways).cloned().collect()
}
