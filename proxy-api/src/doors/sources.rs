//! The sources that a door remembers: the places and tokens of each source and network, and which sources are known.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use super::{
    Bucket,
    source::{Network, Source},
};

/// How long the source of a peer that has authenticated counts as known, from the end of its last connection.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// Number of sources below which no sweep looks for sources to forget.
const FEW: usize = 64;
/// Time after which a sweep is due however few sources have come since the last one.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Number of sources from which newcomers share one entry. Known sources always have their own.
const MOST: usize = 16_384;
/// Number of strangers of one network from which newcomers of it share one entry, so that a host with many addresses
/// leaves room in the table.
const MOST_OF_NETWORK: usize = MOST / 4;
/// The source that newcomers beyond [`MOST`] count towards; no peer has this address.
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// The entry of one source.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// Places of strangers.
    pub(super) places: usize,
    pub(super) bucket: Bucket,
    /// The used part of its fair share of the rate of all.
    pub(super) fair: Bucket,
    /// Until when the source counts as known; zero if no peer of it has authenticated lately.
    pub(super) known_until: Duration,
}

impl Used {
    /// Whether the entry can be forgotten.
    fn is_idle(&self, now: Duration) -> bool {
        self.places == 0 && self.bucket.is_full(now) && self.fair.is_full(now) && self.known_until <= now
    }
}

/// The sums of the sources of one network.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Group {
    /// Places of strangers.
    places: usize,
    /// Remembered sources that are not known.
    pub(super) strangers: usize,
    pub(super) bucket: Bucket,
    /// The used part of its fair share of the rate of all.
    pub(super) fair: Bucket,
}

impl Group {
    /// Whether the entry can be forgotten.
    fn is_idle(&self, now: Duration) -> bool {
        self.places == 0 && self.strangers == 0 && self.bucket.is_full(now) && self.fair.is_full(now)
    }
}

/// The sources of one door.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    all: BTreeMap<IpAddr, Used>,
    networks: BTreeMap<Network, Group>,
    /// Number of sources that are known, or were when the last sweep looked.
    known: usize,
    /// Number of the unknown sources that are in a network.
    grouped: usize,
    /// Number of sources at which the next sweep is due.
    sweep_at: usize,
    /// When the next sweep is due.
    sweep_after: Duration,
}

impl Default for Sources {
    fn default() -> Self {
        let (all, networks) = (BTreeMap::new(), BTreeMap::new());
        Self { all, networks, known: 0, grouped: 0, sweep_at: FEW, sweep_after: SWEEP_EVERY }
    }
}

impl Sources {
    /// The source that a newcomer counts towards: its own, or the shared one if there is no room for it, in the table
    /// or in its network.
    pub(super) fn counted_as(&self, source: Source) -> Source {
        if self.all.contains_key(&source.address) {
            return source;
        }
        if let Some(network) = source.network
            && self.group(source.network).strangers >= MOST_OF_NETWORK
        {
            return Source { address: network.address(), ..source };
        }
        if self.all.len() < MOST {
            return source;
        }
        Source { address: OTHERS, network: source.network.filter(|network| self.networks.contains_key(network)) }
    }

    /// The entry of the source with this address.
    pub(super) fn get(&self, address: IpAddr) -> Used {
        self.all.get(&address).copied().unwrap_or_default()
    }

    /// The entry of a network; empty without a network.
    pub(super) fn group(&self, network: Option<Network>) -> Group {
        network.and_then(|network| self.networks.get(&network)).copied().unwrap_or_default()
    }

    /// Places of strangers of this source, and of its network.
    pub(super) fn held(&self, source: Source) -> (usize, usize) {
        (self.get(source.address).places, self.group(source.network).places)
    }

    /// Counts a place that a stranger of this source takes.
    pub(super) fn join(&mut self, source: Source) {
        self.entry(source.address).places += 1;
        if let Some(network) = source.network {
            self.networks.entry(network).or_default().places += 1;
        }
    }

    /// Stores the usage of a source and its network.
    pub(super) fn charge(&mut self, source: Source, used: Used, group: Group) {
        *self.entry(source.address) = used;
        if let Some(network) = source.network {
            let kept = self.networks.entry(network).or_default();
            (kept.bucket, kept.fair) = (group.bucket, group.fair);
        }
    }

    /// The entry of a source, for modification.
    fn entry(&mut self, address: IpAddr) -> &mut Used {
        if let Some(network) = Source::of(address).network
            && !self.all.contains_key(&address)
        {
            self.networks.entry(network).or_default().strangers += 1;
            self.grouped += 1;
        }
        self.all.entry(address).or_default()
    }

    /// Frees a place of this source. Without rates, a source without places is not remembered.
    pub(super) fn leave(&mut self, source: Source, has_rates: bool) {
        if let Some(network) = source.network
            && let Some(group) = self.networks.get_mut(&network)
        {
            group.places = group.places.saturating_sub(1);
        }
        let Some(used) = self.all.get_mut(&source.address) else { return };
        used.places = used.places.saturating_sub(1);
        if used.places == 0 && !has_rates {
            self.all.remove(&source.address);
            self.leave_group(source.address);
        }
    }

    /// Removes a source from the strangers of its network.
    fn leave_group(&mut self, address: IpAddr) {
        let Some(network) = Source::of(address).network else { return };
        self.grouped = self.grouped.saturating_sub(1);
        if let Some(group) = self.networks.get_mut(&network) {
            group.strangers = group.strangers.saturating_sub(1);
            if group.is_idle(Duration::ZERO) {
                self.networks.remove(&network);
            }
        }
    }

    /// A peer of this source has authenticated, or one that had leaves. No more than `most` sources are known.
    pub(super) fn recognise(&mut self, address: IpAddr, most: usize, now: Duration) {
        let is_new = self.get(address).known_until.is_zero();
        if is_new {
            if self.known >= most {
                self.recount(now);
            }
            if self.known >= most {
                return;
            }
            self.known += 1;
        }
        self.entry(address).known_until = now.saturating_add(KNOWN_FOR);
        if is_new {
            self.leave_group(address);
        }
    }

    /// Number of sources that are remembered.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Number of parties that share the rate of all: networks, and sources without a network that are not known.
    pub(super) fn groups(&self) -> usize {
        let strangers = self.all.len().saturating_sub(self.known);
        strangers.saturating_sub(self.grouped).saturating_add(self.networks.len())
    }

    /// Forgets sources without places whose buckets are full and that are not known. Either the number of sources has
    /// doubled since the last sweep, or time has passed, so the amortised cost for a newcomer is small.
    pub(super) fn sweep(&mut self, now: Duration) {
        if self.all.len() < FEW || self.all.len() < self.sweep_at && now < self.sweep_after {
            return;
        }
        self.all.retain(|_, source| !source.is_idle(now));
        self.recount(now);
        self.networks.retain(|_, group| !group.is_idle(now));
        self.sweep_at = FEW.max(2 * self.all.len());
        self.sweep_after = now.saturating_add(SWEEP_EVERY);
    }

    /// Makes sources strangers again whose time as known sources is over.
    fn recount(&mut self, now: Duration) {
        (self.known, self.grouped) = (0, 0);
        self.networks.values_mut().for_each(|group| group.strangers = 0);
        for (address, source) in &mut self.all {
            if source.known_until > now {
                self.known += 1;
                continue;
            }
            source.known_until = Duration::ZERO;
            if let Some(network) = Source::of(*address).network {
                self.networks.entry(network).or_default().strangers += 1;
                self.grouped += 1;
            }
        }
    }
}
