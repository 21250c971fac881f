//! Agents: who may dial a proxy, and what streams to them may lead to.

use serde::{Deserialize, Serialize};

/// What holds for one agent. Its key in a configuration is its uid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Namespace of its `ForwardAgent`.
    pub namespace: String,
    /// Name of its `ForwardAgent`.
    pub name: String,
    /// Certificates of an earlier rotation no longer count.
    #[serde(default)]
    pub rotation: u32,
    /// No instance may connect.
    #[serde(default)]
    pub suspended: bool,
    /// Instances at once, at least 1.
    pub max_instances: u32,
    /// What streams may lead to, as `HOST:PORT` or `HOST:FIRST-LAST`, with `udp/` before it for datagrams. The host is a
    /// name, an address or a network, IPv6 in brackets. Empty: nothing.
    #[serde(default)]
    pub targets: Vec<String>,
    /// How the proxy itself enrols the agent. Absent: somebody else does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<Enrolment>,
}

/// How an agent gets its first certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrolment {
    /// How many agents may enrol with one join string, at least 1.
    pub redemptions: u32,
    /// How long a join string counts, seconds.
    pub expire_seconds: u32,
}
