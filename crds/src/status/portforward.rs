//! What the operator reports in the status of a `PortForward`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    guard::AcceptHeader,
    scalars::Protocol,
    status::parts::{Condition, ForwardAddress},
};

/// State of a `PortForward` as the operator and its proxies see it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortForwardStatus {
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, `ResolvedRefs`, Programmed and Ready; Reconciling and Stalled only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The listeners with the ports they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub listeners: Vec<ListenerStatus>,
    /// What the proxies report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_plane: Option<DataPlaneStatus>,
    /// Ports in one line, such as `5432/TCP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub ports: Option<String>,
    /// Backends in one line, such as `svc/pg:5432 (+2)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub to: Option<String>,
    /// Where the listeners run: `sidecar` with its selector, or `gateway NAMESPACE/NAME`. The ports above are held there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub placement: Option<String>,
    /// Where clients reach the listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<ForwardAddress>,
}

/// One listener as it runs.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Name of the listener.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port it holds: the one asked for, or the one allocated.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The last port, of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<u16>,
    /// The server names it holds on that port, of TLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub hostnames: Vec<String>,
    /// Whose PROXY headers are read before those names; all who share the port read the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<AcceptedHeaders>,
    /// How many of its backends are healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<BackendHealth>,
}

/// PROXY headers that are read on a port.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedHeaders {
    /// Optional or Required, as in the spec.
    pub accept: AcceptHeader,
    /// Networks of the peers whose headers count.
    #[serde(rename = "trustedCIDRs")]
    #[schemars(length(max = 64), inner(length(max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub trusted_cidrs: Vec<String>,
}

/// Health of a listener's backends, without counts: counts belong to metrics.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum BackendHealth {
    All,
    Some,
    None,
}

/// What the proxies of a forward report.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataPlaneStatus {
    /// Proxies that should run this forward.
    #[schemars(range(min = 0))]
    pub total: u32,
    /// Proxies that run this generation.
    #[schemars(range(min = 0))]
    pub acked: u32,
    /// `acked/total`.
    #[schemars(length(max = 32))]
    pub summary: String,
    /// Proxies that refused a listener, at most 8 named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub rejected: Vec<RejectedListener>,
    /// How many refused in all.
    #[schemars(range(min = 0))]
    pub rejected_count: u32,
}

/// A listener that a proxy could not run.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedListener {
    /// The pod.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// The listener.
    #[schemars(length(max = 63))]
    pub listener: String,
    /// Why, such as `bind 0.0.0.0:5432: address in use`.
    #[schemars(length(max = 1024))]
    pub reason: String,
}
