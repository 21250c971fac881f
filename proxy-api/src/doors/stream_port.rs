//! The operator's port for the streams of proxies. A test of reconnects after the loss of a leader uses its defaults.

use super::{Bounds, Evict, Rate, Rates};

/// The part of all new connections per second that one source may open: a quarter.
const SOURCE_SHARE: u32 = 4;
/// Length of a burst of new connections, in seconds at the full rate.
const BURST: u32 = 2;

/// The operator's settings of the port for streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPort {
    /// Most connections of proxies that have not authenticated.
    pub strangers: usize,
    /// Most of these from one source.
    pub per_source: usize,
    /// Most proxies that are connected.
    pub proxies: usize,
    /// Most new connections per second.
    pub per_second: u32,
}

impl StreamPort {
    /// The defaults of the operator.
    pub const DEFAULT: Self = Self { strangers: 512, per_source: 64, proxies: 5000, per_second: 200 };

    /// The bounds of the port. A proxy that waits for its admission is never evicted: otherwise no proxy would be admitted
    /// in a storm of reconnects.
    #[must_use]
    pub fn bounds(self) -> Bounds {
        let rate = |times: u32| Rate::per_second(times, times.saturating_mul(BURST));
        let source = rate(self.per_second.div_ceil(SOURCE_SHARE));
        Bounds {
            strangers: self.strangers,
            per_source: self.per_source,
            known: self.proxies,
            evict: Evict::Silent,
            rates: Some(Rates { all: rate(self.per_second), source, evenly: true }),
        }
    }
}
