//! How sessions end.

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
    /// Something failed inside the proxy.
    Internal,
}

impl EndReason {
    /// Every reason, for metrics that start at zero.
    pub const ALL: [Self; 13] = [
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
            Self::Internal => "Internal",
        }
    }

    /// Position in [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|reason| *reason == self).unwrap_or(0)
    }

    /// Whether the connections end by FIN: only what ended by itself does, and what was idle. A cut is a reset, so that
    /// a cut-off answer never looks complete.
    #[must_use]
    pub fn is_clean(self) -> bool {
        matches!(self, Self::Finished | Self::Idle)
    }
}

/// When each of `count` sessions of a drain is closed, in milliseconds from its start: spread evenly, so that clients
/// do not all come back at once.
#[must_use]
pub fn spread(at: usize, count: usize, drain_millis: u64) -> u64 {
    let (at, count) = (at as u64 + 1, count.max(1) as u64);
    drain_millis.saturating_mul(at) / count
}
