//! The sources that a door remembers: what each one holds and has used, and which of them are known.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use super::Bucket;

/// How long the source of a peer that has authenticated counts as known, from the end of its last connection.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// Number of sources below which no sweep looks for sources to forget.
const FEW: usize = 64;
/// Time after which a sweep is due however few sources have come since the last one.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Number of sources from which newcomers share one entry. Known sources always have their own.
const MOST: usize = 16_384;
/// The source that newcomers beyond [`MOST`] count as; no peer has this address.
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// One source.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Source {
    /// Places of strangers.
    pub(super) places: usize,
    pub(super) bucket: Bucket,
    /// What it has used of its fair share of the rate of all.
    pub(super) fair: Bucket,
    /// Until when it counts as known; zero for a source of which no peer has authenticated lately.
    pub(super) known_until: Duration,
}

impl Source {
    /// Whether nothing has to be remembered of it.
    fn is_idle(&self, now: Duration) -> bool {
        self.places == 0 && self.bucket.is_full(now) && self.fair.is_full(now) && self.known_until <= now
    }
}

/// The sources of one door.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    all: BTreeMap<IpAddr, Source>,
    /// Number of sources that are known, or were when the last sweep looked.
    known: usize,
    /// Number of sources at which the next sweep is due.
    sweep_at: usize,
    /// When the next sweep is due.
    sweep_after: Duration,
}

impl Default for Sources {
    fn default() -> Self {
        Self { all: BTreeMap::new(), known: 0, sweep_at: FEW, sweep_after: SWEEP_EVERY }
    }
}

impl Sources {
    /// The source that a newcomer of this source counts as: its own, or the one that all share for which there is no
    /// room.
    pub(super) fn counted_as(&self, source: IpAddr) -> IpAddr {
        if self.all.len() < MOST || self.all.contains_key(&source) { source } else { OTHERS }
    }

    /// What is remembered of a source.
    pub(super) fn get(&self, source: IpAddr) -> Source {
        self.all.get(&source).copied().unwrap_or_default()
    }

    /// The entry of a source, to be changed.
    pub(super) fn entry(&mut self, source: IpAddr) -> &mut Source {
        self.all.entry(source).or_default()
    }

    /// A place of this source is free again. Without rates there is nothing to remember of a source without places.
    pub(super) fn leave(&mut self, source: IpAddr, has_rates: bool) {
        let Some(entry) = self.all.get_mut(&source) else { return };
        entry.places = entry.places.saturating_sub(1);
        if entry.places == 0 && !has_rates {
            self.all.remove(&source);
        }
    }

    /// A peer of this source has authenticated, or one that had leaves. No more than `most` sources are known.
    pub(super) fn recognise(&mut self, source: IpAddr, most: usize, now: Duration) {
        if self.get(source).known_until.is_zero() {
            if self.known >= most {
                self.forget_known(now);
            }
            if self.known >= most {
                return;
            }
            self.known += 1;
        }
        self.entry(source).known_until = now.saturating_add(KNOWN_FOR);
    }

    /// Number of sources that are remembered.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Number of sources that are remembered and not known.
    pub(super) fn strangers(&self) -> usize {
        self.all.len().saturating_sub(self.known)
    }

    /// Forgets sources without places whose buckets are full and that are not known. Either the number of sources has
    /// doubled since the last sweep, or time has passed, so the amortised cost for a newcomer is small.
    pub(super) fn sweep(&mut self, now: Duration) {
        if self.all.len() < FEW || self.all.len() < self.sweep_at && now < self.sweep_after {
            return;
        }
        self.all.retain(|_, source| !source.is_idle(now));
        self.forget_known(now);
        self.sweep_at = FEW.max(2 * self.all.len());
        self.sweep_after = now.saturating_add(SWEEP_EVERY);
    }

    /// Sources that were known for long enough are strangers again.
    fn forget_known(&mut self, now: Duration) {
        self.known = 0;
        for source in self.all.values_mut() {
            if source.known_until > now {
                self.known += 1;
            } else {
                source.known_until = Duration::ZERO;
            }
        }
    }
}
