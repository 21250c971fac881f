//! The addresses of the Services in manifests, beside `--resolve`.
//!
//! ```text
//! manifests ──▶ needed ──▶ Services::find ──▶ reach ──▶ translation
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    net::SocketAddr,
};

use crds::{Listener, Protocol};
use operator_core::{ObjectKey, Service, ServiceBackend, ServicePort, Site, World};
use proxy_api::{Endpoint, Transport};

/// A finder of Services, which keeps them reachable.
pub trait Services {
    /// Returns the locations of these backends; a backend that is absent from the answer is unknown. Never waits.
    /// Backends of an earlier call that this one does not name are released.
    fn find(&mut self, needed: &BTreeSet<ServiceBackend>) -> BTreeMap<ServiceBackend, Found>;

    /// Waits until `find` has another answer. A future that is dropped before its end misses no change.
    fn changed(&mut self) -> impl Future<Output = ()>;
}

/// The location of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The location is not known yet: sessions are refused until it is.
    Attaching,
    /// The backend is at an address of this machine, which balances over the pods of the Service.
    At(SocketAddr),
    /// The backend is unreachable; the sentence names the Service and the reason.
    Unreachable(String),
}

/// An implementation that finds no Service.
pub(crate) struct Nowhere;

impl Services for Nowhere {
    fn find(&mut self, _: &BTreeSet<ServiceBackend>) -> BTreeMap<ServiceBackend, Found> {
        BTreeMap::new()
    }

    fn changed(&mut self) -> impl Future<Output = ()> {
        future::pending()
    }
}

/// The Services that backends name and that are not resolved yet.
pub(crate) fn needed(world: &World) -> BTreeSet<ServiceBackend> {
    let listeners = world.forwards.iter().flat_map(|(key, forward)| {
        let listeners = forward.spec.listeners.iter();
        listeners.map(move |listener| (key.namespace.as_str(), listener))
    });
    let backends = listeners.flat_map(|(namespace, listener)| backends(namespace, listener));
    backends.filter(|backend| !world.services.contains_key(&backend.service)).collect()
}

/// The backends of a listener that are Services.
fn backends(namespace: &str, listener: &Listener) -> impl Iterator<Item = ServiceBackend> {
    let transport = if listener.sends_datagrams() { Transport::Udp } else { Transport::Tcp };
    let is_range = listener.end_port.is_some_and(|end| listener.port != Some(end));
    listener.backends.iter().filter_map(move |backend| {
        let service = backend.service.as_ref()?;
        let namespace = service.namespace.as_deref().unwrap_or(namespace);
        let key = ObjectKey::new(namespace, &service.name);
        Some(ServiceBackend { service: key, port: service.port, transport, is_range })
    })
}

/// Adds the Services that were found to a laptop, and the reasons why others are unreachable.
pub(crate) fn reach(world: &mut World, found: &BTreeMap<ServiceBackend, Found>) {
    let mut unreachable = BTreeMap::new();
    for (backend, found) in found {
        let endpoints: BTreeSet<Endpoint> = match found {
            Found::Unreachable(why) => {
                unreachable.insert(backend.clone(), why.clone());
                continue;
            }
            Found::Attaching => BTreeSet::new(),
            Found::At(address) => BTreeSet::from([Endpoint::from(*address)]),
        };
        let protocol = match backend.transport {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        };
        let port = ServicePort { protocol, port: backend.port, endpoints };
        let service = world.services.entry(backend.service.clone()).or_insert_with(|| Service::Cluster(Vec::new()));
        if let Service::Cluster(ports) = service {
            ports.push(port);
        }
    }
    if let Site::Laptop(laptop) = &mut world.site {
        laptop.unreachable = unreachable;
    }
    drop_checks(world, found);
}

/// Drops the active checks of listeners whose Service was found. The readiness of the pods already decides; a check
/// would reach an arbitrary pod, and a check at another port would reach a program of this machine.
fn drop_checks(world: &mut World, found: &BTreeMap<ServiceBackend, Found>) {
    let is_found = |backend: &ServiceBackend| !matches!(found.get(backend), None | Some(Found::Unreachable(_)));
    for (key, forward) in &mut world.forwards {
        for listener in &mut forward.spec.listeners {
            if backends(&key.namespace, listener).any(|backend| is_found(&backend)) {
                listener.health_check = None;
                for backend in &mut listener.backends {
                    backend.health_check_port = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use operator_core::{Laptop, translate};
    use serde_json::json;

    use super::*;

    fn world(listeners: &serde_json::Value) -> World {
        let forward = json!({
            "metadata": {"name": "f", "namespace": "shop"},
            "spec": {"placement": {"sidecar": {"selector": {}}}, "listeners": listeners},
        });
        let forward = serde_json::from_value(forward).expect("a forward");
        let mut world = World { site: Site::Laptop(Laptop::default()), ..World::default() };
        world.forwards.insert(ObjectKey::new("shop", "f"), forward);
        world
    }

    fn listener(name: &str, protocol: &str, port: u16, backends: &serde_json::Value) -> serde_json::Value {
        json!({"name": name, "protocol": protocol, "port": port, "backends": backends})
    }

    fn backend(namespace: &str, name: &str, port: u16) -> ServiceBackend {
        let service = ObjectKey::new(namespace, name);
        ServiceBackend { service, port, transport: Transport::Tcp, is_range: false }
    }

    #[test]
    fn every_port_of_a_service_is_needed_once_unless_an_option_resolves_the_service() {
        let pg = json!([{"service": {"name": "pg", "port": 5432}}, {"address": {"host": "192.0.2.1", "port": 1}}]);
        let mut range = listener("range", "TCP", 4, &json!([{"service": {"name": "pg", "port": 9000}}]));
        range["endPort"] = json!(7);
        let mut world = world(&json!([
            listener("a", "TCP", 1, &pg),
            listener("b", "TCP", 2, &pg),
            listener("dns", "UDP", 3, &json!([{"service": {"name": "dns", "namespace": "kube-system", "port": 53}}])),
            range,
            listener("given", "TCP", 8, &json!([{"service": {"name": "given", "port": 80}}])),
        ]));
        let given = Service::External { host: "192.0.2.2".to_owned(), port: None };
        world.services.insert(ObjectKey::new("shop", "given"), given);
        let dns = ServiceBackend { transport: Transport::Udp, ..backend("kube-system", "dns", 53) };
        let range = ServiceBackend { is_range: true, ..backend("shop", "pg", 9000) };
        assert_eq!(needed(&world), BTreeSet::from([backend("shop", "pg", 5432), range, dns]));
    }

    #[test]
    fn a_service_that_was_found_leads_to_this_machine_and_another_says_why_not() {
        let service = |name: &str, port: u16| json!([{"service": {"name": name, "port": port}}]);
        let mut world = world(&json!([
            listener("pg", "TCP", 1, &service("pg", 5432)),
            listener("admin", "TCP", 2, &service("pg", 8080)),
            listener("late", "TCP", 3, &service("late", 80)),
            listener("lost", "TCP", 4, &service("lost", 80)),
        ]));
        let at = |port: u16| Found::At(SocketAddr::from(([127, 0, 0, 1], port)));
        let found = BTreeMap::from([
            (backend("shop", "pg", 5432), at(40001)),
            (backend("shop", "pg", 8080), at(40002)),
            (backend("shop", "late", 80), Found::Attaching),
            (backend("shop", "lost", 80), Found::Unreachable("Service shop/lost is out of reach".to_owned())),
        ]);
        reach(&mut world, &found);
        let translation = translate(&world);
        let configuration = translation.configurations.values().next().expect("a configuration");
        let endpoints: Vec<Vec<u16>> = configuration
            .endpoints
            .values()
            .map(|set| set.endpoints.iter().map(|endpoint| endpoint.address.port()).collect())
            .collect();
        assert_eq!(endpoints, [vec![], vec![40001], vec![40002]], "shop/late, and the ports of shop/pg");
        let verdict = translation.verdicts.values().next().expect("a verdict");
        assert!(verdict.resolved_refs.message.contains("Service shop/lost is out of reach"), "{verdict:?}");
    }

    #[test]
    fn a_listener_whose_service_was_found_has_no_active_checks() {
        let mut checked =
            listener("a", "TCP", 1, &json!([{"service": {"name": "pg", "port": 1}, "healthCheckPort": 2}]));
        checked["healthCheck"] = json!({"tcp": {}});
        let has_checks = |found: Found| {
            let mut world = world(&json!([checked]));
            reach(&mut world, &BTreeMap::from([(backend("shop", "pg", 1), found)]));
            let listener = world.forwards.into_values().next().expect("a forward").spec.listeners.remove(0);
            listener.health_check.is_some() || listener.backends[0].health_check_port.is_some()
        };
        assert!(!has_checks(Found::Attaching));
        assert!(has_checks(Found::Unreachable(String::new())));
    }
}
