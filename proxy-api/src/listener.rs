//! One listener, fully resolved: every default is filled in, so the proxy decides nothing.

use std::{fmt, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{AcceptHeader, Access, Destinations, Durable, HealthCheck, Limits, ProxyProtocol, TenantLimits, Transport};

/// Hash of a listener's compiled spec. Equal revisions mean equal listeners; endpoints are not included. Clones share
/// the text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(#[serde(deserialize_with = "crate::bounded::revision")] pub Arc<str>);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Addresses to bind, resolved by the proxy on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Bind {
    /// 127.0.0.1, and `::1` where present.
    Loopback,
    /// `[::]` for both families, else 0.0.0.0.
    All,
}

impl Bind {
    fn address(self) -> &'static str {
        match self {
            Self::Loopback => "127.0.0.1",
            Self::All => "*",
        }
    }
}

/// A socket, separate from the listener it serves: it can pass from one listener to another without closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SocketKey {
    /// TCP or UDP.
    pub transport: Transport,
    /// Loopback or All.
    pub bind: Bind,
    /// Port, 1 to 65535.
    pub port: u16,
}

impl fmt::Display for SocketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.bind.address(), self.port, self.transport)
    }
}

/// The desired state of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Hash of all other fields.
    pub revision: Revision,
    /// Socket to listen on.
    pub socket: SocketKey,
    /// Last port of a range that starts at `socket.port`; `None`: a single port. A session on the n-th port of the
    /// range goes to the n-th port counted from the endpoint's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
    /// Server names (`db.example.com`, `*.example.com`), sorted, that route TLS sessions to this listener; other
    /// listeners may use other names on the same port. Empty: every connection is routed to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Destinations of sessions. Empty: every session is refused.
    pub backends: Vec<Backend>,
    /// How an endpoint is picked for a new session.
    pub policy: Policy,
    /// Active health checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<Box<HealthCheck>>,
    /// Passive health checks.
    pub outlier: Outlier,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Retries of the connect phase.
    pub retry: Retry,
    /// What happens to live sessions on a change.
    pub sessions: Sessions,
    /// Access log settings.
    pub access_log: AccessLog,
    /// Resolved addresses that may be connected to.
    pub destinations: Destinations,
    /// Limits of the forward, the same in all its listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Box<Limits>>,
    /// Client addresses that are admitted; `None`: everyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Box<Access>>,
    /// PROXY protocol headers; `None`: neither read nor sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<Box<ProxyProtocol>>,
    /// Limits that all listeners of the origin's namespace share; `None`: only the proxy's own limits apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_limits: Option<Box<TenantLimits>>,
    /// How messages are stored and sent on; `None`: sessions are forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<Box<Durable>>,
}

impl Listener {
    /// Number of ports after the first.
    #[must_use]
    pub fn further_ports(&self) -> u16 {
        self.end_port.map_or(0, |end| end.saturating_sub(self.socket.port))
    }

    /// Human-readable address: `127.0.0.1:30000-30019/TCP`.
    #[must_use]
    pub fn place(&self) -> String {
        let SocketKey { transport, bind, port } = self.socket;
        match self.end_port {
            Some(end) => format!("{}:{port}-{end}/{transport}", bind.address()),
            None => self.socket.to_string(),
        }
    }

    /// One socket per port.
    pub fn sockets(&self) -> impl Iterator<Item = SocketKey> + use<> {
        let socket = self.socket;
        (0..=self.further_ports()).map(move |offset| SocketKey { port: socket.port.saturating_add(offset), ..socket })
    }

    /// Transport of the connections to backends.
    #[must_use]
    pub fn transport_out(&self) -> Transport {
        self.durable.as_ref().map_or(self.socket.transport, |durable| durable.send.transport())
    }

    /// How PROXY headers are accepted, and the trusted peers; `None` if headers are not read.
    #[must_use]
    pub fn header(&self) -> Option<(AcceptHeader, &[IpNet])> {
        let protocol = self.proxy_protocol.as_deref().filter(|it| it.accept != AcceptHeader::Disabled)?;
        Some((protocol.accept, &protocol.trusted))
    }

    /// The port to which active checks of a backend's endpoints connect; `None`: no checks, or the endpoint's own port.
    #[must_use]
    pub fn checked_port(&self, backend: &Backend) -> Option<u16> {
        let check = self.health_check.as_deref()?;
        backend.check_port.or(check.port)
    }

    /// Whether both listeners can share a port: each has hostnames, none in common, and their PROXY header settings
    /// match.
    #[must_use]
    pub fn shares_with(&self, other: &Self) -> bool {
        !self.hostnames.is_empty()
            && !other.hostnames.is_empty()
            && !self.hostnames.iter().any(|name| other.hostnames.contains(name))
            && self.header() == other.header()
    }

    /// Sets `revision` to the hash of all other fields.
    ///
    /// The hash is the first 16 hex digits of SHA-256 over the JSON form in declaration order. It is stable across
    /// platforms and releases as long as the type is.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.revision = Revision::default();
        let json = serde_json::to_vec(&self).unwrap_or_default();
        let digest = Sha256::digest(&json);
        let first = digest.iter().take(8).fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte));
        self.revision = Revision(format!("{first:016x}").into());
        self
    }
}

/// One entry of a listener's destinations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backend {
    /// Identity of the entry in sessions, metrics and logs: `svc/shop/pg:5432`, `addr/10.0.0.1:53`, `local:8080`. The
    /// weight is not part of it.
    pub id: String,
    /// Share of new sessions; 0 means no new sessions.
    pub weight: u32,
    /// Priority: the backend is used only while no backend with a lower number has a healthy endpoint.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: u32,
    /// Port to check at the endpoints of this entry; `None`: that of the listener's check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_port: Option<u16>,
    /// How endpoints are found.
    pub target: Target,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How the endpoints of a backend are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Target {
    /// The endpoint set with this name in the configuration.
    Endpoints(String),
    /// The addresses of a host, kept current by DNS.
    Address {
        /// IP address or DNS name.
        host: String,
        /// Port, 1 to 65535.
        port: u16,
    },
    /// A target behind an agent; the endpoints are the connected instances of the agent.
    Tunnel {
        /// Uid of the agent, a key of the configuration's agents.
        agent: String,
        /// IP address, or a name that the agent resolves.
        host: String,
        /// Port, 1 to 65535.
        port: u16,
    },
}

/// How an endpoint is picked among the backends of one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// Backends in turn by weight, and the endpoints of each in turn.
    RoundRobin,
    /// The endpoint with the fewest live sessions relative to its share of its backend's weight.
    LeastConnections,
    /// A backend at random by weight, and any of its endpoints.
    Random,
    /// By client address: the same client gets the same endpoint.
    SourceHash,
}

/// Passive health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outlier {
    /// Consecutive connect failures that eject an endpoint.
    pub consecutive_failures: u32,
    /// How long the endpoint stays ejected, in seconds.
    pub eject_seconds: u32,
}

/// Time limits, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeouts {
    /// Timeout of one connect attempt.
    pub connect_seconds: u32,
    /// Timeout of a TCP session without data.
    pub idle_seconds: u32,
    /// Timeout of a TCP session without data after one side has finished.
    pub half_close_seconds: u32,
    /// Timeout of a UDP flow without a datagram.
    pub udp_idle_seconds: u32,
    /// Idle time before TCP keepalive probes.
    pub keepalive_seconds: u32,
    /// Timeout of the data that a client must send before its session starts: PROXY header and server name. Set only if
    /// either is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_seconds: Option<u32>,
    /// Total lifetime of a session; `None`: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_session_seconds: Option<u32>,
}

/// Retries of the connect phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// Attempts in total.
    pub attempts: u32,
    /// First pause, in milliseconds; doubled after each attempt.
    pub initial_backoff_millis: u32,
    /// Longest pause, in milliseconds.
    pub max_backoff_millis: u32,
}

/// What happens to live sessions on a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sessions {
    /// What happens when a configuration change concerns sessions.
    pub on_update: OnUpdate,
    /// What happens when the endpoint of sessions is ejected.
    pub on_unhealthy: OnUnhealthy,
    /// Longest drain, in seconds.
    pub drain_seconds: u32,
}

/// What happens to sessions that a change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnUpdate {
    /// The sessions stay until they end.
    Keep,
    /// The sessions are closed within the drain time, spread over it.
    Drain,
    /// The sessions are reset at once.
    Close,
}

/// What happens to sessions when their endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnUnhealthy {
    /// The sessions stay.
    Keep,
    /// The sessions are reset.
    Close,
}

/// Access log of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessLog {
    /// Events to record.
    pub mode: AccessLogMode,
    /// Seconds between records of a live session; 0 disables interim records.
    pub interval_seconds: u32,
}

/// Access log modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessLogMode {
    /// No records.
    Disabled,
    /// One record when a session closes.
    Close,
    /// One record when a session opens and one when it closes.
    OpenAndClose,
}
