//! The TCP sessions of the process by source, so that one source cannot take all the room.
//!
//! A session takes the lock of one shard of the sources when it begins and when it ends, never for its bytes.

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use foldhash::HashMap;

use super::limiter::network;

/// A source with this part of the room counts as one with many sessions.
const MANY_PART: usize = 2;
/// A source with many sessions leaves this part of the room to other sources.
const OTHERS_PART: usize = 4;
/// Locks of the table.
const SHARDS: usize = 16;

/// Room of the process for TCP sessions, in sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRoom {
    /// Most sessions.
    pub most: usize,
    /// Sessions that fit in beside those that have their room already, including the new one.
    pub free: usize,
}

impl SessionRoom {
    /// Whether a source with `own` other sessions may have one more.
    #[must_use]
    pub fn admits(self, own: usize) -> bool {
        let has_many = own.saturating_mul(MANY_PART) >= self.most;
        let is_short = self.free.saturating_mul(OTHERS_PART) < self.most;
        !(has_many && is_short)
    }
}

/// Sessions by source: the IPv4 address, or the IPv6 /64. Sessions from loopback are not counted: all programs of the
/// pod or machine share that address, and none of them is a stranger.
#[derive(Debug, Default)]
pub struct SessionSources {
    shards: [Shard; SHARDS],
}

/// The sources of one lock, in cache lines of their own: the locks of several workers must not be in each other's way.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// Never has more entries than sessions.
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionSources {
    /// Counts a session that has its room, unless its source must leave the remaining room to others. Each counted
    /// session must leave at its end.
    #[must_use]
    pub fn enter(&self, source: IpAddr, room: SessionRoom) -> bool {
        let Some(source) = counted(source) else { return true };
        let mut counts = self.shard(source);
        let own = counts.get(&source).copied().unwrap_or_default();
        let is_admitted = room.admits(own);
        if is_admitted {
            counts.insert(source, own.saturating_add(1));
        }
        is_admitted
    }

    /// Removes a session that has entered from the count.
    pub fn leave(&self, source: IpAddr) {
        let Some(source) = counted(source) else { return };
        let mut counts = self.shard(source);
        if let Some(count) = counts.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&source);
            }
        }
    }

    /// Sources that have sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether no source has sessions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, source: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        let fold = |octets: &[u8]| octets.iter().fold(0_u8, |folded, octet| folded ^ *octet);
        let folded = match source {
            IpAddr::V4(v4) => fold(&v4.octets()),
            IpAddr::V6(v6) => fold(&v6.octets()),
        };
        self.shards[usize::from(folded) % SHARDS].lock()
    }
}

/// The source that a session counts for, if any.
fn counted(source: IpAddr) -> Option<IpAddr> {
    (!source.to_canonical().is_loopback()).then(|| network(source))
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
}
