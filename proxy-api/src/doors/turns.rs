//! How often each source asks: a token bucket for each.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{Bucket, Rate};

/// Number of sources that are remembered. Newcomers beyond them are not bounded: a flood of sources must not keep out one
/// that asks now and then.
const MOST: usize = 16_384;
/// Number of sources below which no sweep looks for sources to forget.
const FEW: usize = 64;
/// Time between two sweeps while as many sources are remembered as there may be.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The rate of each source.
#[derive(Clone, Debug)]
pub struct Turns {
    rate: Rate,
    by_source: BTreeMap<IpAddr, Bucket>,
    /// Number of sources at which the next sweep is due.
    sweep_at: usize,
    /// When the next sweep is due while no further source can be remembered.
    sweep_after: Duration,
}

impl Turns {
    /// Each source may ask at this rate.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, by_source: BTreeMap::new(), sweep_at: FEW, sweep_after: Duration::ZERO }
    }

    /// Takes a token of this source. Returns false, and takes nothing, if the source asks too often.
    #[must_use]
    pub fn take(&mut self, source: IpAddr, now: Duration) -> bool {
        let rate = self.rate;
        self.bucket(source, now).is_none_or(|bucket| bucket.take(rate, now))
    }

    /// Takes a token of this source, or the next one that it gets. Returns the time until then. The caller bounds how many
    /// requests of a source wait.
    #[must_use]
    pub fn wait(&mut self, source: IpAddr, now: Duration) -> Duration {
        let rate = self.rate;
        let Some(bucket) = self.bucket(source, now) else { return Duration::ZERO };
        let wait = bucket.wait(rate, now);
        bucket.spend(rate, 1, now);
        wait
    }

    /// Number of sources that are remembered.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.by_source.len()
    }

    /// The bucket of a source; absent if no further source can be remembered.
    fn bucket(&mut self, source: IpAddr, now: Duration) -> Option<&mut Bucket> {
        let count = self.by_source.len();
        if count >= self.sweep_at && (count < MOST || now >= self.sweep_after) {
            self.by_source.retain(|_, bucket| !bucket.is_full(now));
            self.sweep_at = (2 * self.by_source.len()).clamp(FEW, MOST);
            self.sweep_after = now.saturating_add(SWEEP_EVERY);
        }
        if self.by_source.len() >= MOST && !self.by_source.contains_key(&source) {
            return None;
        }
        Some(self.by_source.entry(source).or_default())
    }
}
