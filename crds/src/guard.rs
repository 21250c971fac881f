//! What guards a forward: limits, access lists, PROXY headers.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalars::Cidr;

/// Limits of a forward, over all its listeners and in each proxy on its own. An absent limit is none.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Live sessions: TCP connections and UDP flows, 1 to 1000000. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,
    /// A TCP connection beyond `maxConnections`. Queue: it is accepted, is not read, and waits for its turn. Reject: it
    /// is reset. Absent: Queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_limit: Option<OnLimit>,
    /// TCP connections that may wait, 1 to 100000; beyond, they are reset. Absent: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_queued: Option<u32>,
    /// Longest wait, 1 to 3600 seconds; after that a connection is reset. Absent: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub queue_seconds: Option<u32>,
    /// Live and waiting sessions of one source (an IPv4 address or an IPv6 /64), 1 to 1000000; beyond, they are reset.
    /// Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections_per_source: Option<u32>,
    /// New sessions a second, with a burst of one second, 1 to 1000000; beyond, they are reset. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub new_connections_per_second: Option<u32>,
    /// Bytes a second, both directions together, 1 to 1000000000000. TCP is slowed down; UDP datagrams beyond are
    /// dropped. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64), extend("format" = "int64"))]
    pub bytes_per_second: Option<u64>,
    /// Live UDP flows, 1 to 1000000. At the limit the flow that was quiet longest makes room, if it was quiet for a
    /// second; else the new datagram is dropped. Absent: no limit but the proxy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_flows: Option<u32>,
}

/// What becomes of a TCP connection beyond `maxConnections`.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum OnLimit {
    #[default]
    Queue,
    Reject,
}

/// Which clients may come. Where a PROXY header was accepted, its address counts.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// Only clients of these networks, at most 64. Absent or empty: everyone.
    #[serde(default, rename = "allowCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow_cidrs: Vec<Cidr>,
    /// No client of these networks, whatever `allowCIDRs` says, at most 64.
    #[serde(default, rename = "denyCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub deny_cidrs: Vec<Cidr>,
}

/// PROXY protocol headers: who the client is, told by a load balancer before and to a backend behind.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.accept) || self.accept == 'Disabled' || (has(self.trustedCIDRs) && self.trustedCIDRs.size() > 0)").message("trustedCIDRs is required unless accept is Disabled: anybody could claim any address"))]
pub struct ProxyProtocol {
    /// Headers from clients, version 1 or 2. Disabled: none is read. Optional: peers in `trustedCIDRs` must send one;
    /// others are served and what they send is never taken for one. Required: others are refused. Absent: Disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<AcceptHeader>,
    /// Networks of the peers whose headers count, 1 to 64, such as those of your load balancer.
    #[serde(default, rename = "trustedCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub trusted_cidrs: Vec<Cidr>,
    /// A header to every backend of the listener. Disabled: none. V1: a line of text. V2: binary. Absent: Disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<SendHeader>,
}

/// Headers from clients.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum AcceptHeader {
    #[default]
    Disabled,
    Optional,
    Required,
}

/// Headers to backends.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum SendHeader {
    #[default]
    Disabled,
    V1,
    V2,
}
