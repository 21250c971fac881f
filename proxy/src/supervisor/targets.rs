//! Which endpoints each listener has now: from endpoint sets, literal addresses and DNS answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use proxy_api::{Backend, Bind, Listener, ListenerId, SocketKey, Target};

use super::Supervisor;
use crate::{
    core::{
        balance::{Entry, Targets},
        endpoint::Endpoint,
    },
    log::Level,
    net,
    shared::Shared,
};

impl Supervisor {
    /// Recomputes the targets of every listener; what is unchanged keeps its state.
    pub(super) fn refresh_targets(&mut self) {
        let hosts: BTreeSet<String> = self.hosts().collect();
        self.addresses.retain(|host, _| hosts.contains(host));
        self.failing_since.retain(|host, _| hosts.contains(host));
        self.resolver.follow(&hosts);
        let mut refusals = Vec::new();
        for (id, shared) in &self.listeners {
            let spec = shared.spec.load_full();
            let mut refused = |address: SocketAddr, why: &str| refusals.push((id.clone(), address, why.to_owned()));
            self.refresh(shared, &spec, &mut refused);
        }
        self.checks.follow(&self.process, &self.listeners);
        for (id, address, why) in refusals {
            if self.told.insert((id.clone(), address.to_string())) {
                self.process.log.notice(Level::Warn, "refused", id, format!("endpoint {address} is not used: {why}"));
            }
        }
    }

    fn hosts(&self) -> impl Iterator<Item = String> {
        let backends = self.running.listeners.values().flat_map(|listener| &listener.backends);
        backends.filter_map(|backend| match &backend.target {
            Target::Address { host, .. } if host.parse::<IpAddr>().is_err() => Some(host.clone()),
            _ => None,
        })
    }

    fn refresh(&self, shared: &Shared, spec: &Listener, refused: &mut impl FnMut(SocketAddr, &str)) {
        let before = shared.targets.load_full();
        let entries: Vec<Entry> =
            spec.backends.iter().map(|backend| self.entry(backend, spec, &before, refused)).collect();
        if !is_same(&before.entries, &entries) {
            shared.targets.store(Arc::new(Targets { entries }));
        }
    }

    fn entry(
        &self,
        backend: &Backend,
        spec: &Listener,
        before: &Targets,
        refused: &mut impl FnMut(SocketAddr, &str),
    ) -> Entry {
        let known = before.entries.iter().find(|entry| *entry.id == *backend.id);
        let known_endpoint = |address: &SocketAddr| {
            known.and_then(|entry| entry.endpoints.iter().find(|endpoint| endpoint.address == *address)).cloned()
        };
        let addresses = self.endpoint_addresses(backend, spec, refused);
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

    fn endpoint_addresses(
        &self,
        backend: &Backend,
        spec: &Listener,
        refused: &mut impl FnMut(SocketAddr, &str),
    ) -> BTreeSet<SocketAddr> {
        let (candidates, by_address) = match &backend.target {
            Target::Endpoints(name) => {
                let set = self.configuration.endpoints.get(name);
                (set.map(|set| set.addresses.clone()).unwrap_or_default(), false)
            }
            Target::Address { host, port } => {
                let ips = match host.parse::<IpAddr>() {
                    Ok(ip) => vec![ip],
                    Err(_) => self.addresses.get(host).cloned().unwrap_or_default(),
                };
                (ips.into_iter().map(|ip| SocketAddr::new(ip.to_canonical(), *port)).collect(), true)
            }
        };
        let mut usable = BTreeSet::new();
        for address in candidates {
            let denied = by_address.then(|| spec.destinations.refuses(address.ip())).flatten();
            if let Some(why) = denied {
                refused(address, why);
            } else if is_own_listener(&self.running.sockets, spec, address) {
                refused(address, "it is a listener of this same proxy, which would be a loop; name the real server");
            } else {
                usable.insert(address);
            }
        }
        usable
    }
}

/// Whether one of the ports that a listener would use at this address is a listener of this proxy.
fn is_own_listener(sockets: &BTreeMap<SocketKey, BTreeSet<ListenerId>>, spec: &Listener, address: SocketAddr) -> bool {
    let ports = address.port()..=address.port().saturating_add(spec.further_ports());
    let open = |bind| {
        let from = SocketKey { transport: spec.socket.transport, bind, port: *ports.start() };
        sockets.range(from..=SocketKey { port: *ports.end(), ..from }).next().is_some()
    };
    let ip = address.ip();
    let loopback =
        ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST) || ip.is_unspecified();
    (loopback && open(Bind::Loopback)) || (open(Bind::All) && net::is_own_address(ip))
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
