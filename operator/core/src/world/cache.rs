//! The world as reported by watches, updated one object at a time.

mod agents;
mod children;
mod classes;
mod look_ups;
mod reach;
mod selectors;
mod services;
mod touched;
mod watches;

use std::collections::{BTreeMap, BTreeSet};

use crds::{ForwardGateway, PortForward};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    names::{PROXY_LABEL, is_of_gateway},
    world::{
        Grant, ObjectKey, Pod, World,
        child::{ChildKind, Mark},
        objects::{
            AutoscalerState, ClaimState, DrainerState, FleetState, Object, PodInfo, ServiceInfo, SliceInfo, Unreadable,
        },
        watched::{Kind, Seen, Source},
    },
};

pub use self::touched::{Grown, Touched};

/// The known state of the cluster.
#[derive(Debug, Default)]
pub struct Cache {
    /// The controller class of this operator.
    class: String,
    /// The input of translations.
    pub world: World,
    /// Pods with a proxy.
    pub proxy_pods: BTreeMap<ObjectKey, PodInfo>,
    /// Deployments of gateways.
    pub deployments: BTreeMap<ObjectKey, FleetState>,
    /// `StatefulSet`s of gateways with `spec.durability`.
    pub stateful_sets: BTreeMap<ObjectKey, FleetState>,
    /// Claims of the pods of these `StatefulSet`s.
    pub claims: BTreeMap<ObjectKey, ClaimState>,
    /// Jobs that send the messages on claims.
    pub drainers: BTreeMap<ObjectKey, DrainerState>,
    /// Marks of the other children of gateways, Services excepted.
    children: BTreeMap<ChildKind, BTreeMap<ObjectKey, Mark>>,
    /// Autoscalers that the operator created.
    pub scalers: BTreeMap<ObjectKey, AutoscalerState>,
    /// Forwards with `spec.autoscaling`.
    scaling_forwards: BTreeSet<ObjectKey>,
    /// All Services, without their endpoints.
    pub services: BTreeMap<ObjectKey, ServiceInfo>,
    slices: BTreeMap<ObjectKey, SliceInfo>,
    slices_of: BTreeMap<ObjectKey, BTreeSet<String>>,
    pods: BTreeMap<ObjectKey, PodInfo>,
    grants: BTreeMap<ObjectKey, BTreeSet<Grant>>,
    unreadable_forwards: BTreeMap<ObjectKey, ObjectMeta>,
    unreadable_gateways: BTreeMap<ObjectKey, Unreadable>,
    unreadable_agents: BTreeMap<ObjectKey, Unreadable>,
    /// Sidecar forwards by namespace.
    sidecars: BTreeMap<String, BTreeSet<String>>,
    sources: BTreeMap<Source, State>,
    /// The watches that [`Cache::is_synced`] waits for, kept because that is called at each event, and there may be
    /// thousands of watches.
    awaited: BTreeSet<Source>,
    is_open: bool,
    /// Limit on the objects of each watch; `None` is unlimited.
    max_objects: Option<usize>,
    /// Number of objects that are left out because of the limit. They stay unknown until their watch lists again, which
    /// [`Cache::due_lists`] requests once there is room.
    pub left_out: u64,
    /// Number of times that the reach of a fleet was computed, each a walk over Services and proxies of a namespace.
    pub reaches: u64,
    /// Fleets whose reach is computed at the end of a list in progress, not once for each object of the list.
    stale_reach: BTreeSet<ObjectKey>,
    /// Whether the event belongs to a list in progress.
    is_listing: bool,
}

#[derive(Debug, Default)]
struct State {
    synced: bool,
    /// Whether the watch was added after the cache opened: it does not block [`Cache::is_synced`] until it is first
    /// listed.
    is_late: bool,
    /// The objects that the list in progress has shown so far.
    listed: Option<BTreeSet<ObjectKey>>,
    known: BTreeSet<ObjectKey>,
    /// The objects that the limit left out since the last list began.
    left_out: watches::LeftOut,
}

impl Cache {
    /// Creates a cache that is synced once these watches are.
    #[must_use]
    pub fn new(world: World, sources: impl IntoIterator<Item = Source>) -> Self {
        let sources: BTreeMap<Source, State> = sources.into_iter().map(|source| (source, State::default())).collect();
        let awaited = sources.keys().filter(|source| source.kind.is_required()).cloned().collect();
        Self { world, sources, awaited, ..Self::default() }
    }

    /// Limits the objects of each watch.
    #[must_use]
    pub fn bounded(self, max_objects: usize) -> Self {
        Self { max_objects: Some(max_objects), ..self }
    }

    /// Applies one event of a watch. Ignores late events of a watch that has ended.
    pub fn apply(&mut self, source: &Source, seen: Seen) -> Touched {
        let was_synced = self.is_synced();
        let Some(state) = self.sources.get_mut(source) else { return Touched::default() };
        self.is_listing = state.listed.is_some();
        match seen {
            Seen::Restarted => {
                state.synced = false;
                self.left_out = self.left_out.saturating_sub(state.left_out.restarted());
                state.listed = Some(BTreeSet::new());
                self.wait_for(source);
                Touched::default()
            }
            Seen::Upsert(object) => {
                let key = object.key();
                // While a list is in progress, objects that it has not shown yet may be gone, so they do not count.
                let count = state.listed.as_ref().unwrap_or(&state.known).len();
                if self.max_objects.is_some_and(|max| count >= max) && !state.known.contains(&key) {
                    self.left_out += 1;
                    state.left_out.add();
                    return Touched::default();
                }
                if let Some(listed) = &mut state.listed {
                    listed.insert(key.clone());
                }
                state.known.insert(key);
                self.upsert(*object)
            }
            Seen::Gone(key) => {
                if state.known.remove(&key) {
                    state.left_out.make_room();
                }
                self.remove(source.kind, &key)
            }
            Seen::Synced => {
                state.synced = true;
                state.is_late = false;
                let listed = state.listed.take().unwrap_or_default();
                let gone: Vec<ObjectKey> = state.known.difference(&listed).cloned().collect();
                state.known = listed;
                self.wait_for(source);
                let mut touched = Touched::default();
                for key in &gone {
                    touched.absorb(self.remove(source.kind, key));
                }
                self.refresh_reach(&mut touched);
                touched.synced = !was_synced && self.is_synced();
                touched
            }
        }
    }

    fn upsert(&mut self, object: Object) -> Touched {
        if let Some((kind, key, class)) = self.foreign(&object) {
            return self.leave(kind, &key, class);
        }
        let mut touched = Touched::default();
        match object {
            Object::Forward(key, read) => return self.take_forward(key, *read),
            Object::Gateway(key, read) => return self.take_gateway(key, *read),
            Object::Agent(key, read) => self.take_agent(key, *read, &mut touched),
            Object::Service(key, info) => self.take_service(&key, info, &mut touched),
            Object::Slice(key, info) => self.slice(&key, Some(info), &mut touched),
            Object::ProxyPod(key, info) => {
                if self.proxy_pods.get(&key) != Some(&info) {
                    self.proxy_pod(&key, Some(info), &mut touched);
                }
            }
            Object::Pod(key, info) => self.take_pod(key, info, &mut touched),
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
            Object::StatefulSet(key, state) => {
                self.stateful_sets.insert(key.clone(), state);
                touched.gateways.insert(key);
            }
            Object::Claim(key, state) => self.take_claim(key, state, &mut touched),
            Object::Drainer(key, state) => self.take_drainer(key, state, &mut touched),
            Object::Scaler(key, state) => self.take_scaler(key, *state, &mut touched),
            Object::Child(kind, key, mark) => self.take_child(kind, key, mark, &mut touched),
        }
        touched
    }

    fn take_pod(&mut self, key: ObjectKey, info: PodInfo, touched: &mut Touched) {
        let (carries, problem) = self.proxy_of(&info);
        let (labels, app_ports) = (info.labels.clone(), info.app_ports.clone());
        let pod = Pod { labels, carries, app_ports, problem, leaving: info.leaving };
        // Pods of a gateway never run sidecar forwards.
        let in_fleet = info.labels.get(PROXY_LABEL).is_some_and(|role| is_of_gateway(role));
        let candidate = (!in_fleet).then_some(pod);
        if self.world.pods.get(&key) != candidate.as_ref() {
            touched.changes.pods.insert(key.clone());
            match candidate {
                Some(pod) => drop(self.world.pods.insert(key.clone(), pod)),
                None => drop(self.world.pods.remove(&key)),
            }
        }
        self.pods.insert(key, info);
    }

    fn take_scaler(&mut self, key: ObjectKey, state: AutoscalerState, touched: &mut Touched) {
        // The controller of HPAs may write new numbers every 15 s, and most of them change nothing here.
        if self.scalers.get(&key) == Some(&state) {
            return;
        }
        touched.subject(&state.subject);
        // Before its first sync an HPA reports 0 desired replicas: compare with the current ones instead. Reaching
        // minReplicas is not growth.
        let from = |before: &AutoscalerState| if before.desired > 0 { before.desired } else { state.current };
        let from = self
            .scalers
            .get(&key)
            .map(from)
            .map(|from| from.max(state.least))
            .filter(|from| (1..state.desired).contains(from));
        if let Some(from) = from {
            touched.grown.push(Grown { subject: state.subject.clone(), from, to: state.desired });
        }
        self.scalers.insert(key, state);
    }

    fn take_forward(&mut self, key: ObjectKey, read: Result<PortForward, Unreadable>) -> Touched {
        let mut touched = Touched::default();
        let is_same = match read {
            Ok(mut forward) => {
                self.share_selector(&key, &mut forward);
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
                self.world.forwards.insert(key.clone(), Box::new(forward));
                only_status && !was_unreadable
            }
            Err(Unreadable { why, metadata, .. }) => {
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
        if self.world.foreign_gateways.remove(&key).is_some() {
            touched.changes.gateways.insert(key.clone());
        }
        match read {
            Ok(gateway) => {
                self.unreadable_gateways.remove(&key);
                let old = self.world.gateways.get(&key);
                if old.is_none_or(|old| old.spec != gateway.spec || old.metadata.uid != gateway.metadata.uid) {
                    touched.changes.gateways.insert(key.clone());
                }
                self.world.gateways.insert(key.clone(), gateway);
                self.reach(&key, &mut touched);
            }
            Err(found) => drop(self.unreadable_gateways.insert(key, found)),
        }
        touched
    }

    fn collect_grants(&mut self, touched: &mut Touched) {
        let grants = self.grants.values().flatten().cloned().collect();
        if self.world.grants != grants {
            touched.changes.grants = true;
            self.world.grants = grants;
        }
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
                if self.world.foreign_gateways.remove(key).is_some() {
                    touched.changes.gateways.insert(key.clone());
                    return touched;
                }
                self.unreadable_gateways.remove(key);
                self.world.gateways.remove(key);
                self.reach(key, &mut touched);
                touched.changes.gateways.insert(key.clone());
                touched.gateways.insert(key.clone());
            }
            Kind::Agents => self.lose_agent(key, &mut touched),
            Kind::Services | Kind::ApiServer => self.lose_service(key, &mut touched),
            Kind::Slices | Kind::ApiServerSlices => self.slice(key, None, &mut touched),
            Kind::ProxyPods => self.proxy_pod(key, None, &mut touched),
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
            Kind::Claims => self.lose_claim(key, &mut touched),
            Kind::Drainers => self.lose_drainer(key, &mut touched),
            Kind::Deployments | Kind::StatefulSets | Kind::ServiceAccounts | Kind::Budgets | Kind::Policies => {
                self.lose_child(kind, key, &mut touched);
            }
        }
        touched
    }
}

/// Whether the parts of status that a translation depends on are equal: the held ports and their placement.
fn held_same(one: &crds::PortForward, other: &crds::PortForward) -> bool {
    let held = |forward: &crds::PortForward| {
        let status = forward.status.as_ref();
        let (mut listeners, placement) =
            status.map(|status| (status.listeners.clone(), status.placement.clone())).unwrap_or_default();
        // Backend health in status does not affect a translation.
        for listener in &mut listeners {
            listener.backends = None;
        }
        (listeners, placement)
    };
    held(one) == held(other)
}
