//! Tunnels of a `ForwardGateway`: where agents connect, and which agents may.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::namespaces::NamespaceScope;

/// Where agents connect to the fleet of a gateway, and which agents may.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayTunnels {
    /// Port of the fleet and its Service to which agents connect, 1 to 65535. Absent: 7443.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Addresses for join strings, as `HOST:PORT`, at which agents reach `port`, at most 8. An agent tries them in this
    /// order. Absent: the addresses of the Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 3, max = 261)), extend("x-kubernetes-list-type" = "atomic"))]
    pub advertise: Vec<String>,
    /// Maximum number of agent instances that are connected to one proxy of the fleet, 1 to 1024. Absent: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_agents: Option<u32>,
    /// Which agents may connect. Absent: those of the gateway's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_agents: Option<AllowedAgents>,
}

/// Which agents may connect to a gateway.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedAgents {
    /// Namespaces whose agents may connect. Absent: the gateway's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<NamespaceScope>,
    /// Maximum sum of `maxInstances` of all agents of one namespace, 1 to 1024. Older agents count first, and an agent
    /// that exceeds the sum is not accepted. Absent: half of `maxAgents`; no limit for the gateway's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_instances_per_namespace: Option<u32>,
}
