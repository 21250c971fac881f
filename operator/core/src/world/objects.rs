//! Objects of the API server, stripped to what matters here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crds::{ForwardGateway, PortForward, Protocol};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Namespace, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{api::PartialObjectMeta, core::error_boundary::InvalidObject};
use operator_core::{CrashLoop, Grant, ObjectKey, ScalerTold, Told};

use super::crash_loop::crash_loop;
use crate::{
    GATEWAY_LABEL, NAME,
    inject::{APP_PORTS, AppPorts, PROBLEM, read_app_ports},
    scaling::{FORWARD_LABEL, has_field},
    status_writer::Subject,
};

/// One object as it is now.
#[derive(Clone, Debug)]
pub enum Object {
    /// A forward, or why it cannot be read.
    Forward(ObjectKey, Box<Result<PortForward, Unreadable>>),
    /// A gateway, or why it cannot be read.
    Gateway(ObjectKey, Box<Result<ForwardGateway, Unreadable>>),
    /// A Service.
    Service(ObjectKey, ServiceInfo),
    /// Some of the endpoints of a Service.
    Slice(ObjectKey, SliceInfo),
    /// A pod that carries a proxy.
    ProxyPod(ObjectKey, PodInfo),
    /// A pod of a namespace with sidecar forwards.
    Pod(ObjectKey, PodInfo),
    /// A namespace with its labels.
    Namespace(ObjectKey, BTreeMap<String, String>),
    /// What one `ReferenceGrant` permits.
    Grants(ObjectKey, BTreeSet<Grant>),
    /// The Deployment of a gateway.
    Deployment(ObjectKey, FleetState),
    /// An autoscaler of ours.
    Scaler(ObjectKey, Box<ScalerState>),
}

impl Object {
    /// Namespace and name.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Forward(key, _)
            | Self::Gateway(key, _)
            | Self::Service(key, _)
            | Self::Slice(key, _)
            | Self::ProxyPod(key, _)
            | Self::Pod(key, _)
            | Self::Namespace(key, _)
            | Self::Grants(key, _)
            | Self::Deployment(key, _)
            | Self::Scaler(key, _) => key.clone(),
        }
    }
}

/// An object of another release, as far as it can be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unreadable {
    /// What is wrong with it.
    pub why: String,
    /// Its metadata, stripped.
    pub metadata: ObjectMeta,
}

impl From<InvalidObject> for Unreadable {
    fn from(InvalidObject { error: why, mut metadata }: InvalidObject) -> Self {
        strip(&mut metadata);
        Self { why, metadata }
    }
}

/// A Service without its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceInfo {
    /// The host that it is another name for.
    pub external: Option<String>,
    /// Ports: name, protocol, number.
    pub ports: Vec<(String, Protocol, u16)>,
    /// Where it is reached from outside, or else inside the cluster.
    pub addresses: Vec<(String, String)>,
    /// The gateway that it belongs to.
    pub gateway: Option<String>,
}

/// Some endpoints of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceInfo {
    /// Name of the Service.
    pub service: String,
    /// Ready addresses by port: name, protocol.
    pub endpoints: BTreeMap<(String, Protocol2), BTreeSet<SocketAddr>>,
    /// Ready addresses, for a Service without ports.
    pub hosts: BTreeSet<IpAddr>,
}

/// TCP is false, UDP is true: the API's own enum has no order.
type Protocol2 = bool;

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodInfo {
    /// Tells it from an earlier one of its name.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It is being deleted, or has ended.
    pub leaving: bool,
    /// It is ready (known of pods that carry a proxy).
    pub ready: bool,
    /// The gateway whose fleet it says to be of.
    pub gateway: Option<String>,
    /// What was wrong when it was to be given a proxy.
    pub problem: Option<String>,
    /// Ports that its app listens on, as far as it says so.
    pub app_ports: AppPorts,
    /// The `ReplicaSet` that it belongs to (known of pods that carry a proxy).
    pub replica_set: Option<String>,
    /// What it costs to delete it (known of pods that carry a proxy).
    pub cost: Cost,
    /// An app container in a crash loop (known of pods with a proxy).
    pub crash_loop: Option<CrashLoop>,
    /// Its `ServiceAccount` (known of pods that carry a proxy).
    pub service_account: String,
}

/// Annotation with what it costs to delete a pod.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What it costs to delete a pod, and by whom that was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cost {
    /// Nobody said.
    #[default]
    Unset,
    /// This operator.
    Ours(i32),
    /// Somebody else.
    Foreign,
}

/// What a Deployment says about a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetState {
    /// Pods.
    pub replicas: i32,
    /// Ready pods.
    pub ready: i32,
    /// Changes with every change of its spec, by whomever.
    pub generation: i64,
}

/// An autoscaler of ours as far as status is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalerState {
    /// Uid of the object that it belongs to.
    pub owner: String,
    /// That object.
    pub subject: Subject,
    /// What it says of itself.
    pub told: ScalerTold,
    /// Replicas that it has asked for last.
    pub desired: i32,
    /// The least that it asks for.
    pub least: i32,
    /// Kind and name of what it scales.
    pub target: (String, String),
    /// Replicas of that, as it saw them last.
    pub current: i32,
}

fn key(metadata: &ObjectMeta) -> ObjectKey {
    ObjectKey::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// Takes away what is large and means nothing here.
fn strip(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.annotations = None;
    metadata.labels = None;
    metadata.owner_references = None;
}

pub(super) fn forward(read: Result<PortForward, InvalidObject>) -> Object {
    match read {
        Ok(mut forward) => {
            strip(&mut forward.metadata);
            Object::Forward(key(&forward.metadata), Box::new(Ok(forward)))
        }
        Err(error) => Object::Forward(key(&error.metadata), Box::new(Err(error.into()))),
    }
}

pub(super) fn gateway(read: Result<ForwardGateway, InvalidObject>) -> Object {
    match read {
        Ok(mut gateway) => {
            strip(&mut gateway.metadata);
            Object::Gateway(key(&gateway.metadata), Box::new(Ok(gateway)))
        }
        Err(error) => Object::Gateway(key(&error.metadata), Box::new(Err(error.into()))),
    }
}

fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

pub(super) fn service(service: &Service) -> Object {
    let spec = service.spec.as_ref();
    let external = spec.filter(|spec| spec.type_.as_deref() == Some("ExternalName"));
    let ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten().filter_map(|port| {
        let name = port.name.clone().unwrap_or_default();
        Some((name, protocol(port.protocol.as_deref())?, u16::try_from(port.port).ok()?))
    });
    let info = ServiceInfo {
        external: external.and_then(|spec| spec.external_name.clone()),
        ports: ports.collect(),
        addresses: addresses(service),
        gateway: service.metadata.labels.as_ref().and_then(|labels| labels.get(GATEWAY_LABEL).cloned()),
    };
    Object::Service(key(&service.metadata), info)
}

/// Type and value of each address, as status has them.
fn addresses(service: &Service) -> Vec<(String, String)> {
    let ip = |value: &String| ("IPAddress".to_owned(), value.clone());
    let host = |value: &String| ("Hostname".to_owned(), value.clone());
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let outside: Vec<_> = ingress
        .into_iter()
        .flatten()
        .filter_map(|item| item.ip.as_ref().map(ip).or_else(|| item.hostname.as_ref().map(host)))
        .collect();
    let spec = service.spec.as_ref();
    if !outside.is_empty() || spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer") {
        return outside;
    }
    let inside = spec.and_then(|spec| spec.cluster_ips.as_ref()).into_iter().flatten();
    inside.filter(|address| *address != "None").map(ip).collect()
}

pub(super) fn slice(slice: &EndpointSlice) -> Object {
    let labels = slice.metadata.labels.as_ref();
    let service = labels.and_then(|labels| labels.get("kubernetes.io/service-name")).cloned().unwrap_or_default();
    let ready = slice
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
    let ips: Vec<IpAddr> = ready.flat_map(|endpoint| &endpoint.addresses).filter_map(|ip| ip.parse().ok()).collect();
    let mut endpoints: BTreeMap<_, BTreeSet<SocketAddr>> = BTreeMap::new();
    for port in slice.ports.iter().flatten() {
        let number = port.port.and_then(|port| u16::try_from(port).ok());
        let (Some(protocol), Some(number)) = (protocol(port.protocol.as_deref()), number) else { continue };
        let name = (port.name.clone().unwrap_or_default(), protocol == Protocol::Udp);
        endpoints.entry(name).or_default().extend(ips.iter().map(|ip| SocketAddr::new(*ip, number)));
    }
    let hosts = ips.into_iter().collect();
    Object::Slice(key(&slice.metadata), SliceInfo { service, endpoints, hosts })
}

fn pod_info(metadata: &ObjectMeta) -> PodInfo {
    let labels = metadata.labels.clone().unwrap_or_default();
    let annotation = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name));
    PodInfo {
        uid: metadata.uid.clone().unwrap_or_default(),
        leaving: metadata.deletion_timestamp.is_some(),
        gateway: labels.get(GATEWAY_LABEL).cloned(),
        problem: annotation(PROBLEM).cloned(),
        app_ports: annotation(APP_PORTS).map(|text| read_app_ports(text)).unwrap_or_default(),
        labels,
        ..PodInfo::default()
    }
}

pub(super) fn pod(pod: &PartialObjectMeta<Pod>) -> Object {
    Object::Pod(key(&pod.metadata), pod_info(&pod.metadata))
}

/// What it costs to delete a pod, by its metadata.
pub fn cost_of(metadata: &ObjectMeta) -> Cost {
    let Some(value) = metadata.annotations.as_ref().and_then(|all| all.get(DELETION_COST)) else { return Cost::Unset };
    let mut entries = metadata.managed_fields.iter().flatten();
    let is_ours = entries.any(|entry| {
        entry.manager.as_deref() == Some(NAME) && has_field(entry, &["metadata", "annotations", DELETION_COST])
    });
    if is_ours { value.parse().map_or(Cost::Foreign, Cost::Ours) } else { Cost::Foreign }
}

fn replica_set(metadata: &ObjectMeta) -> Option<String> {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.kind == "ReplicaSet" && owner.controller == Some(true)).map(|owner| owner.name.clone())
}

pub(super) fn proxy_pod(pod: &Pod) -> Object {
    let status = pod.status.as_ref();
    let ended = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
    let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let info = pod_info(&pod.metadata);
    let info = PodInfo {
        replica_set: replica_set(&pod.metadata),
        cost: cost_of(&pod.metadata),
        crash_loop: crash_loop(pod),
        leaving: info.leaving || ended,
        ready: conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        service_account: pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        ..info
    };
    Object::ProxyPod(key(&pod.metadata), info)
}

pub(super) fn namespace(namespace: &PartialObjectMeta<Namespace>) -> Object {
    Object::Namespace(key(&namespace.metadata), namespace.metadata.labels.clone().unwrap_or_default())
}

pub(super) fn deployment(deployment: &Deployment) -> Object {
    let status = deployment.status.as_ref();
    let state = FleetState {
        replicas: status.and_then(|status| status.replicas).unwrap_or(0),
        ready: status.and_then(|status| status.ready_replicas).unwrap_or(0),
        generation: deployment.metadata.generation.unwrap_or(0),
    };
    Object::Deployment(key(&deployment.metadata), state)
}

pub(super) fn scaler(scaler: &HorizontalPodAutoscaler) -> Object {
    let key = key(&scaler.metadata);
    let label = |label: &str| scaler.metadata.labels.as_ref().and_then(|labels| labels.get(label)).cloned();
    let named = |name: String| ObjectKey::new(key.namespace.clone(), name);
    let subject = match label(FORWARD_LABEL) {
        Some(name) => Subject::Forward(named(name)),
        None => Subject::Gateway(named(label(GATEWAY_LABEL).unwrap_or_default())),
    };
    let status = scaler.status.as_ref();
    let told = |type_: &str| {
        let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let found = conditions.find(|condition| condition.type_ == type_)?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Some(Told { holds: found.status == "True", reason: text(&found.reason), message: text(&found.message) })
    };
    let mut owners = scaler.metadata.owner_references.iter().flatten();
    let target = scaler.spec.as_ref().map(|spec| &spec.scale_target_ref);
    let state = ScalerState {
        owner: owners.next().map(|owner| owner.uid.clone()).unwrap_or_default(),
        subject,
        told: ScalerTold { able: told("AbleToScale"), active: told("ScalingActive") },
        desired: status.map_or(0, |status| status.desired_replicas),
        least: scaler.spec.as_ref().and_then(|spec| spec.min_replicas).unwrap_or(1),
        target: target.map(|target| (target.kind.clone(), target.name.clone())).unwrap_or_default(),
        current: status.and_then(|status| status.current_replicas).unwrap_or(0),
    };
    Object::Scaler(key, Box::new(state))
}
