//! The unit that counts as one source, and the bounds that the sources of one network share.
//!
//! In a cluster with IPv6, the pods of a node are in one /64, and often those of a zone with their nodes. So a /64 is
//! not one client, and a pod must leave something to its neighbours. Elsewhere a /64 is one host, which may use any
//! number of addresses. So a network has a bound, too: larger than that of an address, and never everything.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
    net::{IpAddr, Ipv6Addr},
};

use super::Rate;

/// A network may have this many times the bound of one address, so a pod leaves a part of it to its neighbours.
const NETWORK_TIMES: u32 = 3;
/// The part of all that one network leaves to others.
const OTHERS_PART: usize = 4;

/// An IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(u64);

impl Network {
    /// The address of the routers of the network, which no client has.
    pub(super) fn address(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(u128::from(self.0) << 64))
    }
}

/// The unit that counts as one source: an address. Clients behind address translation share one. The sources of an IPv6
/// /64 share a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The address, in its canonical form.
    pub address: IpAddr,
    /// The network of an IPv6 address.
    pub network: Option<Network>,
}

impl Source {
    /// The source of a client with this address. The unspecified address, which no client has, is in no network.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let network = match address {
            IpAddr::V6(v6) if !v6.is_unspecified() => u64::try_from(v6.to_bits() >> 64).ok().map(Network),
            _ => None,
        };
        Self { address, network }
    }
}

/// The bound that the sources of one network share, of `all`, if one source may have `per_source`: three times as much,
/// no more than three quarters of all, and no less than one source.
pub(super) fn most_of_network(per_source: usize, all: usize) -> usize {
    let times = per_source.saturating_mul(NETWORK_TIMES as usize);
    times.min(all - all / OTHERS_PART).max(per_source)
}

/// Like `most_of_network`, for rates.
pub(super) fn rate_of_network(source: Rate, all: Rate) -> Rate {
    times_of_source(source).slower(all.three_quarters()).faster(source)
}

/// The rate of the sources of one network if there is no rate of all.
pub(super) fn times_of_source(source: Rate) -> Rate {
    source.times(NETWORK_TIMES)
}

/// The weight of a source compared to others. A heavy network weighs on its sources, so one host with many addresses is
/// no better off than with one.
#[must_use]
pub fn weight(of_address: usize, of_network: usize) -> usize {
    of_address.max(of_network.div_ceil(NETWORK_TIMES as usize))
}

/// Units that are held, by source and by network. Clients choose their addresses, so the hasher should have random
/// keys; these do not affect any result.
#[derive(Clone, Debug, Default)]
pub struct Tally<S> {
    sources: HashMap<IpAddr, usize, S>,
    networks: HashMap<Network, usize, S>,
}

impl<S: BuildHasher> Tally<S> {
    /// Units of this source.
    #[must_use]
    pub fn of_source(&self, source: Source) -> usize {
        self.sources.get(&source.address).copied().unwrap_or_default()
    }

    /// Units of the network of this source; none if it is in no network.
    #[must_use]
    pub fn of_network(&self, source: Source) -> usize {
        source.network.and_then(|network| self.networks.get(&network)).copied().unwrap_or_default()
    }

    /// Whether a source may have `units` more, if one source may have `per_source` of `all`. Its network may have three
    /// times as many, but no more than three quarters of all unless one source may.
    #[must_use]
    pub fn fits(&self, source: Source, units: usize, (per_source, all): (usize, usize)) -> bool {
        let is_within = |held: usize, most: usize| held.saturating_add(units) <= most;
        is_within(self.of_source(source), per_source)
            && (source.network.is_none() || is_within(self.of_network(source), most_of_network(per_source, all)))
    }

    /// See [`weight`].
    #[must_use]
    pub fn weight(&self, source: Source) -> usize {
        weight(self.of_source(source), self.of_network(source))
    }

    /// Counts units of a source.
    pub fn add(&mut self, source: Source, units: usize) {
        add(&mut self.sources, source.address, units);
        if let Some(network) = source.network {
            add(&mut self.networks, network, units);
        }
    }

    /// Removes units of a source. A source without units is forgotten.
    pub fn remove(&mut self, source: Source, units: usize) {
        remove(&mut self.sources, &source.address, units);
        if let Some(network) = source.network {
            remove(&mut self.networks, &network, units);
        }
    }

    /// Whether no source holds units.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.networks.is_empty()
    }

    /// Number of sources that hold units.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.sources.len()
    }
}

fn add<K: Eq + Hash, S: BuildHasher>(counts: &mut HashMap<K, usize, S>, key: K, units: usize) {
    if units > 0 {
        let count = counts.entry(key).or_default();
        *count = count.saturating_add(units);
    }
}

fn remove<K: Eq + Hash, S: BuildHasher>(counts: &mut HashMap<K, usize, S>, key: &K, units: usize) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(units);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().expect("an address"))
    }

    #[test]
    fn a_source_is_an_address_and_an_ipv6_address_is_in_its_64() {
        assert_eq!(source("10.0.0.1"), source("::ffff:10.0.0.1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
        assert_eq!(source("10.0.0.1").network, None);
        let (one, same, other) = (source("2001:db8:0:1::1"), source("2001:db8:0:1:f::2"), source("2001:db8:0:2::1"));
        assert_ne!(one, same);
        assert!(one.network.is_some() && one.network == same.network && one.network != other.network);
        assert_eq!(one.network.map(Network::address), Some("2001:db8:0:1::".parse().expect("an address")));
        assert_eq!(source("::").network, None);
    }

    #[test]
    fn a_network_has_three_times_what_an_address_has_and_leaves_a_quarter_unless_an_address_may_have_all() {
        let most = [(64, 512), (256, 512), (16, 64), (8, 24), (32, 32), (1, 1), (192, usize::MAX)];
        assert_eq!(most.map(|(one, all)| most_of_network(one, all)), [192, 384, 48, 18, 32, 1, 576]);
        let rate = |times| Rate::per_second(times, 2 * times);
        assert_eq!(rate_of_network(rate(10), rate(1000)), rate(10).times(3));
        assert_eq!(rate_of_network(rate(50), rate(100)), rate(100).three_quarters());
        assert_eq!(rate_of_network(rate(100), rate(100)), rate(100));
    }

    #[test]
    fn what_is_removed_is_forgotten_and_a_network_weighs_a_third() {
        let mut tally: Tally<RandomState> = Tally::default();
        let sources: Vec<Source> = (1..=9).map(|at| source(&format!("2001:db8::{at}"))).collect();
        for source in &sources {
            tally.add(*source, 1);
        }
        tally.add(source("10.0.0.1"), 2);
        assert_eq!((tally.of_source(sources[0]), tally.of_network(sources[0]), tally.weight(sources[0])), (1, 9, 3));
        assert_eq!((tally.of_network(source("10.0.0.1")), tally.weight(source("10.0.0.1"))), (0, 2));
        assert_eq!(tally.weight(source("2001:db8::ff")), 3, "a newcomer of the network");
        assert_eq!(tally.sources(), 10);
        for source in &sources {
            tally.remove(*source, 1);
        }
        tally.remove(source("10.0.0.1"), 2);
        assert!(tally.is_empty());
    }
}
