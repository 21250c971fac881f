//! The addresses that gateways refuse because of what the cluster tells: those of the nodes of a fleet and of the API
//! server.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crate::{
    translate::surroundings,
    world::{ObjectKey, World, changes::Changes},
};

/// The addresses that gateways refused at the last update.
#[derive(Debug, Default)]
pub(super) struct Protected {
    api_server: BTreeSet<SocketAddr>,
    /// The nodes of each fleet that has any.
    nodes: BTreeMap<ObjectKey, BTreeSet<IpAddr>>,
}

impl Protected {
    /// Brings the addresses up to date. Returns those that some gateway began or ceased to refuse; none if everything
    /// may have changed, because every forward is judged then.
    pub(super) fn refresh(&mut self, world: &World, changes: &Changes) -> BTreeSet<IpAddr> {
        if changes.all {
            *self = Self::of(world);
            return BTreeSet::new();
        }
        let mut moved = BTreeSet::new();
        if surroundings::is_of_api_server(changes) {
            let now: BTreeSet<SocketAddr> = surroundings::api_server(world).collect();
            moved.extend(now.symmetric_difference(&self.api_server).map(SocketAddr::ip));
            self.api_server = now;
        }
        for gateway in &changes.reach {
            let now = world.reach.get(gateway).map(|reach| reach.nodes.clone()).unwrap_or_default();
            let before = self.nodes.remove(gateway).unwrap_or_default();
            moved.extend(now.symmetric_difference(&before));
            if !now.is_empty() {
                self.nodes.insert(gateway.clone(), now);
            }
        }
        moved
    }

    fn of(world: &World) -> Self {
        let fleets = world.reach.iter().filter(|(_, reach)| !reach.nodes.is_empty());
        Self {
            api_server: surroundings::api_server(world).collect(),
            nodes: fleets.map(|(gateway, reach)| (gateway.clone(), reach.nodes.clone())).collect(),
        }
    }
}
