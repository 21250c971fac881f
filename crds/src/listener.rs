//! Listeners and their backends.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    guard::ProxyProtocol,
    scalars::{Hostname, Protocol},
};

/// One port, or a range of ports, to listen on and where its bytes go.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.protocol == 'TLS') == has(self.tls)").message("tls must be set if, and only if, protocol is TLS"))]
#[x_kube(validation = Rule::new("!has(self.endPort) || (has(self.port) && self.port <= self.endPort)").message("endPort needs port, and must not be less than it"))]
#[x_kube(validation = Rule::new("!has(self.endPort) || !has(self.port) || self.backends.all(b, (has(b.service) ? b.service.port : has(b.address) ? b.address.port : has(b.local) ? b.local.port : 0) + self.endPort - self.port <= 65535)").message("endPort leads the ports of a backend beyond 65535"))]
pub struct Listener {
    /// Name of the listener, unique in this object: a DNS-1123 label. Status, metrics and logs use it.
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// TCP, UDP, or TLS: TCP that is told apart by the server name that clients ask for.
    pub protocol: Protocol,
    /// Port to listen on, 1 to 65535. Absent, on a gateway only: one is allocated and told in status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The last port of a range that begins at `port`, 1 to 65535; all ports of a forward together are 1024 at most. A
    /// session on the n-th port goes to the n-th port after that of its backend. Absent: one port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<u16>,
    /// Which TLS sessions are meant, without decrypting them; required with protocol TLS, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Which addresses to listen on. Loopback: 127.0.0.1 and ::1. All: every address of the pod or machine.
    /// Absent: Loopback in a sidecar and on a laptop, All in a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<Bind>,
    /// Where sessions go, 1 to 16 entries.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub backends: Vec<Backend>,
    /// How an endpoint is picked for a new session. Absent: `RoundRobin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    /// PROXY protocol headers, not on UDP. Absent: none is read and none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Active checks of every endpoint of the listener. Absent: none; what fails connections is put aside all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// When an endpoint that fails connections is put aside. Always on; absent: 5 failures, 30 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier: Option<Outlier>,
}

/// TLS sessions by server name.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Passthrough: nothing is decrypted. Absent: Passthrough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// Server names, 1 to 16: exact ones, or with `*.` at the beginning for any number of labels. Listeners on one port,
    /// also of other objects, have different ones; the most specific name wins.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub hostnames: Vec<Hostname>,
}

/// What becomes of TLS.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum TlsMode {
    Passthrough,
}

/// Addresses a listener is bound to.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum Bind {
    Loopback,
    All,
}

/// One destination: exactly one of `service`, `address` and `local`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.service), has(self.address), has(self.local)].exists_one(x, x)").message("exactly one of service, address and local must be set"))]
pub struct Backend {
    /// A Service: sessions go straight to its ready endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceBackend>,
    /// A host outside: an IP address, or a DNS name whose addresses are all endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressBackend>,
    /// A port of the pod that the sidecar sits in (of this machine, on a laptop).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalBackend>,
    /// Share of new sessions, relative to the other entries, 0 to 1000000. 0: no new sessions. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: Option<u32>,
    /// Used only while no entry of a lower number has a healthy endpoint, 0 to 100. Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub priority: Option<u32>,
}

/// A Service as destination.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceBackend {
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Its namespace; another one than the object's own needs a `ReferenceGrant` there. Absent: the object's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// The Service's port number, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// A host and port as destination.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressBackend {
    /// IP address or DNS name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("isIP(self) || self.matches('^([a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?[.])*[a-zA-Z]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?[.]?$')").message("must be an IP address or a DNS name"))]
    pub host: String,
    /// Port, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// A port of the own pod as destination.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalBackend {
    /// Port on loopback, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// How endpoints are picked.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancing {
    /// The policy inside one backend entry; `weight` splits between entries. Absent: `RoundRobin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<LoadBalancingPolicy>,
}

/// Load balancing policies.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum LoadBalancingPolicy {
    RoundRobin,
    LeastConnections,
    Random,
    SourceHash,
}

/// Active checks: exactly one of `http` and `tcp`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.http) != has(self.tcp)").message("exactly one of http and tcp must be set"))]
#[x_kube(validation = Rule::new("!has(self.timeoutSeconds) || !has(self.intervalSeconds) || self.timeoutSeconds <= self.intervalSeconds").message("timeoutSeconds must not be greater than intervalSeconds"))]
pub struct HealthCheck {
    /// A GET that has to be answered by a status of 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// A connection that has to be accepted. Some servers take it amiss (MySQL and MariaDB block such clients).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// Time between checks, 1 to 3600 seconds. Absent: 5, or `timeoutSeconds` if that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub interval_seconds: Option<u32>,
    /// Longest time for one check, 1 to 3600 seconds. Absent: 2, or `intervalSeconds` if that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: Option<u32>,
    /// Failures in a row that make an endpoint unhealthy, 1 to 100; the first check of all decides at once. Absent: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: Option<u32>,
    /// Successes in a row that make it healthy again, 1 to 100. Absent: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub healthy_threshold: Option<u32>,
}

/// A check over HTTP.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// Port of the check, 1 to 65535. Absent: the backend's own; required on UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Path with its query, such as `/primary`. Absent: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), pattern(r"^/[!-~]*$"))]
    pub path: Option<String>,
}

/// A check by a connection.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpCheck {
    /// Port of the check, 1 to 65535. Absent: the backend's own; required on UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// Passive health: an endpoint that fails connections is put aside for a while.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outlier {
    /// Failed connects in a row that put an endpoint aside, 1 to 1000. Absent: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub consecutive_failures: Option<u32>,
    /// For how long, in seconds, 1 to 3600. Absent: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub eject_seconds: Option<u32>,
}
