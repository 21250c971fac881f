//! How sessions end.

use proxy_api::{AcceptHeader, Listener, OnLimit};

use super::limiter::Refusal;

impl From<Refusal> for EndReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Connections => Self::ConnectionLimit,
            Refusal::Source => Self::SourceLimit,
            Refusal::Rate => Self::RateLimit,
            Refusal::QueueFull => Self::QueueFull,
        }
    }
}

/// Why a session ended; the word in the access log and in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndReason {
    /// Both sides finished.
    Finished,
    /// The client reset the connection.
    ClientReset,
    /// The backend reset the connection.
    BackendReset,
    /// No byte for `idleSeconds`, or for `halfCloseSeconds` after one side finished.
    Idle,
    /// The same while bytes were waiting for a peer that does not read.
    Stalled,
    /// A UDP flow without a datagram for `udpIdleSeconds`.
    FlowIdle,
    /// No endpoint could be connected.
    NoBackend,
    /// The client left while an endpoint was being connected.
    ClientLeft,
    /// The session's backend or listener is gone, or changed, and `onUpdate` ended it.
    Updated,
    /// The endpoint became unhealthy and `onUnhealthy` is Close.
    BackendUnhealthy,
    /// The process drained and its deadline passed.
    Drained,
    /// A UDP flow made room for another.
    Evicted,
    /// `access` does not let this client in.
    AccessDenied,
    /// A PROXY header is required and the peer is not among `trustedCIDRs`.
    UntrustedPeer,
    /// The peer sent no PROXY header, or one that says something impossible.
    BadHeader,
    /// What a client has to send first did not come within `handshakeSeconds`.
    HandshakeTimeout,
    /// The client closed without having sent a byte where it should have begun: a health check.
    Probe,
    /// `maxConnections` is reached and `onLimit` is Reject.
    ConnectionLimit,
    /// `maxConnectionsPerSource` is reached.
    SourceLimit,
    /// `newConnectionsPerSecond` is reached.
    RateLimit,
    /// `maxQueued` connections wait already.
    QueueFull,
    /// It waited for `queueSeconds`.
    QueueTimeout,
    /// It lived for `maxSessionSeconds`.
    MaxSession,
    /// Something failed inside the proxy.
    Internal,
}

impl EndReason {
    /// Every reason, for metrics that start at zero.
    pub const ALL: [Self; 24] = [
        Self::Finished,
        Self::ClientReset,
        Self::BackendReset,
        Self::Idle,
        Self::Stalled,
        Self::FlowIdle,
        Self::NoBackend,
        Self::ClientLeft,
        Self::Updated,
        Self::BackendUnhealthy,
        Self::Drained,
        Self::Evicted,
        Self::AccessDenied,
        Self::UntrustedPeer,
        Self::BadHeader,
        Self::HandshakeTimeout,
        Self::Probe,
        Self::ConnectionLimit,
        Self::SourceLimit,
        Self::RateLimit,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::MaxSession,
        Self::Internal,
    ];

    /// The word in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "Finished",
            Self::ClientReset => "ClientReset",
            Self::BackendReset => "BackendReset",
            Self::Idle => "Idle",
            Self::Stalled => "Stalled",
            Self::FlowIdle => "FlowIdle",
            Self::NoBackend => "NoBackend",
            Self::ClientLeft => "ClientLeft",
            Self::Updated => "Updated",
            Self::BackendUnhealthy => "BackendUnhealthy",
            Self::Drained => "Drained",
            Self::Evicted => "Evicted",
            Self::AccessDenied => "AccessDenied",
            Self::UntrustedPeer => "UntrustedPeer",
            Self::BadHeader => "BadHeader",
            Self::HandshakeTimeout => "HandshakeTimeout",
            Self::Probe => "Probe",
            Self::ConnectionLimit => "ConnectionLimit",
            Self::SourceLimit => "SourceLimit",
            Self::RateLimit => "RateLimit",
            Self::QueueFull => "QueueFull",
            Self::QueueTimeout => "QueueTimeout",
            Self::MaxSession => "MaxSession",
            Self::Internal => "Internal",
        }
    }

    /// Position in [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|reason| *reason == self).unwrap_or(0)
    }

    /// Whether a listener of this kind can give it; series of others would say nothing.
    #[must_use]
    pub fn is_possible(self, listener: &Listener) -> bool {
        let has_header = listener.proxy_protocol.as_ref().is_some_and(|it| it.accept != AcceptHeader::Disabled);
        let limits = listener.limits.as_deref();
        match self {
            Self::AccessDenied => listener.access.is_some(),
            Self::UntrustedPeer | Self::BadHeader | Self::HandshakeTimeout | Self::Probe => has_header,
            Self::ConnectionLimit => limits.is_some_and(|it| it.max_connections.is_some()),
            Self::QueueFull | Self::QueueTimeout => limits.is_some_and(|it| it.on_limit == OnLimit::Queue),
            Self::SourceLimit => limits.is_some_and(|it| it.max_connections_per_source.is_some()),
            Self::RateLimit => limits.is_some_and(|it| it.new_connections_per_second.is_some()),
            Self::MaxSession => listener.timeouts.max_session_seconds.is_some(),
            _ => true,
        }
    }

    /// Whether the connections end by FIN: only what ended by itself does, and what was idle. A cut is a reset, so that
    /// a cut-off answer never looks complete.
    #[must_use]
    pub fn is_clean(self) -> bool {
        matches!(self, Self::Finished | Self::Idle | Self::Probe)
    }
}

/// When each of `count` sessions of a drain is closed, in milliseconds from its start: spread evenly, so that clients
/// do not all come back at once.
#[must_use]
pub fn spread(at: usize, count: usize, drain_millis: u64) -> u64 {
    let (at, count) = (at as u64 + 1, count.max(1) as u64);
    drain_millis.saturating_mul(at) / count
}
