//! The endpoints of each listener: from endpoint sets, literal addresses and DNS answers.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use proxy_api::{Backend, Bind, EndpointSet, Listener, ListenerId, SocketKey, Target};

use super::{listeners::ById, names::Names};
use crate::{
    core::{
        balance::{Entry, Targets},
        endpoint::Endpoint,
        own_addresses::OwnAddresses,
    },
    net,
};

const LOOP: &str = "the address is a listener of this same proxy, which would be a loop; name the real server";

/// What targets are computed from.
pub(super) struct Sources<'a> {
    /// Endpoint sets of the configuration.
    pub(super) endpoints: &'a BTreeMap<String, EndpointSet>,
    /// Open sockets of this proxy, which must not become its targets.
    pub(super) sockets: &'a BTreeMap<SocketKey, BTreeSet<ListenerId>>,
    /// DNS answers.
    pub(super) names: &'a Names,
    /// Addresses of this host, as far as they were asked for.
    pub(super) own: &'a RefCell<OwnAddresses>,
}

/// An address that a listener must not connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The listener.
    pub(super) listener: ListenerId,
    /// The address.
    pub(super) address: SocketAddr,
    /// Why, for a person.
    pub(super) why: &'static str,
}

impl Sources<'_> {
    /// Recomputes the targets of these listeners; what is unchanged keeps its state. Returns the addresses that are not
    /// used.
    pub(super) fn refresh(&self, live: &ById) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for (id, shared) in live {
            let spec = shared.spec.load_full();
            let before = shared.targets.load_full();
            let (entries, refused) = self.entries(&spec, &before);
            if !is_same(&before.entries, &entries) {
                shared.targets.store(Arc::new(Targets { entries }));
            }
            let refused = refused.into_iter();
            refusals.extend(refused.map(|(address, why)| Refusal { listener: id.clone(), address, why }));
        }
        refusals
    }

    fn entries(&self, spec: &Listener, before: &Targets) -> (Vec<Entry>, Vec<(SocketAddr, &'static str)>) {
        let (mut entries, mut refused) = (Vec::with_capacity(spec.backends.len()), Vec::new());
        for backend in &spec.backends {
            let mut usable = BTreeSet::new();
            for address in self.candidates(&backend.target) {
                if let Some(why) = self.refuses(spec, &backend.target, address) {
                    refused.push((address, why));
                } else {
                    usable.insert(address);
                }
            }
            entries.push(entry(backend, before, usable));
        }
        (entries, refused)
    }

    fn candidates(&self, target: &Target) -> Vec<SocketAddr> {
        match target {
            Target::Endpoints(name) => self.endpoints.get(name).map(addresses_of).unwrap_or_default(),
            Target::Address { host, port } => {
                let ips = match host.parse::<IpAddr>() {
                    Ok(ip) => vec![ip],
                    Err(_) => self.names.addresses(host).to_vec(),
                };
                ips.into_iter().map(|ip| SocketAddr::new(ip.to_canonical(), *port)).collect()
            }
        }
    }

    /// Why the listener must not connect to this address, if so.
    fn refuses(&self, spec: &Listener, target: &Target, address: SocketAddr) -> Option<&'static str> {
        let denied = match target {
            Target::Address { .. } => spec.destinations.refuses(address.ip()),
            Target::Endpoints(_) => None,
        };
        denied.or_else(|| is_own_listener((self.sockets, self.own), spec, address).then_some(LOOP))
    }
}

/// A backend with these addresses; endpoints and counts that are known already are kept.
fn entry(backend: &Backend, before: &Targets, addresses: BTreeSet<SocketAddr>) -> Entry {
    let known = before.entries.iter().find(|entry| *entry.id == *backend.id);
    let known_endpoint = |address: &SocketAddr| {
        // Endpoints are in the order of their addresses.
        let endpoints = &known?.endpoints;
        let at = endpoints.binary_search_by_key(address, |endpoint| endpoint.address).ok()?;
        endpoints.get(at).cloned()
    };
    Entry {
        id: known.map_or_else(|| backend.id.as_str().into(), |entry| entry.id.clone()),
        weight: backend.weight,
        priority: backend.priority,
        endpoints: addresses
            .into_iter()
            .map(|address| known_endpoint(&address).unwrap_or_else(|| Arc::new(Endpoint::new(address))))
            .collect(),
        stats: known.map(|entry| entry.stats.clone()).unwrap_or_default(),
    }
}

/// Whether one of the ports that a listener would connect to at this address belongs to this proxy.
fn is_own_listener(
    (sockets, own): (&BTreeMap<SocketKey, BTreeSet<ListenerId>>, &RefCell<OwnAddresses>),
    spec: &Listener,
    address: SocketAddr,
) -> bool {
    let ports = address.port()..=address.port().saturating_add(spec.further_ports());
    let open = |bind| {
        let from = SocketKey { transport: spec.socket.transport, bind, port: *ports.start() };
        sockets.range(from..=SocketKey { port: *ports.end(), ..from }).next().is_some()
    };
    let ip = address.ip();
    let loopback =
        ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST) || ip.is_unspecified();
    let is_own = || own.borrow_mut().is_own(ip, net::is_own_address);
    (loopback && open(Bind::Loopback)) || (open(Bind::All) && is_own())
}

fn is_same(before: &[Entry], after: &[Entry]) -> bool {
    let same_endpoints = |a: &Entry, b: &Entry| {
        a.endpoints.len() == b.endpoints.len() && a.endpoints.iter().zip(&b.endpoints).all(|(a, b)| Arc::ptr_eq(a, b))
    };
    before.len() == after.len()
        && before
            .iter()
            .zip(after)
            .all(|(a, b)| a.id == b.id && a.weight == b.weight && a.priority == b.priority && same_endpoints(a, b))
}

fn addresses_of(set: &EndpointSet) -> Vec<SocketAddr> {
    set.endpoints.iter().map(|endpoint| endpoint.address).collect()
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        shared::Shared,
        supervisor::fixtures::{id, listener, socket},
    };

    fn addresses(ports: &[u16]) -> BTreeMap<String, EndpointSet> {
        let addresses = ports.iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port)));
        BTreeMap::from([("b".to_owned(), addresses.collect())])
    }

    fn live() -> ById {
        ById::from([(id("a"), Shared::new(id("a"), listener(1, "b"), Arc::default(), Arc::default()))])
    }

    #[test]
    fn targets_that_are_unchanged_are_not_replaced_and_known_endpoints_stay() {
        let (names, sockets, live) = (Names::new(mpsc::channel(1).0), BTreeMap::new(), live());
        let refresh = |ports: &[u16]| {
            let endpoints = addresses(ports);
            let own = RefCell::default();
            let sources = Sources { endpoints: &endpoints, sockets: &sockets, names: &names, own: &own };
            let refusals = sources.refresh(&live);
            assert!(refusals.is_empty(), "{refusals:?}");
            live[&id("a")].targets.load_full()
        };
        let first = refresh(&[10]);
        assert!(Arc::ptr_eq(&first, &refresh(&[10])));
        let second = refresh(&[10, 11]);
        assert_eq!(second.entries[0].endpoints.len(), 2);
        assert!(Arc::ptr_eq(&first.entries[0].endpoints[0], &second.entries[0].endpoints[0]));
        assert!(Arc::ptr_eq(&first.entries[0].stats, &second.entries[0].stats));
    }

    #[test]
    fn a_listener_of_the_same_proxy_is_no_target() {
        let (names, live, endpoints) = (Names::new(mpsc::channel(1).0), live(), addresses(&[10, 11]));
        let sockets = BTreeMap::from([(socket(11), BTreeSet::from([id("other")]))]);
        let own = RefCell::default();
        let sources = Sources { endpoints: &endpoints, sockets: &sockets, names: &names, own: &own };
        let refusals = sources.refresh(&live);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 11));
        assert_eq!(refusals, [Refusal { listener: id("a"), address, why: LOOP }]);
        let targets = live[&id("a")].targets.load();
        assert_eq!(targets.entries[0].endpoints.len(), 1);
    }
}
