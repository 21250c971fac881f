//! A small cluster for the tests of schedules: a cache that is fed as the watches feed it, with its translation, its fleets
//! and the reports of proxies.
#![allow(dead_code, reason = "each test uses some of these functions")]

mod deliveries;

use std::{collections::BTreeSet, time::Duration};

use crds::{ForwardGateway, PortForward, PortForwardStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use operator_core::{
    Cache, Group, ObjectKey, Proxies, Published, Touched, Translator, Update, World,
    schedule::{Effect, StatusWrite, View},
    status::{
        claims::Refusals,
        conditions::Finding,
        events::Happened,
        fleets::{Fleets, Moved},
    },
    world::{
        child::{ChildKind, Mark},
        objects::{AutoscalerState, FleetState, Object, PodInfo, ServiceInfo, Unreadable},
        watched::{Kind, Seen, Source},
    },
};
use proxy_api::{Failure, FailureReason, ListenerId, ListenerReport, ListenerState, Load, Report, Version, Work};
use serde_json::{Value, json};

/// The time of every status that is written.
pub(crate) const NOW: &str = "2026-01-01T00:00:00Z";

const KINDS: [Kind; 17] = [
    Kind::Forwards,
    Kind::Gateways,
    Kind::Agents,
    Kind::Services,
    Kind::Slices,
    Kind::ProxyPods,
    Kind::Pods,
    Kind::Namespaces,
    Kind::Grants,
    Kind::Deployments,
    Kind::StatefulSets,
    Kind::Claims,
    Kind::Drainers,
    Kind::Scalers,
    Kind::ServiceAccounts,
    Kind::Budgets,
    Kind::Policies,
];

/// A cluster with one namespace, `ns`.
pub(crate) struct Scene {
    pub(crate) cache: Cache,
    pub(crate) translator: Translator,
    pub(crate) fleets: Fleets,
    pub(crate) proxies: Proxies,
    pub(crate) refusals: Refusals,
    number: u64,
}

/// What one object changed.
pub(crate) struct News {
    pub(crate) touched: Touched,
    pub(crate) update: Update,
    pub(crate) moved: Moved,
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The proxy of a pod of this name.
pub(crate) fn proxy(name: &str) -> operator_core::ProxyId {
    key(name).into()
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

pub(crate) fn keys(names: &[&str]) -> BTreeSet<ObjectKey> {
    names.iter().map(|name| key(name)).collect()
}

pub(crate) fn source(kind: Kind) -> Source {
    Source { kind, namespace: (kind == Kind::Pods).then(|| "ns".to_owned()) }
}

pub(crate) fn kind_of(object: &Object) -> Kind {
    match object {
        Object::Forward(..) => Kind::Forwards,
        Object::Gateway(..) => Kind::Gateways,
        Object::Agent(..) => Kind::Agents,
        Object::Service(..) => Kind::Services,
        Object::Slice(..) => Kind::Slices,
        Object::ProxyPod(..) => Kind::ProxyPods,
        Object::Pod(..) => Kind::Pods,
        Object::Namespace(..) => Kind::Namespaces,
        Object::Grants(..) => Kind::Grants,
        Object::Deployment(..) => Kind::Deployments,
        Object::StatefulSet(..) => Kind::StatefulSets,
        Object::Claim(..) => Kind::Claims,
        Object::Drainer(..) => Kind::Drainers,
        Object::Scaler(..) => Kind::Scalers,
        Object::Child(kind, ..) => kind.watch(),
    }
}

impl Scene {
    /// An empty cluster of which every list is complete.
    pub(crate) fn new() -> Self {
        let mut cache = Cache::new(World::default(), KINDS.map(source));
        for kind in KINDS {
            cache.apply(&source(kind), Seen::Restarted);
            cache.apply(&source(kind), Seen::Synced);
        }
        let (translator, fleets, proxies) = (Translator::default(), Fleets::default(), Proxies::default());
        Self { cache, translator, fleets, proxies, refusals: Refusals::default(), number: 0 }
    }

    /// A cluster with the gateway `edge`, one ready proxy `p1`, and the forward `web` on port 80.
    pub(crate) fn with_web() -> Self {
        let mut scene = Self::new();
        scene.see(gateway(&json!({})));
        scene.see(Object::ProxyPod(key("p1"), fleet_pod("p1", true)));
        scene.see(forward(web("web", 80, 1)));
        scene
    }

    pub(crate) fn see(&mut self, object: Object) -> News {
        self.take(kind_of(&object), Seen::Upsert(Box::new(object)))
    }

    pub(crate) fn gone(&mut self, kind: Kind, name: &str) -> News {
        self.take(kind, Seen::Gone(key(name)))
    }

    pub(crate) fn take(&mut self, kind: Kind, seen: Seen) -> News {
        let touched = self.cache.apply(&source(kind), seen);
        self.translate(touched)
    }

    pub(crate) fn translate(&mut self, touched: Touched) -> News {
        self.number += 1;
        let version = Version { epoch: "term".to_owned(), number: self.number };
        let update = self.translator.update(&self.cache.world, &touched.changes, &version);
        let moved = self.fleets.update(&touched, &update, &self.cache, &self.translator);
        News { touched, update, moved }
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            cache: &self.cache,
            translator: &self.translator,
            fleets: &self.fleets,
            proxies: &self.proxies,
            refusals: &self.refusals,
            wall_clock: NOW,
        }
    }

    pub(crate) fn forward(&self, name: &str) -> PortForward {
        self.cache.forward(&key(name)).expect("the forward is there").into_owned()
    }

    /// A user edits a forward.
    pub(crate) fn edit(&mut self, name: &str, change: impl FnOnce(&mut PortForward)) -> News {
        let mut forward = self.forward(name);
        change(&mut forward);
        self.see(Object::Forward(key(name), Box::new(Ok(forward))))
    }

    /// A proxy reports every listener of its group as bound, except the failed ones.
    pub(crate) fn report(&mut self, pod: &str, failed: &[&str]) {
        let group = self.fleets.group_of(&key(pod), &self.translator).expect("the pod is in a group").clone();
        self.report_of(&group, pod, failed);
    }

    pub(crate) fn report_of(&mut self, group: &Group, pod: &str, failed: &[&str]) {
        let snapshot = self.translator.snapshot(group).expect("the group runs something").clone();
        let listener = |(id, Published { offer, .. }): (&ListenerId, &Published)| {
            let failure = failed.contains(&id.listener.as_str()).then(|| Failure {
                reason: FailureReason::AddressInUse,
                message: "address in use".to_owned(),
                serving: None,
            });
            let state = if failure.is_some() { ListenerState::Failed } else { ListenerState::Bound };
            let usual = ListenerReport::usual(offer.revision().clone());
            (id.clone(), ListenerReport { state, failure, ..usual })
        };
        let report = Report {
            version: snapshot.version.clone(),
            listeners: snapshot.listeners.iter().map(listener).collect(),
            ..Report::default()
        };
        self.proxies.connected(&proxy(pod));
        for part in report.parts_since(None, &snapshot.digest, true, 8) {
            self.proxies.reported(&proxy(pod), part, true);
        }
    }

    /// A proxy reports this many sessions.
    pub(crate) fn load(&mut self, pod: &str, connections: u64) {
        if self.proxies.get(&proxy(pod)).is_none() {
            self.proxies.connected(&proxy(pod));
        }
        self.proxies.loaded(&proxy(pod), Load { sum: Work { connections, ..Work::default() }, ..Load::default() });
    }

    /// The watch shows the status that was written, under this resource version.
    pub(crate) fn show(&mut self, write: &StatusWrite, version: &str) {
        match &write.subject {
            operator_core::Subject::Forward(key) => {
                let mut forward = self.cache.forward(key).expect("the forward is there").into_owned();
                let status: PortForwardStatus = serde_json::from_value(without_nulls(&write.status)).expect("a status");
                forward.status = Some(status);
                forward.metadata.resource_version = Some(version.to_owned());
                self.see(Object::Forward(key.clone(), Box::new(Ok(forward))));
            }
            operator_core::Subject::Gateway(key) => {
                let mut gateway = self.cache.gateway(key).expect("the gateway is there").into_owned();
                gateway.status = Some(serde_json::from_value(without_nulls(&write.status)).expect("a status"));
                gateway.metadata.resource_version = Some(version.to_owned());
                self.see(Object::Gateway(key.clone(), Box::new(Ok(gateway))));
            }
            operator_core::Subject::Agent(key) => {
                let mut agent = self.cache.agent(key).expect("the agent is there").into_owned();
                agent.status = Some(serde_json::from_value(without_nulls(&write.status)).expect("a status"));
                agent.metadata.resource_version = Some(version.to_owned());
                self.see(Object::Agent(key.clone(), Box::new(Ok(agent))));
            }
        }
    }
}

/// The result of a merge patch.
pub(crate) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        other => other.clone(),
    }
}

/// The manifest of a forward in the gateway `edge`.
pub(crate) fn web(name: &str, port: u16, generation: i64) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": generation,
            "resourceVersion": "1",
        },
        "spec": {
            "placement": {"gateway": {"name": "edge"}},
            "listeners": [{
                "name": "a", "protocol": "TCP", "port": port,
                "backends": [{"address": {"host": "192.0.2.1", "port": 1}}],
            }],
        },
    })
}

/// The manifest of a forward in the sidecars of all pods.
pub(crate) fn side(name: &str, port: u16) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1, "resourceVersion": "1",
        },
        "spec": {
            "placement": {"sidecar": {"selector": {}}},
            "listeners": [{
                "name": "a", "protocol": "TCP", "port": port,
                "backends": [{"address": {"host": "192.0.2.1", "port": 1}}],
            }],
        },
    })
}

pub(crate) fn forward(manifest: Value) -> Object {
    let forward: PortForward = serde_json::from_value(manifest).expect("a forward");
    let name = forward.metadata.name.clone().unwrap_or_default();
    Object::Forward(key(&name), Box::new(Ok(forward)))
}

fn unreadable(metadata: ObjectMeta) -> Unreadable {
    Unreadable { why: "unknown variant".to_owned(), metadata, class: String::new() }
}

/// A forward of another release.
pub(crate) fn unreadable_forward(name: &str, generation: i64) -> Object {
    let metadata = json!({"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": generation});
    let metadata = serde_json::from_value(metadata).expect("metadata");
    Object::Forward(key(name), Box::new(Err(unreadable(metadata))))
}

/// The gateway `edge` in its first generation.
pub(crate) fn gateway(spec: &Value) -> Object {
    gateway_of(spec, 1)
}

pub(crate) fn gateway_of(spec: &Value, generation: i64) -> Object {
    let metadata = json!({"name": "edge", "namespace": "ns", "uid": "uid-edge", "generation": generation});
    let gateway: ForwardGateway =
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a gateway");
    Object::Gateway(key("edge"), Box::new(Ok(gateway)))
}

/// The gateway `edge` as another release wrote it.
pub(crate) fn unreadable_gateway() -> Object {
    let metadata = json!({"name": "edge", "namespace": "ns", "uid": "uid-edge", "generation": 1});
    let metadata = serde_json::from_value(metadata).expect("metadata");
    Object::Gateway(key("edge"), Box::new(Err(unreadable(metadata))))
}

pub(crate) fn deployment(replicas: i32, ready: i32) -> Object {
    Object::Deployment(key("edge"), FleetState { replicas, ready, ..FleetState::default() })
}

/// The mark of an object in which the operator manages this field.
pub(crate) fn mark(field: &str) -> Mark {
    let fields = json!({"f:spec": {format!("f:{field}"): {}}});
    let entry = json!({"manager": "portlane-operator", "operation": "Apply", "fieldsV1": fields});
    Mark::of(&serde_json::from_value(json!({"managedFields": [entry]})).expect("metadata"))
}

/// A child of the gateway `edge` in which the operator manages this field.
pub(crate) fn child(kind: ChildKind, field: &str) -> Object {
    let mark = mark(field);
    match kind {
        ChildKind::Deployment => Object::Deployment(key("edge"), FleetState { mark, ..FleetState::default() }),
        ChildKind::StatefulSet => Object::StatefulSet(key("edge"), FleetState { mark, ..FleetState::default() }),
        ChildKind::Service => {
            let gateway = Some("edge".to_owned());
            Object::Service(key("edge"), ServiceInfo { gateway, mark, ..ServiceInfo::default() })
        }
        other => Object::Child(other, key("edge"), mark),
    }
}

/// A pod of the fleet of `edge`.
pub(crate) fn fleet_pod(name: &str, ready: bool) -> PodInfo {
    PodInfo {
        uid: format!("uid-{name}"),
        ready,
        gateway: Some("edge".to_owned()),
        service_account: "edge".to_owned(),
        ..PodInfo::default()
    }
}

/// A pod that was created with a sidecar, as the watch of all pods shows it.
pub(crate) fn app_pod(name: &str) -> PodInfo {
    PodInfo {
        uid: format!("uid-{name}"),
        labels: [("portlane.dev/proxy".to_owned(), "sidecar".to_owned())].into(),
        ..PodInfo::default()
    }
}

pub(crate) fn scaler(name: &str, state: AutoscalerState) -> Object {
    Object::Scaler(key(name), Box::new(state))
}

/// No forward has an autoscaler.
pub(crate) fn unscaled(_: &ObjectKey) -> Option<Finding> {
    None
}

pub(crate) fn writes(effects: &[Effect]) -> Vec<StatusWrite> {
    let write = |effect: &Effect| match effect {
        Effect::WriteStatus(write) => Some(write.clone()),
        _ => None,
    };
    effects.iter().filter_map(write).collect()
}

pub(crate) fn events(effects: &[Effect]) -> Vec<Happened> {
    let event = |effect: &Effect| match effect {
        Effect::Event(event) => Some(event.clone()),
        _ => None,
    };
    effects.iter().filter_map(event).collect()
}

/// Status and reason of a condition of a written status; empty if it is absent.
pub(crate) fn condition_of(write: &StatusWrite, type_: &str) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut conditions = write.status["conditions"].as_array().into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == type_);
    found.map(|found| (text(&found["status"]), text(&found["reason"]))).unwrap_or_default()
}

pub(crate) fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}
