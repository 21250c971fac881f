//! What one session may hold.

use std::time::Duration;

/// The credit of an opener before its stream is answered, and the smallest window.
pub(crate) const EARLY_CREDIT: u64 = 16 * 1024;
/// The window of a new stream while memory is plenty.
pub(crate) const FIRST_WINDOW: u64 = 64 * 1024;
/// What a datagram that waits costs beside its bytes, so that empty ones are bounded too.
pub(crate) const DATAGRAM_COST: usize = 64;
/// Datagrams that wait for one flow's reader.
pub(crate) const FLOW_BYTES: usize = 128 * 1024;
/// Datagrams that wait for the carrier.
pub(crate) const LANE_BYTES: usize = 256 * 1024;
/// A datagram that waited for longer is dropped.
pub(crate) const LANE_AGE: Duration = Duration::from_millis(100);
/// A peer hears within this time what was received.
pub(crate) const ACK_DELAY: Duration = Duration::from_millis(50);

/// A window of which half is used within this time is too small, however short a round trip is: two programs that take
/// turns on one CPU would wake each other for every few frames.
pub(crate) const QUICK: Duration = Duration::from_millis(1);

/// Bytes that are promised to the peer, and bytes kept for sending again, in a session with a sidecar. A sidecar has
/// little memory, and an agent has sessions with many.
const SIDECAR_MEMORY: u64 = 4 * 1024 * 1024;

/// The bounds of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams and flows at once.
    pub streams: usize,
    /// Requests that are not answered yet, of each end.
    pub unanswered: usize,
    /// The largest window of a stream, in bytes.
    pub window: u64,
    /// Bytes that are promised to the peer, and bytes kept for sending again: each at most so many. Blocks that hold bytes
    /// are at most four times as large as what is in them.
    pub memory: u64,
    /// Datagrams that wait for their readers, in bytes; each counts 64 more.
    pub datagrams: usize,
    /// How often a carrier is probed.
    pub heartbeat: Duration,
    /// A carrier without a sign of life for so long is lost.
    pub dead_after: Duration,
    /// Streams without a carrier for so long are given up.
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
            memory: 32 * 1024 * 1024,
            datagrams: 4 * 1024 * 1024,
            heartbeat: Duration::from_secs(5),
            dead_after: Duration::from_secs(15),
            grace: Duration::from_secs(120),
        }
    }
}
