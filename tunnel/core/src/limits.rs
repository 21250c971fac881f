//! The bounds of one session.

use std::time::Duration;

/// The credit that the opener of a stream has before the answer, and the smallest window.
pub(crate) const EARLY_CREDIT: u64 = 16 * 1024;
/// The window of a new stream while memory is plenty.
pub(crate) const FIRST_WINDOW: u64 = 64 * 1024;
/// The cost of a waiting datagram beside its bytes, so that empty datagrams are bounded, too.
pub(crate) const DATAGRAM_COST: usize = 64;
/// Most bytes of datagrams that wait for the reader of one flow.
pub(crate) const FLOW_BYTES: usize = 128 * 1024;
/// Most bytes of datagrams that wait for the carrier.
pub(crate) const LANE_BYTES: usize = 256 * 1024;
/// The age at which a waiting datagram is dropped.
pub(crate) const LANE_AGE: Duration = Duration::from_millis(100);
/// The longest delay of an acknowledgement.
pub(crate) const ACK_DELAY: Duration = Duration::from_millis(50);

/// A window of which half is used within this time is too small, however short the round trip is: two programs that
/// share one CPU would otherwise wake each other for every few frames.
pub(crate) const QUICK: Duration = Duration::from_millis(1);

/// Bytes granted to the peer, and bytes kept for resending, in a session with a sidecar. A sidecar has little memory,
/// and an agent has sessions with many sidecars.
const SIDECAR_MEMORY: u64 = 8 * 1024 * 1024;

/// The bounds of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams and flows at once. Streams reach [`Limits::memory`] with their windows first: one takes 16 KiB at least.
    pub streams: usize,
    /// Most unanswered requests of each end.
    pub unanswered: usize,
    /// The largest window of a stream, in bytes.
    pub window: u64,
    /// Bytes granted to the peer, and bytes kept for resending: at most this many of each. Blocks are at most four
    /// times as large as the bytes in them.
    pub memory: u64,
    /// Bytes of datagrams that wait for their readers. Each datagram counts 64 more.
    pub datagrams: usize,
    /// How often a carrier is probed.
    pub heartbeat: Duration,
    /// A carrier that is silent for this long is lost.
    pub dead_after: Duration,
    /// Streams that have no carrier for this long are given up.
    pub grace: Duration,
}

impl Limits {
    /// These bounds for a session with a sidecar, at either end.
    #[must_use]
    pub fn with_sidecar(self) -> Self {
        Self { memory: self.memory.min(SIDECAR_MEMORY), window: self.window.min(SIDECAR_MEMORY), ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 4096,
            unanswered: 256,
            window: 4 * 1024 * 1024,
            // Four readers with the largest window, and a fifth, leave as much free of its half as they have.
            memory: 64 * 1024 * 1024,
            datagrams: 4 * 1024 * 1024,
            heartbeat: Duration::from_secs(5),
            dead_after: Duration::from_secs(15),
            grace: Duration::from_secs(120),
        }
    }
}
