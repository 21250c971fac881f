//! End reasons of sessions.

use proxy_api::{AcceptHeader, Listener, OnLimit};

use crate::core::{backends::absence, limits::limiter::Refusal};

impl From<Refusal> for EndReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Connections => Self::ConnectionLimit,
            Refusal::Source => Self::SourceLimit,
            Refusal::Rate => Self::RateLimit,
            Refusal::QueueFull => Self::QueueFull,
            Refusal::Tenant => Self::TenantLimit,
        }
    }
}

/// Why a session ended, as shown in the access log and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndReason {
    /// Both sides finished.
    Finished,
    /// The client reset the connection.
    ClientReset,
    /// The backend reset the connection, or the system closed the socket to it.
    BackendReset,
    /// No data for `idleSeconds`.
    Idle,
    /// No data for `halfCloseSeconds` after one side finished, while the other had not finished sending.
    HalfClosed,
    /// No data for `idleSeconds` or `halfCloseSeconds`, while bytes waited for a peer that does not read.
    Stalled,
    /// No datagram on a UDP flow for `udpIdleSeconds`, or for two seconds at the end of the process.
    FlowIdle,
    /// No endpoint accepted a connection.
    NoBackend,
    /// No instance of the agent that the session needs connected in time.
    NoInstance,
    /// The client left during the connect phase.
    ClientLeft,
    /// The session's backend or listener was removed or changed, and `onUpdate` ended the session.
    Updated,
    /// The endpoint became unhealthy, and `onUnhealthy` is Close.
    BackendUnhealthy,
    /// The deadline of a drain passed.
    Drained,
    /// An idle UDP flow was evicted to make room for another flow or a connection.
    Evicted,
    /// `access` denies the client.
    AccessDenied,
    /// The client is a proxy of the same fleet: the connection has come back to the fleet.
    Loop,
    /// A PROXY header is required, and the peer is not in `trustedCIDRs`.
    UntrustedPeer,
    /// The PROXY header is missing or invalid.
    BadHeader,
    /// The PROXY header or server name did not arrive within `handshakeSeconds`.
    HandshakeTimeout,
    /// Too many clients had not sent their PROXY header yet, and this one had waited longest.
    HandshakeLimit,
    /// The client closed without sending a byte although it should speak first, as health checks do.
    Probe,
    /// `maxConnections` is reached and `onLimit` is Reject.
    ConnectionLimit,
    /// `maxConnectionsPerSource` is reached.
    SourceLimit,
    /// `newConnectionsPerSecond` is reached.
    RateLimit,
    /// `maxQueued` connections are already waiting, or the limit of sessions waits for an instance of an agent.
    QueueFull,
    /// The connection waited for `queueSeconds`.
    QueueTimeout,
    /// The share of the namespace is used up: `maxConnections` of its tenant, or the proxy's default.
    TenantLimit,
    /// The source of the client has as many sessions of the process as it may for what is free: it leaves that to others.
    SourceShare,
    /// Memory was short, and of the sessions of the source that held most of it, this one held most.
    Shortage,
    /// The session reached `maxSessionSeconds`.
    MaxSession,
    /// An internal error of the proxy.
    Internal,
}

impl EndReason {
    /// Every reason, so that metrics can start at zero.
    pub const ALL: [Self; 31] = [
        Self::Finished,
        Self::ClientReset,
        Self::BackendReset,
        Self::Idle,
        Self::HalfClosed,
        Self::Stalled,
        Self::FlowIdle,
        Self::NoBackend,
        Self::NoInstance,
        Self::ClientLeft,
        Self::Updated,
        Self::BackendUnhealthy,
        Self::Drained,
        Self::Evicted,
        Self::AccessDenied,
        Self::Loop,
        Self::UntrustedPeer,
        Self::BadHeader,
        Self::HandshakeTimeout,
        Self::HandshakeLimit,
        Self::Probe,
        Self::ConnectionLimit,
        Self::SourceLimit,
        Self::RateLimit,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::TenantLimit,
        Self::SourceShare,
        Self::Shortage,
        Self::MaxSession,
        Self::Internal,
    ];

    /// Name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "Finished",
            Self::ClientReset => "ClientReset",
            Self::BackendReset => "BackendReset",
            Self::Idle => "Idle",
            Self::HalfClosed => "HalfClosed",
            Self::Stalled => "Stalled",
            Self::FlowIdle => "FlowIdle",
            Self::NoBackend => "NoBackend",
            Self::NoInstance => "NoInstance",
            Self::ClientLeft => "ClientLeft",
            Self::Updated => "Updated",
            Self::BackendUnhealthy => "BackendUnhealthy",
            Self::Drained => "Drained",
            Self::Evicted => "Evicted",
            Self::AccessDenied => "AccessDenied",
            Self::Loop => "Loop",
            Self::UntrustedPeer => "UntrustedPeer",
            Self::BadHeader => "BadHeader",
            Self::HandshakeTimeout => "HandshakeTimeout",
            Self::HandshakeLimit => "HandshakeLimit",
            Self::Probe => "Probe",
            Self::ConnectionLimit => "ConnectionLimit",
            Self::SourceLimit => "SourceLimit",
            Self::RateLimit => "RateLimit",
            Self::QueueFull => "QueueFull",
            Self::QueueTimeout => "QueueTimeout",
            Self::TenantLimit => "TenantLimit",
            Self::SourceShare => "SourceShare",
            Self::Shortage => "Shortage",
            Self::MaxSession => "MaxSession",
            Self::Internal => "Internal",
        }
    }

    /// Position in [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|reason| *reason == self).unwrap_or(0)
    }

    /// Whether sessions of a listener with this spec can end for this reason; series of other reasons are omitted.
    #[must_use]
    pub fn is_possible(self, listener: &Listener) -> bool {
        let has_header = listener.proxy_protocol.as_ref().is_some_and(|it| it.accept != AcceptHeader::Disabled);
        let limits = listener.limits.as_deref();
        let queues = limits.is_some_and(|it| it.on_limit == OnLimit::Queue);
        match self {
            Self::AccessDenied => listener.access.is_some(),
            Self::Loop => listener.destinations.refuse_local,
            Self::UntrustedPeer | Self::BadHeader | Self::HandshakeTimeout | Self::HandshakeLimit | Self::Probe => {
                has_header
            }
            Self::ConnectionLimit => limits.is_some_and(|it| it.max_connections.is_some()),
            Self::NoInstance => absence::may_wait(listener),
            Self::QueueFull => queues || absence::may_wait(listener),
            Self::QueueTimeout => queues,
            Self::SourceLimit => limits.is_some_and(|it| it.max_connections_per_source.is_some()),
            Self::RateLimit => limits.is_some_and(|it| it.new_connections_per_second.is_some()),
            Self::TenantLimit => listener.tenant_limits.is_some(),
            Self::MaxSession => listener.timeouts.max_session_seconds.is_some(),
            _ => true,
        }
    }

    /// Whether the session was refused before it could use a backend: by `access`, by a limit, or for its first bytes.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::AccessDenied
                | Self::Loop
                | Self::UntrustedPeer
                | Self::BadHeader
                | Self::HandshakeTimeout
                | Self::HandshakeLimit
                | Self::ConnectionLimit
                | Self::SourceLimit
                | Self::RateLimit
                | Self::QueueFull
                | Self::QueueTimeout
                | Self::TenantLimit
                | Self::SourceShare
        )
    }

    /// How a session that was silent for too long ends. The end is clean only if it cuts no data.
    #[must_use]
    pub fn of_silence(half_closed: bool, in_flight: bool) -> Self {
        match (in_flight, half_closed) {
            (true, _) => Self::Stalled,
            (false, true) => Self::HalfClosed,
            (false, false) => Self::Idle,
        }
    }

    /// Whether the connections end by FIN, as after both sides finished or on idle timeout. Other ends are resets, so
    /// that a truncated answer never looks complete.
    #[must_use]
    pub fn is_clean(self) -> bool {
        matches!(self, Self::Finished | Self::Idle | Self::Probe)
    }
}

/// When to close session number `at` of `count` in a drain, in milliseconds from its start. Closes are spread evenly,
/// so that clients do not all reconnect at once.
#[must_use]
pub fn spread(at: usize, count: usize, drain_millis: u64) -> u64 {
    let (at, count) = (at as u64 + 1, count.max(1) as u64);
    drain_millis.saturating_mul(at) / count
}
