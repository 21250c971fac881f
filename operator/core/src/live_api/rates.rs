//! Rates of sessions and bytes, as proxies count them.

use proxy_api::{Origin, Work};
use serde::Serialize;

use crate::{
    status::{loads::PodMetric, proxies::Proxies},
    world::proxy_id::ProxyId,
};

/// New sessions and bytes per second, from the counters of a proxy. Sessions that begin and end between two reads of
/// live sessions count, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rates {
    /// New connections and UDP flows per second.
    pub new_per_second: u64,
    /// Bytes per second, both directions together.
    pub bytes_per_second: u64,
}

impl Rates {
    /// The rates in the last report of a proxy, in total or for one forward. `None` if the proxy has not reported its
    /// load, or runs too many forwards to report the load of each.
    #[must_use]
    pub fn of(proxies: &Proxies, proxy: &ProxyId, forward: Option<&Origin>) -> Option<Self> {
        Some(Self {
            new_per_second: proxies.load(proxy, PodMetric::NewPerSecond, forward)?,
            bytes_per_second: proxies.load(proxy, PodMetric::BytesPerSecond, forward)?,
        })
    }

    /// The sum of both, with no number above `highest`.
    pub(super) fn plus(self, other: Self, highest: u64) -> Self {
        Self {
            new_per_second: self.new_per_second.saturating_add(other.new_per_second).min(highest),
            bytes_per_second: self.bytes_per_second.saturating_add(other.bytes_per_second).min(highest),
        }
    }
}

impl From<&Work> for Rates {
    fn from(work: &Work) -> Self {
        Self { new_per_second: work.new_per_second, bytes_per_second: work.bytes_per_second }
    }
}
