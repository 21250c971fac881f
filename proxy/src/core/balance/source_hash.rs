//! Rendezvous hashing of client addresses: the policy `SourceHash`.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use super::{Entry, Targets};
use crate::core::endpoint::Endpoint;

impl Targets {
    /// Name of an entry for the source hash: its host without the port, so that listeners for different ports of the
    /// same hosts agree. Entries of the same host are numbered in order.
    pub(super) fn name_of<'a>(&self, entry: &'a Entry) -> Cow<'a, str> {
        let host = host_of(&entry.id);
        let before = self.entries.iter().take_while(|other| !std::ptr::eq(*other, entry));
        numbered(host.into(), before.filter(|other| host_of(&other.id) == host).count())
    }
}

impl Entry {
    /// Name of an endpoint for the source hash, as [`Targets::name_of`].
    pub(super) fn name_of(&self, endpoint: &Arc<Endpoint>) -> Cow<'static, str> {
        let ip = endpoint.address.ip();
        let before = self.endpoints.iter().take_while(|other| !Arc::ptr_eq(other, endpoint));
        numbered(ip.to_string().into(), before.filter(|other| other.address.ip() == ip).count())
    }
}

fn host_of(id: &str) -> &str {
    id.rsplit_once(':').map_or(id, |(host, _)| host)
}

fn numbered(name: Cow<'_, str>, number: usize) -> Cow<'_, str> {
    if number == 0 { name } else { format!("{name}#{number}").into() }
}

/// FNV-1a with the finaliser of `splitmix64`. Depends only on the source and the name, so that listeners with equal
/// backends, and all replicas, agree.
pub(in crate::core) fn source_hash(source: IpAddr, name: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let start = match source.to_canonical() {
        IpAddr::V4(v4) => v4.octets().iter().fold(0xcbf2_9ce4_8422_2325, fold),
        IpAddr::V6(v6) => v6.octets().iter().fold(0xcbf2_9ce4_8422_2325, fold),
    };
    let mut hash = name.iter().fold(start, fold);
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
