//! The endpoints of each listener: from endpoint sets, literal addresses and DNS answers.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use proxy_api::{Backend, Bind, Denial, EndpointSet, Listener, ListenerId, SocketKey, Surroundings, Target};

use super::{listeners::ById, names::Names};
use crate::{
    core::{
        balance::{Entry, Targets},
        endpoint::{Checked, Endpoint},
        own_addresses::OwnAddresses,
    },
    net,
    shared::Shared,
};

/// What targets are computed from.
pub(super) struct Sources<'a> {
    /// Endpoint sets of the configuration.
    pub(super) endpoints: &'a BTreeMap<String, EndpointSet>,
    /// Open sockets of this proxy, which must not become its targets.
    pub(super) sockets: &'a BTreeMap<SocketKey, BTreeSet<ListenerId>>,
    /// DNS answers.
    pub(super) names: &'a Names,
    /// What is around the proxy.
    pub(super) surroundings: &'a Arc<Surroundings>,
    /// Addresses of this host, as far as they were asked for.
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
    /// Why.
    pub(super) why: Denial,
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
            count(shared, &refused);
            if !Arc::ptr_eq(&shared.surroundings.load(), self.surroundings) {
                shared.surroundings.store(self.surroundings.clone());
            }
            if !is_same(&before.entries, &entries) {
                shared.targets.store(Arc::new(before.followed_by(entries, self.now)));
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
                if let Some(why) = self.refuses(spec, backend, address) {
                    refused.push((address, why));
                } else {
                    usable.insert(address);
                }
            }
            entries.push(entry(backend, before, usable));
        }
        (entries, refused)
    }

    /// The lowest priority of the open backends whose names nothing was heard of yet.
    fn awaited(&self, spec: &Listener) -> Option<u32> {
        let is_awaited =
            |target: &Target| matches!(target, Target::Address { host, .. } if self.names.is_awaited(host));
        let awaited = spec.backends.iter().filter(|backend| backend.weight > 0 && is_awaited(&backend.target));
        awaited.map(|backend| backend.priority).min()
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
    fn refuses(&self, spec: &Listener, backend: &Backend, address: SocketAddr) -> Option<Denial> {
        let (ip, ports) = (address.ip(), address.port()..=address.port().saturating_add(spec.further_ports()));
        let denied = match &backend.target {
            Target::Address { .. } => self.refuses_address(spec, ip, &ports).or_else(|| {
                // Active checks connect too, perhaps to a port of their own.
                let checked = spec.checked_port(backend)?;
                self.refuses_address(spec, ip, &(checked..=checked))
            }),
            Target::Endpoints(_) => spec.destinations.refuses_endpoint(ip),
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
            let from = SocketKey { transport: spec.socket.transport, bind, port: *ports.start() };
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

/// A backend with these addresses; endpoints and counts that are known already are kept, also of endpoints that return.
fn entry(backend: &Backend, before: &Targets, addresses: BTreeSet<SocketAddr>) -> Entry {
    let known = before.entries.iter().find(|entry| *entry.id == *backend.id);
    let known_endpoint = |address: &SocketAddr| {
        // Endpoints are in the order of their addresses.
        let endpoints = &known?.endpoints;
        let at = endpoints.binary_search_by_key(address, |endpoint| endpoint.address).ok()?;
        endpoints.get(at).cloned()
    };
    let departed: BTreeMap<SocketAddr, &Arc<Endpoint>> =
        before.departed_from(&backend.id).map(|endpoint| (endpoint.address, endpoint)).collect();
    let returned = |address: &SocketAddr| {
        let endpoint = departed.get(address).copied().cloned()?;
        // Its checks have stopped meanwhile, so that their result is out of date.
        endpoint.set_checked(Checked::Not);
        Some(endpoint)
    };
    let endpoint = |address: SocketAddr| {
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

fn addresses_of(set: &EndpointSet) -> Vec<SocketAddr> {
    set.endpoints.iter().map(|endpoint| endpoint.address).collect()
}

#[cfg(test)]
mod tests {
    use proxy_api::{Destinations, HealthCheck, Outlier, Probe};

    use super::*;
    use crate::{
        core::{dns::families::Resolution, endpoint::Counted},
        supervisor::fixtures::{id, listener, socket},
    };

    fn addresses(ports: &[u16]) -> BTreeMap<String, EndpointSet> {
        let addresses = ports.iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port)));
        BTreeMap::from([("b".to_owned(), addresses.collect())])
    }

    fn live() -> ById {
        ById::from([(id("a"), Shared::new(id("a"), listener(1, "b"), Arc::default(), Arc::default()))])
    }

    fn of<'a>(
        endpoints: &'a BTreeMap<String, EndpointSet>,
        sockets: &'a BTreeMap<SocketKey, BTreeSet<ListenerId>>,
        names: &'a Names,
        (surroundings, own): (&'a Arc<Surroundings>, &'a RefCell<OwnAddresses>),
    ) -> Sources<'a> {
        Sources { endpoints, sockets, names, surroundings, own, now: 0 }
    }

    #[test]
    fn targets_that_are_unchanged_are_not_replaced_and_known_endpoints_stay() {
        let (names, sockets, live) = (Names::without_receiver(), BTreeMap::new(), live());
        let refresh = |ports: &[u16]| {
            let endpoints = addresses(ports);
            let (around, own) = (Arc::default(), RefCell::default());
            let sources = of(&endpoints, &sockets, &names, (&around, &own));
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
    fn an_endpoint_that_returns_has_its_sessions_and_its_ejection_and_no_old_check() {
        let (names, sockets, live) = (Names::without_receiver(), BTreeMap::new(), live());
        let refresh = |ports: &[u16], now: u64| {
            let endpoints = addresses(ports);
            let (around, own) = (Arc::default(), RefCell::default());
            Sources { now, ..of(&endpoints, &sockets, &names, (&around, &own)) }.refresh(&live);
            live[&id("a")].targets.load().entries[0].endpoints.clone()
        };
        let first = refresh(&[10, 11, 12], 0);
        let session = Counted::new(first[0].clone());
        first[0].set_checked(Checked::Down);
        first[1].failed(Outlier { consecutive_failures: 1, eject_seconds: 10 }, 0);
        refresh(&[], 1);
        refresh(&[13], 2);
        let back = refresh(&[10, 11, 12, 13], 3);
        let is_kept: Vec<bool> = first.iter().zip(&back).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
        assert_eq!(is_kept, [true, true, false]);
        assert_eq!(back[0].checked(), Checked::Not, "the checks of an absent endpoint have stopped");
        drop(session);
        refresh(&[13], 4);
        let later = refresh(&[10, 11, 13], 5);
        assert!(!Arc::ptr_eq(&first[0], &later[0]), "nothing is known of an endpoint without sessions");
        assert!(Arc::ptr_eq(&first[1], &later[1]), "the ejection lasts");
    }

    #[tokio::test]
    async fn a_session_waits_for_the_first_answer_to_a_name_and_no_longer() {
        let (mut names, sockets, endpoints) = (Names::without_receiver(), BTreeMap::new(), BTreeMap::new());
        let template = (*listener(1, "b")).clone();
        let target = Target::Address { host: "db.test".to_owned(), port: 80 };
        let backends = vec![Backend { target, ..template.backends[0].clone() }];
        let spec = Arc::new(Listener { backends, ..template }.sealed());
        names.set(&id("a"), Some(&spec));
        let shared = Shared::new(id("a"), spec, Arc::default(), Arc::default());
        let live = ById::from([(id("a"), shared.clone())]);
        let (around, own) = (Arc::default(), RefCell::default());
        let waits = |names: &Names| {
            of(&endpoints, &sockets, names, (&around, &own)).refresh(&live);
            shared.first_answer.is_needed(&shared.targets.load())
        };
        assert!(waits(&names));
        names.learn("db.test", Resolution { failure: Some("timeout".to_owned()), ..Resolution::default() }, 0);
        assert!(!waits(&names));
    }

    #[test]
    fn a_listener_of_the_same_proxy_is_no_target() {
        let (names, live, endpoints) = (Names::without_receiver(), live(), addresses(&[10, 11]));
        let sockets = BTreeMap::from([(socket(11), BTreeSet::from([id("other")]))]);
        let (around, own) = (Arc::default(), RefCell::default());
        let sources = of(&endpoints, &sockets, &names, (&around, &own));
        let refusals = sources.refresh(&live);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 11));
        assert_eq!(refusals, [Refusal { listener: id("a"), address, why: Denial::Loop }]);
        let targets = live[&id("a")].targets.load();
        assert_eq!(targets.entries[0].endpoints.len(), 1);
    }

    fn set(texts: &[&str]) -> EndpointSet {
        texts.iter().map(|text| text.parse::<SocketAddr>().expect("an address")).collect()
    }

    #[test]
    fn an_address_that_leads_back_to_the_fleet_is_no_target_on_a_port_on_which_the_fleet_listens() {
        let (names, live) = (Names::without_receiver(), live());
        let endpoints = BTreeMap::from([
            ("b".to_owned(), set(&["192.0.2.1:11", "192.0.2.1:12", "192.0.2.7:80", "192.0.2.9:11"])),
            ("fleet".to_owned(), set(&["192.0.2.1:0"])),
            ("fronts".to_owned(), set(&["192.0.2.7:80"])),
        ]);
        let all = SocketKey { bind: Bind::All, ..socket(11) };
        let sockets = BTreeMap::from([(all, BTreeSet::from([id("other")]))]);
        let (around, own) = (Arc::new(Surroundings::of(&endpoints)), RefCell::default());
        let sources = of(&endpoints, &sockets, &names, (&around, &own));
        let refused: Vec<String> = sources.refresh(&live).iter().map(|it| it.address.to_string()).collect();
        assert_eq!(refused, ["192.0.2.1:11", "192.0.2.7:80"]);
        let shared = &live[&id("a")];
        let used: Vec<String> =
            shared.targets.load().entries[0].endpoints.iter().map(|it| it.address.to_string()).collect();
        assert_eq!(used, ["192.0.2.1:12", "192.0.2.9:11"]);
        assert_eq!(shared.counters.refused[Denial::Loop.index()].load(Relaxed), 2);
        let pod = IpAddr::from([192, 0, 2, 1]);
        assert!(
            shared.returns(pod) && !shared.returns(IpAddr::from([192, 0, 2, 7])),
            "a client in the fleet came back"
        );
    }

    #[test]
    fn nodes_are_no_targets_unless_the_gateway_names_them() {
        let (names, sockets) = (Names::without_receiver(), BTreeMap::new());
        let endpoints = BTreeMap::from([("protected".to_owned(), set(&["192.0.2.5:0"]))]);
        let (around, own) = (Arc::new(Surroundings::of(&endpoints)), RefCell::default());
        let sources = of(&endpoints, &sockets, &names, (&around, &own));
        let refused = |cidrs: &[&str]| -> Vec<Denial> {
            let template = (*listener(1, "b")).clone();
            let target = Target::Address { host: "192.0.2.5".to_owned(), port: 80 };
            let backends = vec![Backend { target, ..template.backends[0].clone() }];
            let cidrs = cidrs.iter().map(|cidr| cidr.parse().expect("a network")).collect();
            let destinations = Destinations { refuse_local: true, cidrs };
            let spec = Arc::new(Listener { backends, destinations, ..template }.sealed());
            let shared = Shared::new(id("a"), spec, Arc::default(), Arc::default());
            sources.refresh(&ById::from([(id("a"), shared)])).iter().map(|it| it.why).collect()
        };
        assert_eq!(refused(&[]), [Denial::Cluster]);
        assert_eq!(refused(&["192.0.2.0/24"]), [Denial::Cluster]);
        assert!(refused(&["192.0.2.5/32"]).is_empty());
    }

    #[test]
    fn an_address_is_no_target_if_its_checks_would_go_to_a_port_that_is_refused() {
        let (names, sockets) = (Names::without_receiver(), BTreeMap::new());
        let endpoints = BTreeMap::from([("protected".to_owned(), set(&["192.0.2.6:6443"]))]);
        let (around, own) = (Arc::new(Surroundings::of(&endpoints)), RefCell::default());
        let sources = of(&endpoints, &sockets, &names, (&around, &own));
        let refused = |port: Option<u16>, check_port: Option<u16>| -> Vec<Denial> {
            let template = (*listener(1, "b")).clone();
            let target = Target::Address { host: "192.0.2.6".to_owned(), port: 80 };
            let backends = vec![Backend { target, check_port, ..template.backends[0].clone() }];
            let destinations = Destinations { refuse_local: true, ..Destinations::default() };
            let check = HealthCheck {
                probe: Probe::Tcp,
                port,
                interval_seconds: 10,
                timeout_seconds: 1,
                unhealthy_threshold: 1,
                healthy_threshold: 1,
            };
            let health_check = Some(Box::new(check));
            let spec = Arc::new(Listener { backends, destinations, health_check, ..template }.sealed());
            let shared = Shared::new(id("a"), spec, Arc::default(), Arc::default());
            sources.refresh(&ById::from([(id("a"), shared)])).iter().map(|it| it.why).collect()
        };
        assert!(refused(None, None).is_empty() && refused(Some(8080), None).is_empty());
        assert_eq!(refused(Some(10_250), None), [Denial::Kubelet]);
        assert_eq!(refused(Some(6443), None), [Denial::Cluster]);
        assert_eq!(refused(Some(8080), Some(6443)), [Denial::Cluster]);
        assert!(refused(Some(6443), Some(8080)).is_empty(), "the port of the entry comes first");
    }
}
