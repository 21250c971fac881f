//! What guards a listener and its backends: limits, access lists, PROXY headers, active checks.
//!
//! All of it is absent from a listener that has none, so that proxies which do not know it run such a listener, and its
//! revision is what it always was.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Limits of a forward in one proxy, over all its listeners. `None`: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Live sessions: TCP connections and UDP flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// What becomes of a TCP connection beyond.
    #[serde(default)]
    pub on_limit: OnLimit,
    /// Connections that may wait.
    #[serde(default)]
    pub max_queued: u32,
    /// Longest wait, seconds.
    #[serde(default)]
    pub queue_seconds: u32,
    /// Live sessions of one source: an IPv4 address or an IPv6 /64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections_per_source: Option<u32>,
    /// New sessions a second, with a burst of one second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_connections_per_second: Option<u32>,
    /// Bytes a second, both directions together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Live UDP flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_flows: Option<u32>,
}

/// What becomes of a TCP connection beyond `max_connections`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnLimit {
    /// It is reset.
    #[default]
    Reject,
    /// It is accepted and waits, unread.
    Queue,
}

/// Who may come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    /// Nobody else; empty: everybody.
    #[serde(default)]
    pub allow: Vec<IpNet>,
    /// Not these, whatever `allow` says.
    #[serde(default)]
    pub deny: Vec<IpNet>,
}

impl Access {
    /// Whether a client of this address may come.
    #[must_use]
    pub fn admits(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        let is_in = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&source));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}

/// PROXY protocol headers, as the specification by `HAProxy` has them in versions 1 and 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyProtocol {
    /// From clients.
    #[serde(default)]
    pub accept: AcceptHeader,
    /// Whose headers count.
    #[serde(default)]
    pub trusted: Vec<IpNet>,
    /// To backends.
    #[serde(default)]
    pub send: SendHeader,
}

impl ProxyProtocol {
    /// Whether headers of this peer count.
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
    /// Trusted peers must send one; what others send is never taken for one.
    Optional,
    /// Trusted peers must send one; others are refused.
    Required,
}

/// Headers to backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SendHeader {
    /// None.
    #[default]
    Disabled,
    /// Version 1, a line of text.
    V1,
    /// Version 2, binary.
    V2,
}

/// Active checks of every endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Its own port; `None`: the backend's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Seconds between checks.
    pub interval_seconds: u32,
    /// Longest time for one.
    pub timeout_seconds: u32,
    /// Failures in a row after which a healthy endpoint is unhealthy.
    pub unhealthy_threshold: u32,
    /// Successes in a row after which an unhealthy one is healthy.
    pub healthy_threshold: u32,
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Probe {
    /// Whether it accepts a connection.
    Tcp,
    /// Whether `GET` of this path is answered by 200 to 399.
    Http {
        /// With its query.
        path: String,
    },
}
