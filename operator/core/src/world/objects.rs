//! Objects of the cluster, stripped to what a translation, status or children depend on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crds::{ForwardGateway, PortForward, Protocol};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proxy_api::Endpoint;

use crate::world::{Grant, ObjectKey, app_ports::AppPorts, crash_loop::CrashLoop, subject::Subject};

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
    Scaler(ObjectKey, Box<AutoscalerState>),
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
    pub endpoints: BTreeMap<(String, Protocol2), BTreeSet<Endpoint>>,
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

/// One condition of a `HorizontalPodAutoscaler`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AutoscalerCondition {
    /// Whether its status is True.
    pub holds: bool,
    /// Why, one word.
    pub reason: String,
    /// Why, for a person.
    pub message: String,
}

/// The conditions of a `HorizontalPodAutoscaler`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AutoscalerConditions {
    /// `AbleToScale`: whether the target can be scaled.
    pub able: Option<AutoscalerCondition>,
    /// `ScalingActive`: whether there are metrics.
    pub active: Option<AutoscalerCondition>,
}

/// An autoscaler of ours as far as status is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoscalerState {
    /// Uid of the object that it belongs to.
    pub owner: String,
    /// That object.
    pub subject: Subject,
    /// Its conditions.
    pub conditions: AutoscalerConditions,
    /// Replicas that it has asked for last.
    pub desired: i32,
    /// The least that it asks for.
    pub least: i32,
    /// Kind and name of what it scales.
    pub target: (String, String),
    /// Replicas of that, as it saw them last.
    pub current: i32,
}
