//! Listeners and their backends.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    check::HealthCheck,
    durable::Durable,
    guard::ProxyProtocol,
    scalars::{Hostname, Protocol},
};

/// A port, or a range of ports, to listen on, and the backends that its traffic is forwarded to.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.protocol == 'TLS') == has(self.tls)").message("tls must be set if, and only if, protocol is TLS"))]
#[x_kube(validation = Rule::new("!has(self.endPort) || (has(self.port) && self.port <= self.endPort)").message("endPort needs port, and must not be less than port"))]
#[x_kube(validation = Rule::new("!has(self.endPort) || !has(self.port) || self.backends.all(b, (has(b.service) ? b.service.port : has(b.address) ? b.address.port : has(b.local) ? b.local.port : 0) + self.endPort - self.port <= 65535)").message("endPort leads the ports of a backend beyond 65535"))]
#[x_kube(validation = Rule::new("has(self.healthCheck) || self.backends.all(b, !has(b.healthCheckPort))").message("healthCheckPort of a backend needs healthCheck"))]
#[x_kube(validation = Rule::new("!has(self.endPort) || self.backends.all(b, !has(b.tunnel))").message("endPort is not for a listener with a tunnel backend: give each port a listener of its own"))]
#[x_kube(validation = Rule::new("!has(self.durable) || self.protocol != 'TLS'").message("durable is not for TLS listeners: TLS is not decrypted, so its messages cannot be read"))]
#[x_kube(validation = Rule::new("!has(self.durable) || !has(self.durable.framing) || (self.durable.framing == 'Datagram') == (self.protocol == 'UDP')").message("durable.framing must be Datagram if, and only if, protocol is UDP"))]
#[x_kube(validation = Rule::new("!has(self.durable) || !has(self.durable.whenFull) || self.durable.whenFull != 'Block' || self.protocol != 'UDP'").message("durable.whenFull must not be Block with protocol UDP: senders of datagrams do not wait"))]
#[x_kube(validation = Rule::new("!has(self.durable) || !has(self.endPort)").message("endPort is not for a durable listener: give each port a listener of its own"))]
#[x_kube(validation = Rule::new("!has(self.durable) || !has(self.proxyProtocol) || ((!has(self.proxyProtocol.accept) || self.proxyProtocol.accept == 'Disabled') && (!has(self.proxyProtocol.send) || self.proxyProtocol.send == 'Disabled'))").message("proxyProtocol is not for durable listeners"))]
#[x_kube(validation = Rule::new("!has(self.durable) || !has(self.loadBalancing) || !has(self.loadBalancing.policy) || self.loadBalancing.policy != 'SourceHash'").message("loadBalancing.policy must not be SourceHash in a durable listener: one connection sends the messages of all clients"))]
pub struct Listener {
    /// Name of the listener: a DNS-1123 label, unique in this object. Status, metrics and logs use it.
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// TCP, UDP or TLS. TLS is TCP that is routed by the server name (SNI) that the client asks for.
    pub protocol: Protocol,
    /// Port to listen on, 1 to 65535. Absent, on a gateway only: a port is allocated and reported in the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Last port of a range that starts at `port`, 1 to 65535; all listeners of a forward together have at most 1024
    /// ports. The n-th port of the range forwards to the n-th port counted from the backend's port. Absent: one port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<u16>,
    /// Server names of the TLS sessions to forward; TLS is not decrypted. Required with protocol TLS, and not allowed
    /// otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Addresses to listen on. Loopback: 127.0.0.1 and ::1. All: every address of the pod or machine. Absent: Loopback
    /// in a sidecar and on a laptop, All in a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<Bind>,
    /// Destinations of sessions, 1 to 16 entries.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub backends: Vec<Backend>,
    /// How an endpoint is picked for a new session. Absent: `RoundRobin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    /// PROXY protocol headers; not supported on UDP. Absent: headers are neither read nor sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Active health checks of every endpoint of the listener. Absent: no active checks; endpoints to which connections
    /// fail are still ejected (see `outlier`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<Box<HealthCheck>>,
    /// Ejection of endpoints to which connections fail; always on. Absent: ejected for 30 seconds after 5 consecutive
    /// failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier: Option<Outlier>,
    /// Stores messages until they are delivered to a backend. The listener is one-way: messages of clients are appended
    /// to a log, and sent from there to one backend at a time. In a cluster, a log on an emptyDir survives restarts of
    /// the proxy, but not the pod; with `spec.durability` of the gateway, it is on a PersistentVolumeClaim, and
    /// survives the pod, but not the loss of the volume; with `store.jetStream`, it is a stream of NATS servers, and
    /// survives the pods and their nodes. Absent: sessions are forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<Box<Durable>>,
}

impl Listener {
    /// Whether backends are reached by datagrams: a durable listener may send otherwise than it receives.
    #[must_use]
    pub fn sends_datagrams(&self) -> bool {
        self.durable.as_ref().map_or(self.protocol == Protocol::Udp, |durable| durable.send.udp.is_some())
    }
}

/// TLS sessions selected by server name.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Passthrough: TLS is forwarded without decryption. Absent: Passthrough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// Server names, 1 to 16: exact names, or names that start with `*.` for any number of labels. Listeners on one
    /// port, including those of other objects, must have different names; the most specific name wins.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub hostnames: Vec<Hostname>,
}

/// How TLS is handled.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum TlsMode {
    Passthrough,
}

/// Addresses that a listener is bound to.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum Bind {
    Loopback,
    All,
}

/// A destination of sessions: exactly one of `service`, `address`, `local` and `tunnel`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.service), has(self.address), has(self.local), has(self.tunnel)].exists_one(x, x)").message("exactly one of service, address, local and tunnel must be set"))]
pub struct Backend {
    /// A Service; sessions go directly to its ready endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceBackend>,
    /// A host outside the cluster: an IP address, or a DNS name whose addresses are all endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressBackend>,
    /// A port of the sidecar's own pod; on a laptop, of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalBackend>,
    /// A host that a `ForwardAgent` reaches; each connected instance of the agent is an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelBackend>,
    /// Share of sessions relative to the other backends of the same priority, 0 to 1000000, divided equally among the
    /// backend's usable endpoints, regardless of their number. 0: no new sessions. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: Option<u32>,
    /// Priority of the backend, 0 to 100, lower numbers first. The backend is used only while no backend with a lower
    /// number has a healthy endpoint. Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub priority: Option<u32>,
    /// Port to check at the endpoints of this backend, 1 to 65535; needs `healthCheck`. Absent: the port that
    /// `healthCheck` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub health_check_port: Option<u16>,
}

/// A Service as destination.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceBackend {
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Namespace of the Service. A namespace other than the object's own needs a `ReferenceGrant` there. Absent: the
    /// object's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// Port number of the Service, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// A host and a port as destination.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressBackend {
    /// IP address or DNS name, 1 to 253 characters.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("isIP(self) || self.matches('^([a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?[.])*[a-zA-Z]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?[.]?$')").message("must be an IP address or a DNS name"))]
    pub host: String,
    /// Port of the host, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// A port of the sidecar's own pod as destination.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalBackend {
    /// Port on loopback, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// A host and a port that an agent reaches, as destination.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelBackend {
    /// Name of the `ForwardAgent`, in the object's own namespace. Its `targets` must list host and port.
    #[schemars(length(min = 1, max = 52), pattern(r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub agent: String,
    /// IP address, or DNS name that the agent resolves, 1 to 253 characters; 127.0.0.1 is the machine of the agent.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("isIP(self) || self.matches('^([a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?[.])*[a-zA-Z]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?[.]?$')").message("must be an IP address or a DNS name"))]
    pub host: String,
    /// Port of the host, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// How endpoints are picked for new sessions.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancing {
    /// Policy among the backends of one priority, which respects their `weight`. RoundRobin: backends in turn, exactly
    /// by weight, and the endpoints of each in turn. LeastConnections: the endpoint with the fewest live sessions
    /// relative to its share of the weight; among more than 64 endpoints, the better of two at random. Random: a
    /// backend at random by weight, and any of its endpoints. SourceHash: by client address, so that a client stays
    /// with its endpoint while other endpoints are added and removed. Absent: `RoundRobin`.
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

/// Passive health check: an endpoint to which connections fail is ejected for a while.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outlier {
    /// Number of consecutive failed connection attempts that eject an endpoint, 1 to 1000. Absent: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub consecutive_failures: Option<u32>,
    /// Duration of the ejection, 1 to 3600 seconds. Absent: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub eject_seconds: Option<u32>,
}
