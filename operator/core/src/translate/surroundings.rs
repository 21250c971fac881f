//! The surroundings that proxies of a gateway receive: the addresses of their own fleet, and addresses that no forward
//! may use unless the gateway names them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use proxy_api::{EndpointSet, FLEET, FRONTS, PROTECTED, PROTECTED_NETWORKS, entry_of, forms};

use crate::world::{ObjectKey, World, changes::Changes, reach::Reach};

/// Most addresses in one set. A fleet has at most 1000 pods, of two addresses each; the rest is for Services in front.
const MOST_ADDRESSES: usize = 4096;

/// The gateways whose surroundings, or whose networks for guests, may have changed.
pub(crate) fn changed(world: &World, changes: &Changes) -> BTreeSet<ObjectKey> {
    if changes.all || is_of_api_server(changes) {
        return world.gateways.keys().cloned().collect();
    }
    changes.reach.union(&changes.gateways).cloned().collect()
}

/// Whether the addresses of the API server may be among the changes.
pub(crate) fn is_of_api_server(changes: &Changes) -> bool {
    changes.services.iter().chain(&changes.endpoints).any(ObjectKey::is_api_server)
}

/// The known addresses of the API server and of its Service.
pub(crate) fn api_server(world: &World) -> impl Iterator<Item = SocketAddr> + '_ {
    world.api_server.iter().chain(&world.api_service).copied().chain(world.api_servers())
}

/// Whether one of these ports of an address, in any of its forms, is that of a node of the gateway's fleet or of the
/// API server. The proxies of the gateway decide the same by the set [`PROTECTED`].
pub(crate) fn protects(world: &World, gateway: &ObjectKey, ip: IpAddr, ports: &RangeInclusive<u16>) -> bool {
    let reach = world.reach.get(gateway);
    let is_node = |ip: &IpAddr| reach.is_some_and(|reach| reach.nodes.contains(ip));
    let is_api_server = |ip: IpAddr| api_server(world).any(|at| at.ip() == ip && ports.contains(&at.port()));
    forms(ip).any(|form| is_node(&form) || is_api_server(form))
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
    protected.extend(api_server(world));
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
