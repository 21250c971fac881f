//! One listener, fully spelled out: nothing is absent, nothing is left for the proxy to decide.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{AcceptHeader, Access, HealthCheck, Limits, ProxyProtocol};

/// Names a listener for ever: `namespace/forward/listener`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ListenerId {
    /// Namespace of the forward.
    pub namespace: String,
    /// Name of the forward.
    pub forward: String,
    /// Name of the listener in it.
    pub listener: String,
}

/// A text that is not `namespace/forward/listener`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("listener id '{0}' is not of the form namespace/forward/listener")]
pub struct ListenerIdError(String);

impl FromStr for ListenerId {
    type Err = ListenerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(namespace), Some(forward), Some(listener), None)
                if text.len() <= 512 && !namespace.is_empty() && !forward.is_empty() && !listener.is_empty() =>
            {
                Ok(Self { namespace: namespace.into(), forward: forward.into(), listener: listener.into() })
            }
            _ => Err(ListenerIdError(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for ListenerId {
    type Error = ListenerIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ListenerId> for String {
    fn from(id: ListenerId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.forward, self.listener)
    }
}

/// Hash of what a listener's own spec compiles to. Equal revisions mean equal listeners; endpoints are not part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub String);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Transport of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// Byte streams.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// Addresses of a socket, as the proxy finds them on its machine.
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

/// A socket, apart from the listener it serves: it may pass from one listener to another without being closed.
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

/// A listener as it is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Hash of all that follows.
    pub revision: Revision,
    /// Where it listens.
    pub socket: SocketKey,
    /// The last port of a range that begins at `socket.port`; a session on the n-th port goes to the n-th after that of its
    /// endpoint. `None`: one port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
    /// TLS sessions that ask for one of these names (`db.example.com`, `*.example.com`), in order; other listeners may have
    /// other names on the same port. Empty: all that comes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Where sessions go; empty means that every session is refused.
    pub backends: Vec<Backend>,
    /// How an endpoint is picked inside one backend.
    pub policy: Policy,
    /// Active checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<Box<HealthCheck>>,
    /// Passive health.
    pub outlier: Outlier,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Tries in the connect phase.
    pub retry: Retry,
    /// Live sessions under change.
    pub sessions: Sessions,
    /// What is logged.
    pub access_log: AccessLog,
    /// Which resolved addresses may be connected to.
    pub destinations: Destinations,
    /// Limits of the forward; the same in all its listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Box<Limits>>,
    /// Who may come; `None`: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Box<Access>>,
    /// PROXY protocol headers; `None`: neither read nor sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<Box<ProxyProtocol>>,
}

impl Listener {
    /// How many ports follow the first.
    #[must_use]
    pub fn further_ports(&self) -> u16 {
        self.end_port.map_or(0, |end| end.saturating_sub(self.socket.port))
    }

    /// Where it listens, for a person: `127.0.0.1:30000-30019/TCP`.
    #[must_use]
    pub fn place(&self) -> String {
        let SocketKey { transport, bind, port } = self.socket;
        match self.end_port {
            Some(end) => format!("{}:{port}-{end}/{transport}", bind.address()),
            None => self.socket.to_string(),
        }
    }

    /// The socket of each of its ports.
    pub fn sockets(&self) -> impl Iterator<Item = SocketKey> + use<> {
        let socket = self.socket;
        (0..=self.further_ports()).map(move |offset| SocketKey { port: socket.port.saturating_add(offset), ..socket })
    }

    /// Whose PROXY headers are read.
    #[must_use]
    pub fn header(&self) -> Option<(AcceptHeader, &[IpNet])> {
        let protocol = self.proxy_protocol.as_deref().filter(|it| it.accept != AcceptHeader::Disabled)?;
        Some((protocol.accept, &protocol.trusted))
    }

    /// Whether both may listen on one port: by names, none of which both have, and with the same PROXY headers before them.
    #[must_use]
    pub fn shares_with(&self, other: &Self) -> bool {
        !self.hostnames.is_empty()
            && !other.hostnames.is_empty()
            && !self.hostnames.iter().any(|name| other.hostnames.contains(name))
            && self.header() == other.header()
    }

    /// Sets `revision` to the hash of everything else.
    ///
    /// SHA-256 of the JSON form in declaration order, the first 16 hex digits: stable across platforms and releases
    /// as long as the type is.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.revision = Revision::default();
        let json = serde_json::to_vec(&self).unwrap_or_default();
        let digest = Sha256::digest(&json);
        let first = digest.iter().take(8).fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte));
        self.revision = Revision(format!("{first:016x}"));
        self
    }
}

/// One entry of a listener's destinations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backend {
    /// Identity of the entry, by which sessions, metrics and logs know it: `svc/shop/pg:5432`, `addr/10.0.0.1:53`,
    /// `local:8080`. A weight is no part of it.
    pub id: String,
    /// Share of new sessions; 0: none.
    pub weight: u32,
    /// Used only while no backend of a lower number has a healthy endpoint.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: u32,
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
    /// The endpoint set of this name in the configuration.
    Endpoints(String),
    /// The addresses of a host, kept up to date by DNS.
    Address {
        /// IP address or DNS name.
        host: String,
        /// Port, 1 to 65535.
        port: u16,
    },
}

/// Load balancing policy inside one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// In turn.
    RoundRobin,
    /// The endpoint with the fewest live sessions.
    LeastConnections,
    /// By chance.
    Random,
    /// By the client's address: the same client, the same endpoint.
    SourceHash,
}

/// Passive health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outlier {
    /// Failed connects in a row that put an endpoint aside.
    pub consecutive_failures: u32,
    /// For how many seconds.
    pub eject_seconds: u32,
}

/// Time limits, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeouts {
    /// One connect.
    pub connect_seconds: u32,
    /// A TCP session without a byte.
    pub idle_seconds: u32,
    /// The same once one side has finished.
    pub half_close_seconds: u32,
    /// A UDP flow without a datagram.
    pub udp_idle_seconds: u32,
    /// Before TCP keepalive probes.
    pub keepalive_seconds: u32,
    /// All that a client has to send before its session begins: a PROXY header, a server name. Only with those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_seconds: Option<u32>,
    /// A session in all; `None`: as long as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_session_seconds: Option<u32>,
}

/// Tries in the connect phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// Tries in all.
    pub attempts: u32,
    /// First pause, milliseconds; doubled each time.
    pub initial_backoff_millis: u32,
    /// Longest pause, milliseconds.
    pub max_backoff_millis: u32,
}

/// Live sessions under change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sessions {
    /// When a change concerns them.
    pub on_update: OnUpdate,
    /// When their endpoint is put aside.
    pub on_unhealthy: OnUnhealthy,
    /// Longest drain, seconds.
    pub drain_seconds: u32,
}

/// Treatment of sessions that a change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnUpdate {
    /// They stay until they end.
    Keep,
    /// Closed within the drain time, spread over it.
    Drain,
    /// Reset now.
    Close,
}

/// Treatment of sessions whose endpoint is put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnUnhealthy {
    /// They stay.
    Keep,
    /// Reset.
    Close,
}

/// Access log of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessLog {
    /// Which events.
    pub mode: AccessLogMode,
    /// Seconds between records of a living session; 0: none in between.
    pub interval_seconds: u32,
}

/// Access log modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessLogMode {
    /// Nothing.
    Disabled,
    /// One record when a session closes.
    Close,
    /// And one when it opens.
    OpenAndClose,
}

/// Which resolved addresses may be connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destinations {
    /// Refuse loopback, link-local and unspecified addresses of `address` targets: set in shared fleets.
    pub refuse_local: bool,
    /// If not empty, `address` targets must resolve into one of these.
    pub cidrs: Vec<IpNet>,
}

impl Destinations {
    /// Why this resolved address of an `address` target may not be used, if so.
    #[must_use]
    pub fn refuses(&self, ip: IpAddr) -> Option<&'static str> {
        let ip = ip.to_canonical();
        if self.refuse_local && is_own_or_link_local(ip) {
            return Some("loopback, link-local and unspecified addresses may not be used from a shared gateway");
        }
        if !self.cidrs.is_empty() && !self.cidrs.iter().any(|net| net.contains(&ip)) {
            return Some("the address is outside the gateway's allowedForwards.addressCIDRs");
        }
        None
    }
}

fn is_own_or_link_local(ip: IpAddr) -> bool {
    ip.is_loopback()
        || ip.is_unspecified()
        || match ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        }
}
