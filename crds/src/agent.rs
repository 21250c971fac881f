//! `ForwardAgent`: an agent that dials in from elsewhere, and what forwards reach through it.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::ForwardAgentStatus;

/// A `ForwardAgent` is an agent that dials out to Portlane from a network that Portlane cannot reach. It defines how
/// the agent enrols, and what forwards may reach through it.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "portlane.dev",
    version = "v1alpha1",
    kind = "ForwardAgent",
    plural = "forwardagents",
    shortname = "fagent",
    category = "portlane",
    namespaced,
    status = "ForwardAgentStatus",
    derive = "PartialEq",
    doc = "A ForwardAgent is an agent that dials out to Portlane from a network that Portlane cannot reach. It defines how the agent enrols, and what forwards may reach through it.",
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name must be at most 52 characters long"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS-1035 label: lower case letters, digits and '-', starting with a letter"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Gateway", type_ = "string", json_path = ".spec.gateway.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.enrolmentSecret", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.targets.all(a, self.targets.exists_one(b, a.host == b.host && a.port == b.port && (has(a.endPort) ? a.endPort : a.port) == (has(b.endPort) ? b.endPort : b.port) && (has(a.protocol) ? a.protocol : 'TCP') == (has(b.protocol) ? b.protocol : 'TCP')))").message("two targets are the same: remove one of them")
)]
pub struct ForwardAgentSpec {
    /// Gateway whose proxies the agent dials. Forwards with a backend of the agent run in this gateway, or in sidecars.
    /// `portlane run` ignores the field. Absent: the agent is not accepted in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<AgentGateway>,
    /// While true, no instance of the agent may connect, and existing connections are closed. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Hosts and ports that forwards may reach through the agent, 1 to 64 entries. The agent's own list
    /// (`portlane agent --allow`) must allow them, too.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub targets: Vec<AgentTarget>,
    /// How the agent gets its certificates. Absent: the default of each field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<AgentEnrolment>,
    /// Maximum number of connected instances of the agent, 1 to 64. Sessions are distributed among them; if one fails,
    /// the others take over. Absent: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub max_instances: Option<u32>,
}

/// The gateway that an agent dials.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentGateway {
    /// Name of the `ForwardGateway`, which must have `spec.tunnels`.
    #[schemars(length(min = 1, max = 52), pattern(r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Namespace of the `ForwardGateway`. Absent: the namespace of the `ForwardAgent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
}

/// Hosts and ports that forwards may reach through an agent.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.endPort) || self.endPort >= self.port").message("endPort of a target must not be less than port"))]
pub struct AgentTarget {
    /// IP address, network such as 10.0.0.0/8, or DNS name that the agent resolves, 1 to 253 characters. A DNS name
    /// allows only backends with this name, and an address or network only backends with an address.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("isIP(self) || isCIDR(self) && !self.matches('^0[0-9]+[.]|[./]0[0-9]') || self.matches('^([a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?[.])*[a-zA-Z]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?[.]?$')").message("must be an IP address, a network or a DNS name"))]
    pub host: String,
    /// Port, or first port of a range, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Last port of the range, 1 to 65535. Absent: the same as `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<u16>,
    /// TCP or UDP. Absent: TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<AgentProtocol>,
}

/// Protocols of targets.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum AgentProtocol {
    Tcp,
    Udp,
}

/// How an agent gets its certificates.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentEnrolment {
    /// Maximum number of instances that may enrol with one join string, 1 to 100. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub redemptions: Option<u32>,
    /// Lifetime of a join string, 300 to 604800 seconds. Absent: 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 300, max = 604_800))]
    pub expire_seconds: Option<u32>,
    /// Number of the current rotation, 0 to 1000000. Raising it revokes every certificate of the agent: its instances
    /// are disconnected, and must enrol again with a new join string. Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub rotation: Option<u32>,
}
