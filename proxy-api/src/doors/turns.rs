//! How often each source may ask: a token bucket for each.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{
    Bucket, Rate,
    source::{Network, Source, times_of_source},
};

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
    by_source: Buckets<IpAddr>,
    by_network: Buckets<Network>,
}

impl Turns {
    /// Allows each source this rate.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, by_source: Buckets::default(), by_network: Buckets::default() }
    }

    /// Takes a token of this source. Returns false, and takes nothing, if the source asks too often. Its network has no
    /// bound here: no number of pods may keep out the kubelet of their node, which is in the same /64.
    #[must_use]
    pub fn take(&mut self, source: IpAddr, now: Duration) -> bool {
        let rate = self.rate;
        self.by_source.of(source.to_canonical(), now).is_none_or(|bucket| bucket.take(rate, now))
    }

    /// Takes a token of this source and one of its network, in advance if necessary, and returns the time until they
    /// are available. The network has three times the rate of a source. The caller bounds the number of waiting
    /// requests of a source and of a network.
    #[must_use]
    pub fn wait(&mut self, source: IpAddr, now: Duration) -> Duration {
        let (source, rate) = (Source::of(source), self.rate);
        let next = |bucket: Option<&mut Bucket>, rate| {
            let Some(bucket) = bucket else { return Duration::ZERO };
            let wait = bucket.wait(rate, now);
            bucket.spend(rate, 1, now);
            wait
        };
        let own = next(self.by_source.of(source.address, now), rate);
        let Some(network) = source.network else { return own };
        own.max(next(self.by_network.of(network, now), times_of_source(rate)))
    }

    /// Number of sources that are remembered.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.by_source.all.len()
    }
}

/// The buckets that are not full.
#[derive(Clone, Debug)]
struct Buckets<K> {
    all: BTreeMap<K, Bucket>,
    /// Number of buckets at which the next sweep is due.
    sweep_at: usize,
    /// When the next sweep is due while the table is full.
    sweep_after: Duration,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), sweep_at: FEW, sweep_after: Duration::ZERO }
    }
}

impl<K: Ord> Buckets<K> {
    /// The bucket of this key; `None` if the table is full.
    fn of(&mut self, key: K, now: Duration) -> Option<&mut Bucket> {
        let count = self.all.len();
        if count >= self.sweep_at && (count < MOST || now >= self.sweep_after) {
            self.all.retain(|_, bucket| !bucket.is_full(now));
            self.sweep_at = (2 * self.all.len()).clamp(FEW, MOST);
            self.sweep_after = now.saturating_add(SWEEP_EVERY);
        }
        if self.all.len() >= MOST && !self.all.contains_key(&key) {
            return None;
        }
        Some(self.all.entry(key).or_default())
    }
}
