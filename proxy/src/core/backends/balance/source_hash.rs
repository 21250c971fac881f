//! Hashing of client addresses: the policy `SourceHash`.
//!
//! Entries are chosen by weighted rendezvous hashing, because they are few and have weights. An entry may have
//! thousands of endpoints: they are on a ring, on which a client is hashed to several places and takes the nearest
//! endpoint (multi-probe consistent hashing, Appleton and O'Reilly 2015). Both move only the clients of endpoints that
//! left, and those that a new endpoint gets.

use std::{net::IpAddr, sync::Arc};

use super::Entry;
use crate::core::backends::{address::Address, endpoint::Endpoint};

/// Places of an endpoint on the ring. With 16 places and probes, the shares of endpoints differ by about a tenth.
const PLACES: u64 = 16;
/// Places on the ring to which a client is hashed.
const PROBES: u64 = 16;

/// The endpoints of an entry on a ring of hashes.
#[derive(Debug)]
pub(super) struct Ring {
    /// The places, sorted.
    places: Vec<Place>,
}

/// A place of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    hash: u64,
    /// Position in the entry's endpoints.
    endpoint: usize,
}

impl Ring {
    /// The ring of endpoints in the order of their addresses. An endpoint is placed by its host, so that listeners for
    /// different ports of the same hosts agree; behind an agent, by its instance. Endpoints of one host are numbered.
    pub(super) fn of(endpoints: &[Arc<Endpoint>]) -> Self {
        let mut places = Vec::new();
        let mut last = None;
        for (at, endpoint) in endpoints.iter().enumerate() {
            let host = host_hash(&endpoint.address);
            let number = match last {
                Some((before, number)) if before == host => number + 1,
                _ => 0_u64,
            };
            last = Some((host, number));
            let name = scattered(host, number);
            places.extend((0..PLACES).map(|turn| Place { hash: scattered(name, turn), endpoint: at }));
        }
        places.sort_unstable();
        Self { places }
    }

    /// The same ring with only these endpoints, by ascending positions.
    pub(super) fn among(&self, members: &[usize]) -> Self {
        let mut is_member = vec![false; members.last().map_or(0, |last| last + 1)];
        for at in members {
            if let Some(member) = is_member.get_mut(*at) {
                *member = true;
            }
        }
        let places = self.places.iter().filter(|place| is_member.get(place.endpoint) == Some(&true));
        Self { places: places.copied().collect() }
    }

    /// The fresh endpoint next to a client on the ring. At most `stale` endpoints are not fresh.
    pub(super) fn find(&self, source: IpAddr, stale: usize, is_fresh: impl Fn(usize) -> bool) -> Option<usize> {
        let client = source_hash(source, b"");
        // Wherever the stale endpoints are, a place of another endpoint follows theirs.
        let most = usize::try_from(PLACES).ok()?.saturating_mul(stale).saturating_add(1);
        let nearest = (0..PROBES).filter_map(|turn| {
            let probe = scattered(client, turn);
            let (before, after) = self.places.split_at(self.places.partition_point(|place| place.hash < probe));
            let place = after.iter().chain(before).take(most).find(|place| is_fresh(place.endpoint))?;
            Some((place.hash.wrapping_sub(probe), place.endpoint))
        });
        nearest.min().map(|(_, endpoint)| endpoint)
    }
}

/// Name of an entry for the source hash: its host without the port, so that listeners for different ports of the same
/// hosts agree. Entries of the same host are numbered in order.
pub(super) fn name_of(entries: &[Entry], at: usize) -> String {
    let host = entries.get(at).map_or("", |entry| host_of(&entry.id));
    match entries.iter().take(at).filter(|other| host_of(&other.id) == host).count() {
        0 => host.to_owned(),
        number => format!("{host}#{number}"),
    }
}

fn host_of(id: &str) -> &str {
    id.rsplit_once(':').map_or(id, |(host, _)| host)
}

/// The hash of an endpoint's host, or of the instance that leads to it.
fn host_hash(address: &Address) -> u64 {
    match address {
        Address::Socket(address) => source_hash(address.ip(), b"endpoint"),
        Address::Agent(address) => {
            mixed(fnv(fnv(fnv(START, address.uid.as_bytes()), b"/"), address.instance.as_bytes()))
        }
    }
}

/// FNV-1a of an address and a name, mixed. It depends on nothing else, so that listeners with equal backends agree, and
/// so do all replicas.
pub(super) fn source_hash(source: IpAddr, name: &[u8]) -> u64 {
    let start = match source.to_canonical() {
        IpAddr::V4(v4) => fnv(START, &v4.octets()),
        IpAddr::V6(v6) => fnv(START, &v6.octets()),
    };
    mixed(fnv(start, name))
}

/// The offset basis of FNV-1a.
const START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, continued with these bytes.
fn fnv(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// One of several hashes of the same value.
fn scattered(hash: u64, turn: u64) -> u64 {
    mixed(hash.wrapping_add((turn + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// The finaliser of `splitmix64`.
pub(super) fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Weighted rendezvous hashing: the highest score wins with probability proportional to the weight.
pub(super) fn rendezvous(hash: u64, weight: u32) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "53 bits of a hash are plenty")]
    let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight) / uniform.ln()
}
