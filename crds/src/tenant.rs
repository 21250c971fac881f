//! Tenants of a `ForwardGateway`: what single namespaces may claim and use.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ports::ProtocolPorts,
    scalars::{Hostname, NamespaceName},
    selector::Selector,
};

/// What some namespaces may claim and use on a gateway. Each number is the share of one namespace, even if an entry
/// applies to several namespaces.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// Name of the entry in messages: a DNS-1123 label, unique in this object.
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Namespaces that the entry applies to: exactly one of `names` and `selector`.
    pub namespaces: TenantNamespaces,
    /// The only TLS server names that the namespaces may claim, at most 64. A wildcard such as `*.a.example.com` also
    /// permits every name and wildcard below it. Other namespaces may claim neither these names nor a wildcard that
    /// covers them, unless an entry permits it. Absent: every name that no other entry lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub hostnames: Vec<Hostname>,
    /// The only ports that the namespaces may claim, at most 16 ranges; allocated ports are always permitted. Other
    /// namespaces may not claim these ports unless an entry permits it, but ports with protocol TLS remain available to
    /// TLS listeners of all namespaces. Absent: every port that no other entry lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub ports: Vec<ProtocolPorts>,
    /// Maximum number of ports that a namespace may hold on this gateway, 1 to 65535; each port of a range counts.
    /// Listeners beyond this limit are not accepted. Absent: half of `service.maxPorts`; no limit for the gateway's own
    /// namespace, or if the gateway has no Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub max_ports: Option<u16>,
    /// Maximum number of forwards of a namespace on this gateway, 1 to 10000. Forwards beyond this limit are not
    /// accepted. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_forwards: Option<u16>,
    /// Maximum number of live and queued sessions (TCP connections and UDP flows) of all forwards of a namespace,
    /// separately in each proxy, 1 to 1000000. Sessions beyond this limit are reset. Absent: half of the sessions that
    /// the proxy can hold while it serves several namespaces, otherwise no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,
    /// Maximum size on disk of the logs of a namespace's durable listeners, with their dead letters, separately in each
    /// proxy, 16777216 (16 MiB) to 1099511627776 (1 TiB) bytes. Listeners beyond this limit do not run. Absent: half of
    /// the proxy's space for logs while several namespaces have logs there, otherwise no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16_777_216, max = 1_099_511_627_776_u64), extend("format" = "int64"))]
    pub max_log_bytes: Option<u64>,
}

/// Namespaces of a tenant: exactly one of `names` and `selector`. An entry that names a namespace overrides all entries
/// that select it. Where several entries of the same kind match, all of them apply.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.names) != has(self.selector)").message("exactly one of names and selector must be set"))]
pub struct TenantNamespaces {
    /// Names of the namespaces, 1 to 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub names: Vec<NamespaceName>,
    /// Labels of the namespaces. An empty selector (`{}`) matches every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
}
