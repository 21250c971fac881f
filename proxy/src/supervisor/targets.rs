//! The endpoints of each listener: from endpoint sets, literal addresses, DNS answers and the instances of agents.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use proxy_api::{Agent, Backend, Bind, Denial, EndpointSet, Listener, ListenerId, SocketKey, Surroundings, Target};

use super::{listeners::ById, names::Names};
use crate::{
    core::{
        backends::{
            address::{Address, AgentAddress},
            balance::{Entry, Targets},
            endpoint::{Checked, Endpoint},
            instances::Instances,
        },
        ports::own_addresses::OwnAddresses,
    },
    net,
    shared::Shared,
};

/// The inputs of targets.
pub(super) struct Sources<'a> {
    /// Endpoint sets of the configuration.
    pub(super) endpoints: &'a BTreeMap<String, EndpointSet>,
    /// Open sockets of this proxy, which must not become its targets.
    pub(super) sockets: &'a BTreeMap<SocketKey, BTreeSet<ListenerId>>,
    /// DNS answers.
    pub(super) names: &'a Names,
    /// Agents of the configuration, by uid.
    pub(super) agents: &'a BTreeMap<String, Agent>,
    /// The instances of agents.
    pub(super) instances: &'a Instances,
    /// The surroundings of the proxy.
    pub(super) surroundings: &'a Arc<Surroundings>,
    /// Addresses of this host, as far as they were looked up.
    pub(super) own: &'a RefCell<OwnAddresses>,
    /// Seconds of the process clock.
    pub(super) now: u64,
}

/// An address that a listener must not connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The listener.
    pub(super) listener: ListenerId,
    /// The address.
    pub(super) address: SocketAddr,
    /// The reason.
    pub(super) why: Denial,
}

impl Sources<'_> {
    /// Recomputes the targets of these listeners; unchanged endpoints keep their state. Returns the addresses that are
    /// not used.
    pub(super) fn refresh(&self, live: &ById) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for (id, shared) in live {
            let spec = shared.spec.load_full();
            let before = shared.targets.load_full();
            let (entries, refused) = self.entries(&spec, &before);
            count(shared, &refused);
            if !Arc::ptr_eq(&shared.surroundings.load(), self.surroundings) {
                shared.surroundings.store(self.surroundings.clone());
            }
            if !is_same(&before.entries, &entries) {
                shared.targets.store(Arc::new(before.followed_by(entries, self.now)));
                shared.waiters.wake();
            }
            // After the targets, so that a session that wakes finds them.
            shared.first_answer.set(self.awaited(&spec));
            let refused = refused.into_iter();
            refusals.extend(refused.map(|(address, why)| Refusal { listener: id.clone(), address, why }));
        }
        refusals
    }

    fn entries(&self, spec: &Listener, before: &Targets) -> (Vec<Entry>, Vec<(SocketAddr, Denial)>) {
        let (mut entries, mut refused) = (Vec::with_capacity(spec.backends.len()), Vec::new());
        for backend in &spec.backends {
            let mut usable = BTreeSet::new();
            for address in self.candidates(&backend.target) {
                let denied = address.socket().and_then(|socket| Some((socket, self.refuses(spec, backend, socket)?)));
                if let Some(denied) = denied {
                    refused.push(denied);
                } else {
                    usable.insert(address);
                }
            }
            let entry = entry(backend, before, usable);
            let detached = self.is_detached(&backend.target);
            entry.endpoints.iter().for_each(|endpoint| endpoint.set_detached(detached));
            entries.push(entry);
        }
        (entries, refused)
    }

    /// The lowest priority of the open backends whose names have no answer yet.
    fn awaited(&self, spec: &Listener) -> Option<u32> {
        let is_awaited =
            |target: &Target| matches!(target, Target::Address { host, .. } if self.names.is_awaited(host));
        let awaited = spec.backends.iter().filter(|backend| backend.weight > 0 && is_awaited(&backend.target));
        awaited.map(|backend| backend.priority).min()
    }

    fn candidates(&self, target: &Target) -> Vec<Address> {
        match target {
            Target::Endpoints(name) => self.endpoints.get(name).map(addresses_of).unwrap_or_default(),
            Target::Address { host, port } => {
                let ips = match host.parse::<IpAddr>() {
                    Ok(ip) => vec![ip],
                    Err(_) => self.names.addresses(host).to_vec(),
                };
                ips.into_iter().map(|ip| Address::Socket(SocketAddr::new(ip.to_canonical(), *port))).collect()
            }
            Target::Tunnel { agent, host, port } => self.behind(agent, host, *port),
        }
    }

    /// The addresses of a host and port behind an agent: one for each of its instances.
    fn behind(&self, uid: &str, host: &str, port: u16) -> Vec<Address> {
        let known = self.agents.get(uid).zip(self.instances.0.get_key_value(uid));
        let Some((agent, (uid, instances))) = known else { return Vec::new() };
        let name: Arc<str> = format!("{}/{}", agent.namespace, agent.name).into();
        let host: Arc<str> = host.into();
        let address = |instance: &Arc<str>| AgentAddress {
            uid: uid.clone(),
            agent: name.clone(),
            instance: instance.clone(),
            host: host.clone(),
            port,
        };
        instances.names.iter().map(|instance| Address::Agent(Arc::new(address(instance)))).collect()
    }

    /// Whether the target is behind an agent of which no instance has a connection now.
    fn is_detached(&self, target: &Target) -> bool {
        let Target::Tunnel { agent, .. } = target else { return false };
        self.instances.0.get(agent.as_str()).is_some_and(|instances| instances.detached)
    }

    /// Why the listener must not connect to this address, if so. An address behind an agent is not checked here: it is
    /// in the network of the agent, to which neither the destinations nor the loops of this proxy apply. The lists of
    /// both ends of the tunnel allow it.
    fn refuses(&self, spec: &Listener, backend: &Backend, address: SocketAddr) -> Option<Denial> {
        let (ip, ports) = (address.ip(), address.port()..=address.port().saturating_add(spec.further_ports()));
        let denied = match &backend.target {
            Target::Address { .. } => self.refuses_address(spec, ip, &ports).or_else(|| {
                // Active checks connect, too, perhaps to a port of their own.
                let checked = spec.checked_port(backend)?;
                self.refuses_address(spec, ip, &(checked..=checked))
            }),
            Target::Endpoints(_) => spec.destinations.refuses_endpoint(ip),
            Target::Tunnel { .. } => return None,
        };
        denied.or_else(|| self.is_loop(spec, ip, &ports).then_some(Denial::Loop))
    }

    /// Why the listener must not connect to these ports of an address that it names, if so.
    fn refuses_address(&self, spec: &Listener, ip: IpAddr, ports: &RangeInclusive<u16>) -> Option<Denial> {
        spec.destinations.refuses(ip, ports).or_else(|| {
            let is_protected = self.surroundings.protects(ip, ports) && !spec.destinations.names(ip);
            is_protected.then_some(Denial::Cluster)
        })
    }

    /// Whether one of these ports of an address belongs to this proxy or leads back to its fleet, whose proxies all have
    /// the same listeners.
    fn is_loop(&self, spec: &Listener, ip: IpAddr, ports: &RangeInclusive<u16>) -> bool {
        let open = |bind| {
            let from = SocketKey { transport: spec.transport_out(), bind, port: *ports.start() };
            self.sockets.range(from..=SocketKey { port: *ports.end(), ..from }).next().is_some()
        };
        let loopback =
            ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST) || ip.is_unspecified();
        (loopback && open(Bind::Loopback))
            || (open(Bind::All) && self.is_own(ip))
            || self.surroundings.leads_back(ip, ports, || open(Bind::All))
    }

    /// Whether an address belongs to this host.
    fn is_own(&self, ip: IpAddr) -> bool {
        self.own.borrow_mut().is_own(ip, net::is_own_address)
    }
}

/// Counts the addresses that a listener does not use now.
fn count(shared: &Shared, refused: &[(SocketAddr, Denial)]) {
    for why in Denial::ALL {
        let now = refused.iter().filter(|(_, other)| *other == why).count();
        shared.counters.refused[why.index()].store(now as u64, Relaxed);
    }
}

/// A backend with these addresses; known endpoints and counts are kept, including endpoints that return.
fn entry(backend: &Backend, before: &Targets, addresses: BTreeSet<Address>) -> Entry {
    let known = before.entries.iter().find(|entry| *entry.id == *backend.id);
    let known_endpoint = |address: &Address| {
        // Endpoints are ordered by their addresses.
        let endpoints = &known?.endpoints;
        let at = endpoints.binary_search_by(|endpoint| endpoint.address.cmp(address)).ok()?;
        endpoints.get(at).cloned()
    };
    let departed: BTreeMap<&Address, &Arc<Endpoint>> =
        before.departed_from(&backend.id).map(|endpoint| (&endpoint.address, endpoint)).collect();
    let returned = |address: &Address| {
        let endpoint = departed.get(address).copied().cloned()?;
        // The endpoint's checks have stopped meanwhile, so their result is outdated.
        endpoint.set_checked(Checked::Not);
        Some(endpoint)
    };
    let endpoint = |address: Address| {
        let known = known_endpoint(&address).or_else(|| returned(&address));
        known.unwrap_or_else(|| Arc::new(Endpoint::new(address)))
    };
    Entry {
        id: known.map_or_else(|| backend.id.as_str().into(), |entry| entry.id.clone()),
        weight: backend.weight,
        priority: backend.priority,
        endpoints: addresses.into_iter().map(endpoint).collect(),
        stats: known.map(|entry| entry.stats.clone()).unwrap_or_default(),
    }
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

fn addresses_of(set: &EndpointSet) -> Vec<Address> {
    set.endpoints.iter().map(|endpoint| Address::Socket(endpoint.address)).collect()
}

#[cfg(test)]
mod tests;
