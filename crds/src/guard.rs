//! Protection of a forward: limits, access lists and PROXY headers.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalars::Cidr;

/// Limits of a forward, counted over all its listeners and separately in each proxy. An absent limit does not apply,
/// unless its description names a default.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Maximum number of live sessions (TCP connections and UDP flows), 1 to 1000000. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,
    /// What happens to a TCP connection beyond `maxConnections`. Queue: the connection is accepted and waits unread for
    /// a free slot. Reject: the connection is reset. Absent: Queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_limit: Option<OnLimit>,
    /// Maximum number of TCP connections in the queue, 1 to 100000; excess connections are reset. Absent: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_queued: Option<u32>,
    /// Maximum time in the queue, 1 to 3600 seconds; after that the connection is reset. Absent: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub queue_seconds: Option<u32>,
    /// Maximum number of live and queued sessions of one source (an address; an IPv6 /64 may have three times as many),
    /// 1 to 1000000; excess sessions are reset. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections_per_source: Option<u32>,
    /// Maximum number of new sessions per second, with a burst of one second, 1 to 1000000; excess sessions are reset.
    /// Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub new_connections_per_second: Option<u32>,
    /// Maximum number of bytes per second, both directions together, 1 to 1000000000000. TCP is throttled; UDP
    /// datagrams beyond the limit are dropped. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64), extend("format" = "int64"))]
    pub bytes_per_second: Option<u64>,
    /// Maximum number of live UDP flows, 1 to 1000000. At the limit, a new flow evicts the least recently used flow if
    /// that flow has been idle for at least one second; otherwise the new datagram is dropped. Absent: only the proxy's
    /// own limit applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_flows: Option<u32>,
}

/// What happens to a TCP connection beyond `maxConnections`.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum OnLimit {
    #[default]
    Queue,
    Reject,
}

/// Which clients are allowed, by address. If a PROXY header was accepted, the address in the header counts.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// Networks whose clients are allowed, at most 64. Absent or empty: all networks.
    #[serde(default, rename = "allowCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow_cidrs: Vec<Cidr>,
    /// Networks whose clients are denied, even if `allowCIDRs` allows them, at most 64. Absent: none.
    #[serde(default, rename = "denyCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub deny_cidrs: Vec<Cidr>,
}

/// PROXY protocol headers, which carry the client address: those accepted from a load balancer and those sent to
/// backends.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.accept) || self.accept == 'Disabled' || (has(self.trustedCIDRs) && self.trustedCIDRs.size() > 0)").message("trustedCIDRs is required unless accept is Disabled: otherwise any client could claim any address"))]
pub struct ProxyProtocol {
    /// PROXY headers from clients, version 1 or 2. Disabled: no header is read. Optional: peers in `trustedCIDRs` must
    /// send a header; other peers are served without one. Required: peers outside `trustedCIDRs` are refused. Absent:
    /// Disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<AcceptHeader>,
    /// Networks of the peers whose PROXY headers are trusted, such as those of your load balancer, at most 64. Required
    /// unless `accept` is Disabled.
    #[serde(default, rename = "trustedCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub trusted_cidrs: Vec<Cidr>,
    /// PROXY header sent to every backend of the listener. Disabled: no header. V1: text. V2: binary. Absent: Disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<SendHeader>,
}

/// Modes of reading PROXY headers from clients.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum AcceptHeader {
    #[default]
    Disabled,
    Optional,
    Required,
}

/// Versions of PROXY headers sent to backends.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum SendHeader {
    #[default]
    Disabled,
    V1,
    V2,
}
