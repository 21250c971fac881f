//! Objects of the cluster, stripped to the fields that translation, status and children depend on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crds::{ForwardAgent, ForwardGateway, PortForward, Protocol};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proxy_api::Endpoint;

use crate::world::{
    Grant, ObjectKey,
    app_ports::AppPorts,
    child::{ChildKind, Mark},
    crash_loop::CrashLoop,
    reach::Front,
    subject::Subject,
};

/// The current state of one object.
#[derive(Clone, Debug)]
pub enum Object {
    /// A forward, or the reason why it cannot be read.
    Forward(ObjectKey, Box<Result<PortForward, Unreadable>>),
    /// A gateway, or the reason why it cannot be read.
    Gateway(ObjectKey, Box<Result<ForwardGateway, Unreadable>>),
    /// An agent, or the reason why it cannot be read.
    Agent(ObjectKey, Box<Result<ForwardAgent, Unreadable>>),
    /// A Service.
    Service(ObjectKey, ServiceInfo),
    /// An `EndpointSlice`: some endpoints of a Service.
    Slice(ObjectKey, SliceInfo),
    /// A pod with a proxy.
    ProxyPod(ObjectKey, PodInfo),
    /// A pod of a namespace with sidecar forwards.
    Pod(ObjectKey, PodInfo),
    /// A namespace with its labels.
    Namespace(ObjectKey, BTreeMap<String, String>),
    /// The permissions of one `ReferenceGrant`.
    Grants(ObjectKey, BTreeSet<Grant>),
    /// The Deployment of a gateway.
    Deployment(ObjectKey, FleetState),
    /// The `StatefulSet` of a gateway with `spec.durability`.
    StatefulSet(ObjectKey, FleetState),
    /// The claim of a pod of such a `StatefulSet`.
    Claim(ObjectKey, ClaimState),
    /// A Job that sends the messages on a claim.
    Drainer(ObjectKey, DrainerState),
    /// An autoscaler that the operator created.
    Scaler(ObjectKey, Box<AutoscalerState>),
    /// A child of a gateway, of which only the mark matters.
    Child(ChildKind, ObjectKey, Mark),
}

impl Object {
    /// Namespace and name of the object.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Forward(key, _)
            | Self::Gateway(key, _)
            | Self::Agent(key, _)
            | Self::Service(key, _)
            | Self::Slice(key, _)
            | Self::ProxyPod(key, _)
            | Self::Pod(key, _)
            | Self::Namespace(key, _)
            | Self::Grants(key, _)
            | Self::Deployment(key, _)
            | Self::StatefulSet(key, _)
            | Self::Claim(key, _)
            | Self::Drainer(key, _)
            | Self::Scaler(key, _)
            | Self::Child(_, key, _) => key.clone(),
        }
    }
}

/// An object of another release that this operator cannot read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unreadable {
    /// The error of deserialisation.
    pub why: String,
    /// Metadata of the object, stripped.
    pub metadata: ObjectMeta,
    /// `spec.controllerClass`; empty if absent.
    pub class: String,
}

/// A Service without its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceInfo {
    /// Host of an `ExternalName` Service.
    pub external: Option<String>,
    /// Ports: name, protocol, number.
    pub ports: Vec<(String, Protocol, u16)>,
    /// Type and value of the addresses from outside the cluster, or else of the cluster IPs.
    pub addresses: Vec<(String, String)>,
    /// Whether the addresses are those of a load balancer.
    pub is_balanced: bool,
    /// Name of the gateway that the Service belongs to.
    pub gateway: Option<String>,
    /// Labels of the pods; empty: another controller or a user manages the endpoints.
    pub selector: BTreeMap<String, String>,
    /// The addresses at which the Service listens.
    pub front: Front,
    /// The fields that this operator manages.
    pub mark: Mark,
}

/// Some endpoints of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceInfo {
    /// Name of the Service.
    pub service: String,
    /// Ready addresses by port name and protocol.
    pub endpoints: BTreeMap<(String, IsUdp), BTreeSet<Endpoint>>,
    /// Ready addresses without ports.
    pub hosts: BTreeSet<IpAddr>,
    /// The addresses that the control plane does not attribute to a pod.
    pub podless: BTreeSet<IpAddr>,
}

/// False for TCP, true for UDP: the protocol of the API types has no order.
type IsUdp = bool;

/// A pod. Fields marked (proxy pods) are set only for pods with a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodInfo {
    /// UID, which differs from that of an earlier pod of the same name.
    pub uid: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the pod is being deleted, or has ended (known only of proxy pods).
    pub leaving: bool,
    /// Whether the pod has ended (proxy pods).
    pub ended: bool,
    /// Seconds that a terminating pod has to end (proxy pods).
    pub grace: u32,
    /// Whether the pod is ready (proxy pods).
    pub ready: bool,
    /// Name of the gateway, by the pod's label.
    pub gateway: Option<String>,
    /// Name of the gateway whose claim the pod drains, by the pod's label.
    pub drains: Option<String>,
    /// Why injection failed or ignored an annotation.
    pub problem: Option<String>,
    /// Ports that the app listens on, by annotation.
    pub app_ports: AppPorts,
    /// Name of the `ReplicaSet` that controls the pod (proxy pods).
    pub replica_set: Option<String>,
    /// Deletion cost (proxy pods).
    pub cost: Cost,
    /// The state of a pod that drains a claim (proxy pods).
    pub drain: Drain,
    /// The obstacle that keeps a pod of a fleet from starting (proxy pods).
    pub hold: Hold,
    /// An app container in a crash loop (proxy pods).
    pub crash_loop: Option<CrashLoop>,
    /// Name of the `ServiceAccount` (proxy pods).
    pub service_account: String,
    /// The IP address that the downward API gives containers, of the cluster's first family (proxy pods).
    pub ip: Option<IpAddr>,
    /// IP addresses of the pod (proxy pods).
    pub ips: BTreeSet<IpAddr>,
    /// IP addresses of the pod's node (proxy pods).
    pub node_ips: BTreeSet<IpAddr>,
    /// Image of an injected sidecar, if no annotation of the pod chose it (proxy pods).
    pub sidecar_image: Option<String>,
    /// Creation time, seconds since 1970 (proxy pods).
    pub created: Option<u64>,
}

/// The deletion cost of a pod, by the manager that set the annotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cost {
    /// The pod has no deletion cost.
    #[default]
    Unset,
    /// This operator set the cost.
    Ours(i32),
    /// Another manager set the cost.
    Foreign,
}

/// A fleet, by its Deployment or `StatefulSet`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetState {
    /// UID.
    pub uid: String,
    /// UIDs of its owners.
    pub owners: Vec<String>,
    /// Number of pods.
    pub replicas: i32,
    /// Number of ready pods.
    pub ready: i32,
    /// Number of pods of the newest template, for a `StatefulSet`. A Deployment reports on its own when its rollout has
    /// stopped.
    pub updated: Option<i32>,
    /// The desired number of pods.
    pub wanted: i32,
    /// Ordinal of the first pod. The operator does not set one, but others may.
    pub first: i32,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Whether the status belongs to this generation.
    pub is_observed: bool,
    /// The fields of the workload that this operator manages.
    pub mark: Mark,
    /// Image of the proxies, by the pod template.
    pub image: String,
    /// The revision of the pods.
    pub revision: Revision,
    /// The progress of the last rollout.
    pub rollout: Progress,
}

impl FleetState {
    /// Whether the fleet should have a pod of this ordinal.
    #[must_use]
    pub fn has_ordinal(&self, ordinal: i32) -> bool {
        (self.first..self.first.saturating_add(self.wanted)).contains(&ordinal)
    }
}

/// The inputs of a fleet's pods, as fingerprints. An empty fingerprint is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// The settings of the installation.
    pub installation: String,
    /// The settings of the gateway.
    pub gateway: String,
}

/// The claim of a pod of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimState {
    /// Name of the gateway.
    pub gateway: String,
    /// Ordinal of the pod.
    pub ordinal: i32,
    /// UID.
    pub uid: String,
    /// Resource version.
    pub version: String,
    /// Whether the claim is being deleted.
    pub leaving: bool,
}

/// A Job that sends the messages on a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainerState {
    /// Name of the gateway.
    pub gateway: String,
    /// Ordinal of the claim.
    pub ordinal: i32,
    /// UID.
    pub uid: String,
    /// The claim, `StatefulSet` and generation for which the Job was made; empty if unknown.
    pub drained_for: String,
    /// The stage of the Job.
    pub stage: Stage,
    /// Whether the Job is being deleted.
    pub leaving: bool,
}

/// The stage of a Job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// The Job has a pod, or will have one.
    #[default]
    Begun,
    /// The Job has started, but has no pod.
    LacksPod,
    /// The Job has succeeded: all messages are delivered to their sinks.
    Succeeded,
    /// The Job was given up, for example by a policy of the cluster.
    GivenUp,
}

/// The state of a drainer; the worst comes last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// The drainer sends, waits for a sink, or is about to start.
    #[default]
    Runs,
    /// The API server refuses the Job, or the deletion of its claim.
    Refused,
    /// The Job has no pod.
    NoPod,
    /// No node can run the pod of the Job.
    Unschedulable,
    /// The pod of the Job has failed, and is restarted again and again.
    Failed,
}

impl Drain {
    /// Whether the drainer cannot succeed without a change.
    #[must_use]
    pub const fn is_stuck(self) -> bool {
        matches!(self, Self::Unschedulable | Self::Failed)
    }
}

/// The progress of a fleet's rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Every pod is new and ready.
    #[default]
    Complete,
    /// Every pod is new, but some are missing or not ready: the fleet may be scaling up.
    Unready,
    /// New pods are replacing old ones.
    Running,
    /// New pods should replace old ones but do not: the Deployment has exceeded its progress deadline, or is paused. A
    /// `StatefulSet` never reports that.
    Stopped,
}

/// The obstacle that keeps the containers of a pod from starting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// No obstacle that the pod reports.
    #[default]
    None,
    /// No node can run the pod; the text is the scheduler's message.
    Unschedulable(String),
    /// The node is not ready for the containers: a volume is not mounted yet, or there is no network.
    Unprepared,
}

/// One condition of a `HorizontalPodAutoscaler`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AutoscalerCondition {
    /// Whether the condition is True.
    pub holds: bool,
    /// The cause as one word.
    pub reason: String,
    /// The cause in words.
    pub message: String,
}

/// The conditions of a `HorizontalPodAutoscaler`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AutoscalerConditions {
    /// `AbleToScale`: whether the target can be scaled.
    pub able: Option<AutoscalerCondition>,
    /// `ScalingActive`: whether the autoscaler gets metrics.
    pub active: Option<AutoscalerCondition>,
}

/// The state of an autoscaler that the operator created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoscalerState {
    /// UID of the owner.
    pub owner: String,
    /// The forward or gateway that requests the autoscaler.
    pub subject: Subject,
    /// Conditions of the autoscaler.
    pub conditions: AutoscalerConditions,
    /// `desiredReplicas`; 0 before the first sync.
    pub desired: i32,
    /// `minReplicas`.
    pub least: i32,
    /// Kind and name of the target.
    pub target: (String, String),
    /// `currentReplicas` of the target.
    pub current: i32,
    /// The fields of the autoscaler that this operator manages.
    pub mark: Mark,
}
