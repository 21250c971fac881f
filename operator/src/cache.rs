//! The world as the watches tell it, kept up to date one object at a time.

mod services;
mod touched;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use crds::{ForwardGateway, ForwardGatewaySpec, PortForward, PortForwardSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use operator_core::{Grant, Group, ObjectKey, Pod, World};

use crate::{
    PROXY_LABEL,
    status_writer::Subject,
    watch::{FleetState, Kind, Object, PodInfo, ScalerState, Seen, ServiceInfo, SliceInfo, Source, Unreadable},
};

pub use self::touched::{Grown, Touched};

/// Everything that is known of the cluster.
#[derive(Debug, Default)]
pub struct Cache {
    /// What a translation takes.
    pub world: World,
    /// Pods that carry a proxy.
    pub proxy_pods: BTreeMap<ObjectKey, PodInfo>,
    /// Deployments of gateways.
    pub deployments: BTreeMap<ObjectKey, FleetState>,
    /// Autoscalers of ours.
    pub scalers: BTreeMap<ObjectKey, ScalerState>,
    /// Forwards that ask for one.
    scaling_forwards: BTreeSet<ObjectKey>,
    /// All Services.
    pub services: BTreeMap<ObjectKey, ServiceInfo>,
    slices: BTreeMap<ObjectKey, SliceInfo>,
    slices_of: BTreeMap<ObjectKey, BTreeSet<String>>,
    pods: BTreeMap<ObjectKey, PodInfo>,
    grants: BTreeMap<ObjectKey, BTreeSet<Grant>>,
    unreadable_forwards: BTreeMap<ObjectKey, ObjectMeta>,
    unreadable_gateways: BTreeMap<ObjectKey, Unreadable>,
    /// Sidecar forwards by namespace.
    sidecars: BTreeMap<String, BTreeSet<String>>,
    sources: BTreeMap<Source, State>,
    is_open: bool,
    /// Most objects of one watch; absent: no limit.
    most: Option<usize>,
    /// Objects that were beyond it, which are not known until their watch begins anew.
    pub left_out: u64,
}

#[derive(Debug, Default)]
struct State {
    synced: bool,
    /// Nothing hangs on it before it is complete for the first time: a namespace that is watched since just now.
    is_late: bool,
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

    /// With a limit on the objects of each watch.
    #[must_use]
    pub fn bounded(self, most: usize) -> Self {
        Self { most: Some(most), ..self }
    }

    /// One more watch has to be complete.
    pub fn expect(&mut self, source: Source) {
        let is_late = self.is_open;
        self.sources.entry(source).or_insert_with(|| State { is_late, ..State::default() });
    }

    /// Something is published from now on: namespaces that are watched from here on hold up nobody else.
    pub fn open(&mut self) {
        self.is_open = true;
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
    pub fn forget_pods(&mut self, namespace: &str) -> Touched {
        let source = Source { kind: Kind::Pods, namespace: Some(namespace.to_owned()) };
        let mut touched = Touched::default();
        for key in self.sources.remove(&source).unwrap_or_default().known {
            touched.absorb(self.remove(source.kind, &key));
        }
        touched
    }

    /// Whether every watch is complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.sources.values().all(|state| state.synced || state.is_late)
    }

    /// Whether the pods of a namespace are known.
    #[must_use]
    pub fn knows_pods_of(&self, namespace: &str) -> bool {
        let source = Source { kind: Kind::Pods, namespace: Some(namespace.to_owned()) };
        self.sources.get(&source).is_some_and(|state| state.synced)
    }

    /// Whether it is known what selects this pod: the pods of its namespace are, and it is among them. It may be known to
    /// carry a proxy before, by another watch.
    #[must_use]
    pub fn knows_selected(&self, key: &ObjectKey, uid: &str) -> bool {
        self.knows_pods_of(&key.namespace) && self.pods.get(key).is_some_and(|pod| pod.uid == uid)
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
    pub fn sidecar_namespaces(&self) -> impl Iterator<Item = &String> {
        self.sidecars.keys()
    }

    /// Why a gateway cannot be read, if so.
    #[must_use]
    pub fn unreadable_gateway(&self, key: &ObjectKey) -> Option<&str> {
        self.unreadable_gateways.get(key).map(|found| found.why.as_str())
    }

    /// A forward with the metadata that it has now, although its newest version may not be readable. Of one that never was
    /// readable, nothing but the metadata is known.
    #[must_use]
    pub fn forward(&self, key: &ObjectKey) -> Option<Cow<'_, PortForward>> {
        let known = self.world.forwards.get(key);
        let Some(metadata) = self.unreadable_forwards.get(key) else { return known.map(Cow::Borrowed) };
        let mut forward = known.cloned().unwrap_or_else(|| PortForward::new(&key.name, PortForwardSpec::default()));
        forward.metadata = metadata.clone();
        Some(Cow::Owned(forward))
    }

    /// The same of a gateway.
    #[must_use]
    pub fn gateway(&self, key: &ObjectKey) -> Option<Cow<'_, ForwardGateway>> {
        let known = self.world.gateways.get(key);
        let Some(found) = self.unreadable_gateways.get(key) else { return known.map(Cow::Borrowed) };
        let mut gateway =
            known.cloned().unwrap_or_else(|| ForwardGateway::new(&key.name, ForwardGatewaySpec::default()));
        gateway.metadata = found.metadata.clone();
        Some(Cow::Owned(gateway))
    }

    /// Every gateway, readable or not.
    #[must_use]
    pub fn gateways(&self) -> BTreeSet<ObjectKey> {
        self.world.gateways.keys().chain(self.unreadable_gateways.keys()).cloned().collect()
    }

    /// Whether an object is there and its newest version can be read.
    #[must_use]
    pub fn can_read(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Gateway(key) => {
                self.world.gateways.contains_key(key) && !self.unreadable_gateways.contains_key(key)
            }
            Subject::Forward(key) => self.world.forwards.contains_key(key) && !self.world.unreadable.contains_key(key),
        }
    }

    /// Everything that asks for an autoscaler.
    pub fn scaling(&self) -> impl Iterator<Item = Subject> {
        let gateways = self.world.gateways.iter().filter(|(_, gateway)| gateway.spec.autoscaling.is_some());
        let gateways = gateways.map(|(key, _)| Subject::Gateway(key.clone()));
        gateways.chain(self.scaling_forwards.iter().cloned().map(Subject::Forward))
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
                // While a list is under way, what it has not shown yet may be gone.
                let count = state.listed.as_ref().unwrap_or(&state.known).len();
                if self.most.is_some_and(|most| count >= most) && !state.known.contains(&key) {
                    self.left_out += 1;
                    return Touched::default();
                }
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
                state.is_late = false;
                let listed = state.listed.take().unwrap_or_default();
                let gone: Vec<ObjectKey> = state.known.difference(&listed).cloned().collect();
                state.known = listed;
                let mut touched = Touched::default();
                for key in &gone {
                    touched.absorb(self.remove(source.kind, key));
                }
                touched.synced = !was_synced && self.is_synced();
                touched
            }
        }
    }

    fn upsert(&mut self, object: Object) -> Touched {
        let mut touched = Touched::default();
        match object {
            Object::Forward(key, read) => return self.take_forward(key, *read),
            Object::Gateway(key, read) => return self.take_gateway(key, *read),
            Object::Service(key, info) => {
                let gateway = info.gateway.clone().map(|name| ObjectKey::new(key.namespace.clone(), name));
                self.services.insert(key.clone(), info);
                touched = Touched::gateway(gateway);
                self.service(&key, &mut touched);
            }
            Object::Slice(key, info) => self.slice(&key, Some(info), &mut touched),
            Object::ProxyPod(key, info) => {
                if self.proxy_pods.get(&key) != Some(&info) {
                    touched.proxy_pods.insert(key.clone());
                    self.proxy_pods.insert(key, info);
                }
            }
            Object::Pod(key, info) => {
                let carries = info.labels.contains_key(PROXY_LABEL);
                let (labels, problem, app_ports) = (info.labels.clone(), info.problem.clone(), info.app_ports.clone());
                let pod = Pod { labels, carries, app_ports, problem, leaving: info.leaving };
                let in_fleet = info.labels.get(PROXY_LABEL).is_some_and(|role| role == "gateway");
                let is_one = (!in_fleet).then_some(pod);
                if self.world.pods.get(&key) != is_one.as_ref() {
                    touched.changes.pods.insert(key.clone());
                    match is_one {
                        Some(pod) => drop(self.world.pods.insert(key.clone(), pod)),
                        None => drop(self.world.pods.remove(&key)),
                    }
                }
                self.pods.insert(key, info);
            }
            Object::Namespace(key, labels) => {
                if self.world.namespaces.get(&key.name) != Some(&labels) {
                    touched.changes.namespaces.insert(key.name.clone());
                    self.world.namespaces.insert(key.name, labels);
                }
            }
            Object::Grants(key, grants) => {
                self.grants.insert(key, grants);
                self.collect_grants(&mut touched);
            }
            Object::Deployment(key, state) => {
                self.deployments.insert(key.clone(), state);
                touched.gateways.insert(key);
            }
            Object::Scaler(key, state) => {
                touched.subject(&state.subject);
                // Before its first look it asks for none: then it is what there is that grows. To come up to the least is no growth.
                let from = |before: &ScalerState| if before.desired > 0 { before.desired } else { state.current };
                let from = self
                    .scalers
                    .get(&key)
                    .map(from)
                    .map(|from| from.max(state.least))
                    .filter(|from| (1..state.desired).contains(from));
                if let Some(from) = from {
                    touched.grown.push(Grown { subject: state.subject.clone(), from, to: state.desired });
                }
                self.scalers.insert(key, *state);
            }
        }
        touched
    }

    fn take_forward(&mut self, key: ObjectKey, read: Result<PortForward, Unreadable>) -> Touched {
        let mut touched = Touched::default();
        let is_same = match read {
            Ok(forward) => {
                self.unreadable_forwards.remove(&key);
                let was_unreadable = self.world.unreadable.remove(&key).is_some();
                let only_status = self.world.forwards.get(&key).is_some_and(|old| {
                    old.spec == forward.spec
                        && old.metadata.uid == forward.metadata.uid
                        && old.metadata.generation == forward.metadata.generation
                        && held_same(old, &forward)
                });
                self.note_sidecar(&key, forward.spec.placement.sidecar.is_some());
                if forward.spec.autoscaling.is_some() {
                    self.scaling_forwards.insert(key.clone());
                } else {
                    self.scaling_forwards.remove(&key);
                }
                self.world.forwards.insert(key.clone(), forward);
                only_status && !was_unreadable
            }
            Err(Unreadable { why, metadata }) => {
                let generation = metadata.generation;
                let before = self.unreadable_forwards.insert(key.clone(), metadata);
                let same_why =
                    self.world.unreadable.insert(key.clone(), why.clone()).is_some_and(|before| before == why);
                same_why && before.is_some_and(|before| before.generation == generation)
            }
        };
        if !is_same {
            touched.changes.forwards.insert(key.clone());
        }
        touched.forwards.insert(key);
        touched
    }

    fn note_sidecar(&mut self, key: &ObjectKey, is_sidecar: bool) {
        if is_sidecar {
            self.sidecars.entry(key.namespace.clone()).or_default().insert(key.name.clone());
        } else if let Some(names) = self.sidecars.get_mut(&key.namespace) {
            names.remove(&key.name);
            if names.is_empty() {
                self.sidecars.remove(&key.namespace);
            }
        }
    }

    fn take_gateway(&mut self, key: ObjectKey, read: Result<ForwardGateway, Unreadable>) -> Touched {
        let mut touched = Touched::gateway(Some(key.clone()));
        match read {
            Ok(gateway) => {
                self.unreadable_gateways.remove(&key);
                let old = self.world.gateways.get(&key);
                if old.is_none_or(|old| old.spec != gateway.spec || old.metadata.uid != gateway.metadata.uid) {
                    touched.changes.gateways.insert(key.clone());
                }
                self.world.gateways.insert(key, gateway);
            }
            Err(found) => drop(self.unreadable_gateways.insert(key, found)),
        }
        touched
    }

    fn collect_grants(&mut self, touched: &mut Touched) {
        let grants = self.grants.values().flatten().cloned().collect();
        touched.changes.grants |= self.world.grants != grants;
        self.world.grants = grants;
    }

    fn remove(&mut self, kind: Kind, key: &ObjectKey) -> Touched {
        let mut touched = Touched::default();
        match kind {
            Kind::Forwards => {
                self.unreadable_forwards.remove(key);
                self.world.unreadable.remove(key);
                self.world.forwards.remove(key);
                self.note_sidecar(key, false);
                self.scaling_forwards.remove(key);
                touched.changes.forwards.insert(key.clone());
                touched.forwards.insert(key.clone());
            }
            Kind::Gateways => {
                self.unreadable_gateways.remove(key);
                self.world.gateways.remove(key);
                touched.changes.gateways.insert(key.clone());
                touched.gateways.insert(key.clone());
            }
            Kind::Services => {
                let info = self.services.remove(key);
                self.world.services.remove(key);
                let gateway = info.and_then(|info| info.gateway);
                touched = Touched::gateway(gateway.map(|name| ObjectKey::new(key.namespace.clone(), name)));
                touched.changes.services.insert(key.clone());
            }
            Kind::Slices => self.slice(key, None, &mut touched),
            Kind::ProxyPods => {
                self.proxy_pods.remove(key);
                touched.proxy_pods.insert(key.clone());
            }
            Kind::Pods => {
                self.pods.remove(key);
                self.world.pods.remove(key);
                touched.changes.pods.insert(key.clone());
            }
            Kind::Namespaces => {
                self.world.namespaces.remove(&key.name);
                touched.changes.namespaces.insert(key.name.clone());
            }
            Kind::Grants => {
                self.grants.remove(key);
                self.collect_grants(&mut touched);
            }
            Kind::Scalers => {
                if let Some(state) = self.scalers.remove(key) {
                    touched.subject(&state.subject);
                }
            }
            Kind::Deployments => {
                self.deployments.remove(key);
                touched.gateways.insert(key.clone());
            }
        }
        touched
    }
}

/// Whether two versions of a forward hold the same ports by their status, which a translation looks at.
fn held_same(one: &crds::PortForward, other: &crds::PortForward) -> bool {
    let held = |forward: &crds::PortForward| {
        let status = forward.status.as_ref();
        let (mut listeners, placement) =
            status.map(|status| (status.listeners.clone(), status.placement.clone())).unwrap_or_default();
        // What proxies see of backends is nothing that a translation depends on.
        for listener in &mut listeners {
            listener.backends = None;
        }
        (listeners, placement)
    };
    held(one) == held(other)
}
