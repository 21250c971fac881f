//! What every load has in common.

use std::time::{Duration, Instant};

/// What a stretch of load did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Connections, round trips or datagrams that were completed.
    pub(crate) operations: u64,
    /// Bytes that were moved, if they are what counts.
    pub(crate) bytes: u64,
    /// Operations that failed, or datagrams that were lost.
    pub(crate) lost: u64,
    /// How long operations took, if that is measured.
    pub(crate) latencies: Vec<Duration>,
}

impl Done {
    pub(super) fn complete(&mut self, latency: Duration) {
        self.operations += 1;
        self.latencies.push(latency);
    }
}

/// A load that is put on in stretches. Between two stretches nothing new is sent.
pub(crate) trait Load {
    fn run(&mut self, until: Instant) -> Done;
}
