//! The world as the watches tell it, kept up to date one object at a time.

use std::collections::{BTreeMap, BTreeSet};

use crds::Protocol;
use operator_core::{Grant, Group, ObjectKey, Pod, Service, ServicePort, World};

use crate::{
    PROXY_LABEL,
    watch::{FleetState, Kind, Object, PodInfo, Seen, ServiceInfo, SliceInfo, Source},
};

/// What a message changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// A translation may give something else.
    pub world: bool,
    /// The pods of fleets, or what is known of them.
    pub fleets: bool,
    /// A forward.
    pub forward: Option<ObjectKey>,
    /// A gateway or its children.
    pub gateway: Option<ObjectKey>,
    /// Every watch is complete now, and was not before.
    pub synced: bool,
}

/// Everything that is known of the cluster.
#[derive(Debug, Default)]
pub struct Cache {
    /// What a translation takes.
    pub world: World,
    /// Pods that carry a proxy.
    pub proxy_pods: BTreeMap<ObjectKey, PodInfo>,
    /// Deployments of gateways.
    pub deployments: BTreeMap<ObjectKey, FleetState>,
    /// All Services.
    pub services: BTreeMap<ObjectKey, ServiceInfo>,
    slices: BTreeMap<ObjectKey, SliceInfo>,
    slices_of: BTreeMap<ObjectKey, BTreeSet<String>>,
    pods: BTreeMap<ObjectKey, PodInfo>,
    grants: BTreeMap<ObjectKey, BTreeSet<Grant>>,
    unreadable_gateways: BTreeMap<ObjectKey, String>,
    sources: BTreeMap<Source, State>,
}

#[derive(Debug, Default)]
struct State {
    synced: bool,
    /// What the list under way has shown.
    listed: Option<BTreeSet<ObjectKey>>,
    known: BTreeSet<ObjectKey>,
}

impl Cache {
    /// A cache that waits for these watches.
    #[must_use]
    pub fn new(world: World, sources: impl IntoIterator<Item = Source>) -> Self {
        let sources = sources.into_iter().map(|source| (source, State::default())).collect();
        Self { world, sources, ..Self::default() }
    }

    /// One more watch has to be complete.
    pub fn expect(&mut self, source: Source) {
        self.sources.entry(source).or_default();
    }

    /// Namespaces whose pods are watched.
    #[must_use]
    pub fn watched_pods(&self) -> BTreeSet<String> {
        self.sources
            .keys()
            .filter(|source| source.kind == Kind::Pods)
            .filter_map(|source| source.namespace.clone())
            .collect()
    }

    /// The watch of a namespace's pods has ended; what it told is forgotten.
    pub fn forget_pods(&mut self, namespace: &str) {
        let source = Source { kind: Kind::Pods, namespace: Some(namespace.to_owned()) };
        let Some(state) = self.sources.remove(&source) else { return };
        for key in state.known {
            self.remove(source.kind, &key);
        }
    }

    /// Whether every watch is complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.sources.values().all(|state| state.synced)
    }

    /// Whether the pods of a namespace are known.
    #[must_use]
    pub fn knows_pods_of(&self, namespace: &str) -> bool {
        let source = Source { kind: Kind::Pods, namespace: Some(namespace.to_owned()) };
        self.sources.get(&source).is_some_and(|state| state.synced)
    }

    /// A pod with what is known of it, if it is there and stays.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<&PodInfo> {
        self.proxy_pods.get(key).or_else(|| self.pods.get(key))
    }

    /// The gateway whose fleet a pod is of: it says so, and runs as that fleet does.
    #[must_use]
    pub fn gateway_of(&self, key: &ObjectKey) -> Option<Group> {
        let pod = self.proxy_pods.get(key)?;
        let gateway = ObjectKey::new(key.namespace.clone(), pod.gateway.clone()?);
        let ours = self.world.gateways.contains_key(&gateway) && pod.service_account == gateway.name;
        ours.then_some(Group::Gateway(gateway))
    }

    /// Namespaces with sidecar forwards.
    #[must_use]
    pub fn sidecar_namespaces(&self) -> BTreeSet<String> {
        let sidecar = self.world.forwards.iter().filter(|(_, forward)| forward.spec.placement.sidecar.is_some());
        sidecar.map(|(key, _)| key.namespace.clone()).collect()
    }

    /// Why a gateway cannot be read, if so.
    #[must_use]
    pub fn unreadable_gateway(&self, key: &ObjectKey) -> Option<&str> {
        self.unreadable_gateways.get(key).map(String::as_str)
    }

    /// Takes one message. Those of a watch that has ended are late, and mean nothing.
    pub fn apply(&mut self, source: &Source, seen: Seen) -> Touched {
        let was_synced = self.is_synced();
        let Some(state) = self.sources.get_mut(source) else { return Touched::default() };
        match seen {
            Seen::Restarted => {
                state.synced = false;
                state.listed = Some(BTreeSet::new());
                Touched::default()
            }
            Seen::Upsert(object) => {
                let key = object.key();
                if let Some(listed) = &mut state.listed {
                    listed.insert(key.clone());
                }
                state.known.insert(key);
                self.upsert(*object)
            }
            Seen::Gone(key) => {
                state.known.remove(&key);
                self.remove(source.kind, &key)
            }
            Seen::Synced => {
                state.synced = true;
                let listed = state.listed.take().unwrap_or_default();
                let gone: Vec<ObjectKey> = state.known.difference(&listed).cloned().collect();
                state.known = listed;
                for key in &gone {
                    self.remove(source.kind, key);
                }
                Touched { world: true, fleets: true, synced: !was_synced && self.is_synced(), ..Touched::default() }
            }
        }
    }

    fn upsert(&mut self, object: Object) -> Touched {
        let world = Touched { world: true, ..Touched::default() };
        match object {
            Object::Forward(key, read) => {
                match *read {
                    Ok(forward) => {
                        self.world.unreadable.remove(&key);
                        let only_status = self.world.forwards.get(&key).is_some_and(|old| {
                            old.spec == forward.spec
                                && old.metadata.uid == forward.metadata.uid
                                && held_same(old, &forward)
                        });
                        self.world.forwards.insert(key.clone(), forward);
                        return Touched { world: !only_status, forward: Some(key), ..Touched::default() };
                    }
                    Err(why) => drop(self.world.unreadable.insert(key.clone(), why)),
                }
                Touched { forward: Some(key), ..world }
            }
            Object::Gateway(key, read) => {
                match *read {
                    Ok(gateway) => {
                        self.unreadable_gateways.remove(&key);
                        let same = self.world.gateways.get(&key).is_some_and(|old| old.spec == gateway.spec);
                        self.world.gateways.insert(key.clone(), gateway);
                        return Touched { world: !same, fleets: !same, gateway: Some(key), ..Touched::default() };
                    }
                    Err(why) => drop(self.unreadable_gateways.insert(key.clone(), why)),
                }
                Touched { gateway: Some(key), ..Touched::default() }
            }
            Object::Service(key, info) => {
                let gateway = info.gateway.clone().map(|name| ObjectKey::new(key.namespace.clone(), name));
                self.services.insert(key.clone(), info);
                Touched { world: self.service(&key), gateway, ..Touched::default() }
            }
            Object::Slice(key, info) => Touched { world: self.slice(&key, Some(info)), ..Touched::default() },
            Object::ProxyPod(key, info) => {
                let fleets = self.proxy_pods.get(&key) != Some(&info);
                self.proxy_pods.insert(key, info);
                Touched { fleets, ..Touched::default() }
            }
            Object::Pod(key, info) => {
                let pod = Pod { labels: info.labels.clone() };
                let in_fleet = info.labels.get(PROXY_LABEL).is_some_and(|role| role == "gateway");
                let changed = if info.leaving || in_fleet {
                    self.world.pods.remove(&key).is_some()
                } else {
                    let changed = self.world.pods.get(&key) != Some(&pod);
                    self.world.pods.insert(key.clone(), pod);
                    changed
                };
                self.pods.insert(key, info);
                Touched { world: changed, fleets: changed, ..Touched::default() }
            }
            Object::Namespace(key, labels) => {
                let changed = self.world.namespaces.get(&key.name) != Some(&labels);
                self.world.namespaces.insert(key.name, labels);
                Touched { world: changed, ..Touched::default() }
            }
            Object::Grants(key, grants) => {
                self.grants.insert(key, grants);
                self.world.grants = self.grants.values().flatten().cloned().collect();
                world
            }
            Object::Deployment(key, state) => {
                self.deployments.insert(key.clone(), state);
                Touched { gateway: Some(key), ..Touched::default() }
            }
        }
    }

    fn remove(&mut self, kind: Kind, key: &ObjectKey) -> Touched {
        let world = Touched { world: true, ..Touched::default() };
        match kind {
            Kind::Forwards => {
                self.world.unreadable.remove(key);
                self.world.forwards.remove(key);
                Touched { forward: Some(key.clone()), ..world }
            }
            Kind::Gateways => {
                self.unreadable_gateways.remove(key);
                self.world.gateways.remove(key);
                Touched { gateway: Some(key.clone()), fleets: true, ..world }
            }
            Kind::Services => {
                let info = self.services.remove(key);
                self.world.services.remove(key);
                let gateway =
                    info.and_then(|info| info.gateway).map(|name| ObjectKey::new(key.namespace.clone(), name));
                Touched { gateway, ..world }
            }
            Kind::Slices => Touched { world: self.slice(key, None), ..Touched::default() },
            Kind::ProxyPods => {
                self.proxy_pods.remove(key);
                Touched { fleets: true, ..Touched::default() }
            }
            Kind::Pods => {
                self.pods.remove(key);
                let known = self.world.pods.remove(key).is_some();
                Touched { world: known, fleets: known, ..Touched::default() }
            }
            Kind::Namespaces => {
                self.world.namespaces.remove(&key.name);
                world
            }
            Kind::Grants => {
                self.grants.remove(key);
                self.world.grants = self.grants.values().flatten().cloned().collect();
                world
            }
            Kind::Deployments => {
                self.deployments.remove(key);
                Touched { gateway: Some(key.clone()), ..Touched::default() }
            }
        }
    }

    fn slice(&mut self, key: &ObjectKey, info: Option<SliceInfo>) -> bool {
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
        let mut changed = false;
        for service in &services {
            changed |= self.service(service);
        }
        changed
    }

    /// Puts a Service together with its endpoints; whether that is anything new.
    fn service(&mut self, key: &ObjectKey) -> bool {
        let Some(info) = self.services.get(key) else { return false };
        let service = match &info.external {
            Some(host) => Service::External { host: host.clone(), port: None },
            None => Service::Cluster(info.ports.iter().map(|port| self.port(key, port)).collect()),
        };
        let changed = self.world.services.get(key) != Some(&service);
        self.world.services.insert(key.clone(), service);
        changed
    }

    fn port(&self, key: &ObjectKey, (name, protocol, port): &(String, Protocol, u16)) -> ServicePort {
        let slices = self.slices_of.get(key).into_iter().flatten();
        let slices = slices.filter_map(|slice| self.slices.get(&ObjectKey::new(key.namespace.clone(), slice.clone())));
        let wanted = (name.clone(), *protocol == Protocol::Udp);
        let endpoints = slices.filter_map(|slice| slice.endpoints.get(&wanted)).flatten().copied().collect();
        ServicePort { protocol: *protocol, port: *port, endpoints }
    }
}

/// Whether two versions of a forward hold the same ports by their status, which a translation looks at.
fn held_same(one: &crds::PortForward, other: &crds::PortForward) -> bool {
    let held = |forward: &crds::PortForward| {
        forward.status.as_ref().map(|status| (status.listeners.clone(), status.placement.clone())).unwrap_or_default()
    };
    held(one) == held(other)
}
