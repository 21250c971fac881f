//! The proxies of a gateway in the contract with each of them: they hand connections of agents over to each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use tunnel_core::identity::EndpointId;

use crate::{
    names::endpoint_id,
    world::{ObjectKey, World, changes::Changes},
};

/// The proxies of a gateway with tunnels, by their ids as endpoints.
pub(crate) fn of_gateway(world: &World, gateway: &ObjectKey) -> BTreeMap<String, IpAddr> {
    let ready = world.peers.get(gateway).into_iter().flatten();
    // A proxy could not read a table with an invalid id.
    let peer = |(uid, ip): (&String, &IpAddr)| Some((EndpointId::new(&endpoint_id(uid)).ok()?.to_string(), *ip));
    ready.filter_map(peer).collect()
}

/// The gateways whose proxies may have changed.
pub(crate) fn changed_gateways(world: &World, changes: &Changes) -> BTreeSet<ObjectKey> {
    if changes.all {
        return world.gateways.keys().cloned().collect();
    }
    changes.gateways.union(&changes.peers).cloned().collect()
}
