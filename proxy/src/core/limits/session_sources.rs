//! The TCP sessions of the process by source, so that a few sources cannot take all the room.
//!
//! A session takes the lock of one shard of the sources when it begins and when it ends, never for its bytes.

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;
use proxy_api::doors::{Source, Tally};

use crate::core::limits::session_room::SessionRoom;

/// Locks of the table.
const SHARDS: usize = 16;

/// Sessions by source, and by IPv6 /64, which weighs on its sources as at the doors ([`proxy_api::doors::weight`]). Sessions
/// from loopback are not counted: all programs of the pod or machine share that address, and none of them is a stranger.
#[derive(Debug, Default)]
pub struct SessionSources {
    shards: [Shard; SHARDS],
}

/// The sources of one lock, in cache lines of their own: the locks of several workers must not contend.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// Never has more entries than sessions.
    counts: Mutex<Tally<RandomState>>,
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Tally<RandomState>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionSources {
    /// Counts a session that has its room, unless its source must leave the free room to others. Each counted session
    /// must leave at its end.
    #[must_use]
    pub fn enter(&self, source: IpAddr, room: SessionRoom) -> bool {
        let Some(source) = counted(source) else { return true };
        let mut counts = self.shard(source);
        let is_admitted = room.admits(counts.weight(source));
        if is_admitted {
            counts.add(source, 1);
        }
        is_admitted
    }

    /// Removes a session that has entered.
    pub fn leave(&self, source: IpAddr) {
        let Some(source) = counted(source) else { return };
        self.shard(source).remove(source, 1);
    }

    /// Sources that have sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().sources()).sum()
    }

    /// Whether no source has sessions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sources of a network are in one shard, as is its count.
    fn shard(&self, source: Source) -> MutexGuard<'_, Tally<RandomState>> {
        let fold = |octets: &[u8]| octets.iter().fold(0_u8, |folded, octet| folded ^ *octet);
        let folded = match source.address {
            IpAddr::V4(v4) => fold(&v4.octets()),
            IpAddr::V6(v6) => fold(v6.octets().first_chunk::<8>().unwrap_or(&[0; 8])),
        };
        self.shards[usize::from(folded) % SHARDS].lock()
    }
}

/// The source that a session counts towards, if any.
fn counted(source: IpAddr) -> Option<Source> {
    (!source.to_canonical().is_loopback()).then(|| Source::of(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_locks_are_in_one_line() {
        let sources = SessionSources::default();
        let line = |shard: &Shard| std::ptr::from_ref(shard).addr() / 128;
        assert!(sources.shards.windows(2).all(|pair| line(&pair[0]) < line(&pair[1])));
    }

    /// Locks that are taken by sessions of these sources.
    fn locks(of: impl Iterator<Item = IpAddr>) -> usize {
        let sources = SessionSources::default();
        for source in of {
            assert!(sources.enter(source, SessionRoom { most: 1000, free: 1000 }));
        }
        sources.shards.iter().filter(|shard| shard.lock().sources() > 0).count()
    }

    #[test]
    fn neighbours_have_locks_of_their_own_and_the_addresses_of_a_network_share_one() {
        assert_eq!(locks((0..16_u8).map(|last| IpAddr::from([192, 0, 2, last]))), SHARDS);
        let network = |at: u16| IpAddr::from([0x2001, 0xdb8, 0, at, 0, 0, 0, 1]);
        assert_eq!(locks((0..16).map(network)), SHARDS);
        let address = |at: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, at]);
        assert_eq!(locks((1..17).map(address)), 1);
    }
}
