//! The surroundings that proxies of a gateway receive: the addresses of their own fleet, and addresses that no forward
//! may use unless the gateway names them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use proxy_api::{EndpointSet, FLEET, FRONTS, PROTECTED, PROTECTED_NETWORKS, entry_of};

use crate::world::{ObjectKey, World, changes::Changes, reach::Reach};

/// Most addresses in one set. A fleet has at most 1000 pods, of two addresses each; the rest is for Services in front.
const MOST_ADDRESSES: usize = 4096;

/// The gateways whose surroundings, or whose networks for guests, may have changed.
pub(crate) fn changed(world: &World, changes: &Changes) -> BTreeSet<ObjectKey> {
    let mut services = changes.services.iter().chain(&changes.endpoints);
    if changes.all || services.any(ObjectKey::is_api_server) {
        return world.gateways.keys().cloned().collect();
    }
    changes.reach.union(&changes.gateways).cloned().collect()
}

/// The reserved endpoint sets of a gateway, by name, including empty ones.
pub(crate) fn sets(world: &World, gateway: &ObjectKey) -> BTreeMap<String, EndpointSet> {
    let none = Reach::default();
    let reach = world.reach.get(gateway).unwrap_or(&none);
    let whole = |ip: &IpAddr| SocketAddr::new(*ip, 0);
    let pods: BTreeSet<SocketAddr> = reach.pods.iter().map(whole).collect();
    let mut fronts: BTreeSet<SocketAddr> = BTreeSet::new();
    for front in reach.fronts.values() {
        for ip in &front.addresses {
            fronts.insert(whole(ip));
            fronts.extend(front.moved.iter().map(|(_, port, _)| SocketAddr::new(*ip, *port)));
        }
    }
    let mut protected: BTreeSet<SocketAddr> = reach.nodes.iter().map(whole).collect();
    protected.extend(&world.api_server);
    protected.extend(&world.api_service);
    protected.extend(world.api_servers());
    let set = |name: &str, all: BTreeSet<SocketAddr>| -> (String, EndpointSet) {
        (name.to_owned(), all.into_iter().take(MOST_ADDRESSES).collect())
    };
    let networks = world.protected.networks().map(entry_of).collect();
    BTreeMap::from([
        set(FLEET, pods),
        set(FRONTS, fronts),
        set(PROTECTED, protected),
        set(PROTECTED_NETWORKS, networks),
    ])
}
