//! Protection of listeners and backends: limits, access lists, PROXY headers.
//!
//! Each field is omitted from listeners that do not use it. Older proxies therefore run such listeners, and their
//! revisions stay the same.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Limits of a forward per proxy, over all its listeners. `None` means unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Live sessions: TCP connections and UDP flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// What happens to TCP connections beyond `max_connections`.
    #[serde(default)]
    pub on_limit: OnLimit,
    /// Connections that may wait in the queue.
    #[serde(default)]
    pub max_queued: u32,
    /// Longest wait in the queue, in seconds.
    #[serde(default)]
    pub queue_seconds: u32,
    /// Live sessions per source, which is an address. An IPv6 /64 may have three times as many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections_per_source: Option<u32>,
    /// New sessions per second, with a burst of one second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_connections_per_second: Option<u32>,
    /// Bytes per second, both directions together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Live UDP flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_flows: Option<u32>,
}

/// Limits of all listeners of a namespace together, per proxy. Listeners of one namespace that carry different limits,
/// because one of them could not change yet, share the smaller one. `None` means unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantLimits {
    /// Live and queued sessions: TCP connections and UDP flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Bytes of the logs on disk with their dead letters. Only durable listeners carry this, so that older proxies run
    /// all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_log_bytes: Option<u64>,
}

/// What happens to a TCP connection beyond `max_connections`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnLimit {
    /// The connection is reset.
    #[default]
    Reject,
    /// The connection is accepted and waits unread.
    Queue,
}

/// Client addresses that are admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    /// Admit only these networks; empty admits everyone.
    #[serde(default)]
    pub allow: Vec<IpNet>,
    /// Refuse these networks, even if `allow` contains them.
    #[serde(default)]
    pub deny: Vec<IpNet>,
}

impl Access {
    /// Whether a client with this address is admitted.
    #[must_use]
    pub fn admits(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        let is_in = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&source));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}

/// PROXY protocol headers, versions 1 and 2 of the `HAProxy` specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Headers accepted from clients.
    #[serde(default)]
    pub accept: AcceptHeader,
    /// Peers trusted to send headers.
    #[serde(default)]
    pub trusted: Vec<IpNet>,
    /// Headers sent to backends.
    #[serde(default)]
    pub send: SendHeader,
}

impl ProxyProtocol {
    /// Whether this peer is trusted to send headers.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|net| net.contains(&peer))
    }
}

/// Headers from clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AcceptHeader {
    /// Never read.
    #[default]
    Disabled,
    /// Trusted peers must send a header; data of other peers is never parsed as one.
    Optional,
    /// Trusted peers must send a header; other peers are refused.
    Required,
}

/// Headers to backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SendHeader {
    /// No header.
    #[default]
    Disabled,
    /// Version 1, text.
    V1,
    /// Version 2, binary.
    V2,
}
