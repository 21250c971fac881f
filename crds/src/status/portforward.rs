//! Status of a `PortForward`, as reported by the operator.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    guard::AcceptHeader,
    scalars::Protocol,
    status::parts::{Condition, ForwardAddress},
};

/// Observed state of a `PortForward`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortForwardStatus {
    /// The `metadata.generation` that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the forward: Accepted, ResolvedRefs, Programmed and Ready; in sidecars also Injected, and with
    /// `autoscaling` also ScalingActive. LimitReached, MessagesKept, Reconciling and Stalled are present only while
    /// True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Listeners that hold their port. A listener whose port another listener has, even if only in some pods, is not
    /// listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub listeners: Vec<ListenerStatus>,
    /// What the proxies report about this forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_plane: Option<DataPlaneStatus>,
    /// Ports of all listeners in one line, such as `5432/TCP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub ports: Option<String>,
    /// First backend and the number of others, such as `svc/pg:5432 (+2)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub to: Option<String>,
    /// Where the listeners run and hold their ports: `sidecar SELECTOR`, or `gateway NAMESPACE/NAME`. A selector longer
    /// than 100 bytes is replaced by its hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub placement: Option<String>,
    /// Addresses at which clients reach the listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<ForwardAddress>,
}

/// A listener that holds its port.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Name of the listener.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Protocol of the listener.
    pub protocol: Protocol,
    /// Port that the listener holds: the requested port, or the allocated one.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Last port of the range that starts at `port`. Absent: a single port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<u16>,
    /// TLS server names that the listener holds on its port. Absent: the protocol is not TLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub hostnames: Vec<String>,
    /// PROXY headers that are read on this port; TLS listeners that share the port share this setting. Absent: no
    /// header is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<AcceptedHeaders>,
    /// Health of the backends' endpoints: All, Some or None are healthy. Absent: no proxy has reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<BackendHealth>,
    /// Delivery state of a durable listener, the worst of its proxies. Flowing: messages are delivered as they arrive.
    /// Behind: the sink takes messages, but the oldest waiting message is older than 10 s. Stalled: messages wait, and
    /// the sink has taken none for 30 s. Full: within the last 30 s a message was dropped or refused because the log
    /// had no space. StoreFailed: the disk is full, or the disk or the NATS server fails. The condition MessagesKept says
    /// which failures the messages survive. Absent: not durable, or no proxy has reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
}

/// PROXY headers that are read on a port.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedHeaders {
    /// Optional or Required, as in the spec.
    pub accept: AcceptHeader,
    /// Networks of the peers whose headers are trusted.
    #[serde(rename = "trustedCIDRs")]
    #[schemars(length(max = 64), inner(length(max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub trusted_cidrs: Vec<String>,
}

/// Health of a listener's backends. Counts are available as metrics.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum BackendHealth {
    All,
    Some,
    None,
}

/// Delivery states of a durable listener, from best to worst.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum Delivery {
    Flowing,
    Behind,
    Stalled,
    Full,
    StoreFailed,
}

/// What the proxies of a forward report.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataPlaneStatus {
    /// Number of proxies that should run the forward.
    #[schemars(range(min = 0))]
    pub total: u32,
    /// Number of proxies that run this generation of the forward.
    #[schemars(range(min = 0))]
    pub acked: u32,
    /// `acked` and `total` in one string, such as `2/3`, for the Proxies column of `kubectl get`.
    #[schemars(length(max = 32))]
    pub summary: String,
    /// Listeners that proxies rejected, at most 8 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub rejected: Vec<RejectedListener>,
    /// Number of rejected listeners in all proxies, including those that `rejected` does not list.
    #[schemars(range(min = 0))]
    pub rejected_count: u32,
}

/// A listener that a proxy could not run.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedListener {
    /// Name of the proxy's pod.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// Name of the listener.
    #[schemars(length(max = 63))]
    pub listener: String,
    /// Why the proxy rejected the listener, such as `bind 0.0.0.0:5432: address in use`.
    #[schemars(length(max = 1024))]
    pub reason: String,
}
