//! Assembles Services with their endpoints from slices.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crds::Protocol;

use super::{Cache, Touched};
use crate::world::{
    ObjectKey, Service, ServicePort,
    objects::{ServiceInfo, SliceInfo},
    reach::Front,
};

/// The gateway that a Service belongs to, by its label.
fn of_gateway(key: &ObjectKey, info: &ServiceInfo) -> Option<ObjectKey> {
    info.gateway.as_ref().map(|name| ObjectKey::new(key.namespace.clone(), name.clone()))
}

/// The parts of a Service that decide whether, and where, the Service leads to a fleet.
fn reach_parts(info: &ServiceInfo) -> (&BTreeMap<String, String>, Option<&String>, &Front) {
    (&info.selector, info.gateway.as_ref(), &info.front)
}

/// The addresses at which a Service listens.
fn listening(info: &ServiceInfo) -> BTreeSet<SocketAddr> {
    let at = |ip: IpAddr| info.ports.iter().map(move |(_, _, port)| SocketAddr::new(ip, *port));
    info.front.addresses.iter().copied().flat_map(at).collect()
}

impl Cache {
    /// Replaces a Service, and touches the gateways that the Service belonged or belongs to.
    pub(super) fn take_service(&mut self, key: &ObjectKey, info: ServiceInfo, touched: &mut Touched) {
        touched.gateways.extend(of_gateway(key, &info));
        let before = self.services.insert(key.clone(), info);
        touched.gateways.extend(before.as_ref().and_then(|before| of_gateway(key, before)));
        self.touch_namesake(key, touched);
        self.service(key, touched);
        self.api_service(key, touched);
        let now = self.services.get(key);
        if before.as_ref().map(reach_parts) != now.map(reach_parts) {
            self.reach_in(&key.namespace, touched);
        }
    }

    /// Type and value of the addresses of the load balancer in front of a gateway's fleet.
    #[must_use]
    pub fn balanced(&self, gateway: &ObjectKey) -> &[(String, String)] {
        let own = |service: &&ServiceInfo| service.is_balanced && service.gateway.as_ref() == Some(&gateway.name);
        self.services.get(gateway).filter(own).map(|service| service.addresses.as_slice()).unwrap_or_default()
    }

    /// Removes a Service, and touches the gateway that the Service belonged to.
    pub(super) fn lose_service(&mut self, key: &ObjectKey, touched: &mut Touched) {
        let before = self.services.remove(key);
        self.world.services.remove(key);
        self.world.podless.remove(key);
        touched.gateways.extend(before.and_then(|before| of_gateway(key, &before)));
        self.touch_namesake(key, touched);
        touched.changes.services.insert(key.clone());
        self.api_service(key, touched);
        self.reach_in(&key.namespace, touched);
    }

    /// Updates the addresses at which the Service of the API server listens. The environment of the operator does not
    /// always contain them: a provider may set a name there.
    fn api_service(&mut self, key: &ObjectKey, touched: &mut Touched) {
        if !key.is_api_server() {
            return;
        }
        let now = self.services.get(key).map(listening).unwrap_or_default();
        if self.world.api_service != now {
            self.world.api_service = now;
            touched.changes.services.insert(key.clone());
        }
    }

    /// Touches the gateway of the same name: a Service of another owner takes or frees that name.
    fn touch_namesake(&self, key: &ObjectKey, touched: &mut Touched) {
        if self.world.gateways.contains_key(key) {
            touched.gateways.insert(key.clone());
        }
    }

    /// Replaces or removes a slice, and updates the Services that it belonged or belongs to.
    pub(super) fn slice(&mut self, key: &ObjectKey, info: Option<SliceInfo>, touched: &mut Touched) {
        let before = self.slices.remove(key);
        if let Some(before) = &before {
            let service = ObjectKey::new(key.namespace.clone(), before.service.clone());
            if let Some(slices) = self.slices_of.get_mut(&service) {
                slices.remove(&key.name);
                if slices.is_empty() {
                    self.slices_of.remove(&service);
                }
            }
        }
        let services =
            before.iter().chain(&info).map(|info| ObjectKey::new(key.namespace.clone(), info.service.clone()));
        let services: BTreeSet<ObjectKey> = services.collect();
        if let Some(info) = info {
            let service = ObjectKey::new(key.namespace.clone(), info.service.clone());
            self.slices_of.entry(service).or_default().insert(key.name.clone());
            self.slices.insert(key.clone(), info);
        }
        for service in &services {
            self.service(service, touched);
        }
    }

    /// Assembles a Service with its endpoints, and records the change.
    pub(super) fn service(&mut self, key: &ObjectKey, touched: &mut Touched) {
        let Some(info) = self.services.get(key) else { return };
        let podless = self.podless(key, info);
        let service = match &info.external {
            Some(host) => Service::External { host: host.clone(), port: None },
            None if info.ports.is_empty() => {
                Service::Portless(self.slices_of(key).flat_map(|slice| &slice.hosts).copied().collect())
            }
            None => Service::Cluster(info.ports.iter().map(|port| self.port(key, port)).collect()),
        };
        if self.world.podless.remove(key).unwrap_or_default() != podless {
            touched.changes.podless.insert(key.clone());
        }
        if !podless.is_empty() {
            self.world.podless.insert(key.clone(), podless);
        }
        match self.world.services.get(key) {
            Some(old) if *old == service => return,
            Some(old) if shape(old) == shape(&service) => {
                touched.changes.endpoints.insert(key.clone());
            }
            _ => {
                touched.changes.services.insert(key.clone());
            }
        }
        self.world.services.insert(key.clone(), service);
    }

    /// The addresses of a Service that no pod backs. Without a selector, no controller reverts users' writes to slices,
    /// so no slice counts as evidence of a pod.
    fn podless(&self, key: &ObjectKey, info: &ServiceInfo) -> BTreeSet<IpAddr> {
        let slices = || self.slices_of(key);
        if info.selector.is_empty() {
            return slices().flat_map(|slice| &slice.hosts).copied().collect();
        }
        let is_backed = |ip: &IpAddr| slices().any(|slice| slice.hosts.contains(ip) && !slice.podless.contains(ip));
        slices().flat_map(|slice| &slice.podless).copied().filter(|ip| !is_backed(ip)).collect()
    }

    fn port(&self, key: &ObjectKey, (name, protocol, port): &(String, Protocol, u16)) -> ServicePort {
        let wanted = (name.clone(), *protocol == Protocol::Udp);
        let endpoints =
            self.slices_of(key).filter_map(|slice| slice.endpoints.get(&wanted)).flatten().copied().collect();
        ServicePort { protocol: *protocol, port: *port, endpoints }
    }

    fn slices_of(&self, service: &ObjectKey) -> impl Iterator<Item = &SliceInfo> {
        let names = self.slices_of.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(&ObjectKey::new(service.namespace.clone(), name.clone())))
    }
}

/// Returns all parts of a Service except for its endpoints.
fn shape(service: &Service) -> (Option<&str>, Vec<(bool, u16)>) {
    match service {
        Service::External { host, .. } => (Some(host), Vec::new()),
        Service::Portless(_) => (None, Vec::new()),
        Service::Cluster(ports) => {
            (None, ports.iter().map(|port| (port.protocol == Protocol::Udp, port.port)).collect())
        }
    }
}
