//! Ids of sessions: unique in a process, and different in every process.
//!
//! The ids are the numbers of the `SplitMix64` generator. All 2^64 of them differ, and none reveals how many sessions
//! came before: a backend that reads its ids in PROXY headers must not see the load of its neighbours at a glance. Ids
//! are names and not secrets: the next id can be computed from one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proxy_api::SessionId;

/// Distance of two states. It is odd, so no state repeats before all 2^64 have been used.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Gives each session its id.
#[derive(Debug)]
pub struct SessionIds(AtomicU64);

impl SessionIds {
    /// The ids that begin at this seed. Each process needs its own: a random number.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The id of the next session.
    #[must_use]
    pub fn next_id(&self) -> SessionId {
        SessionId(mixed(self.0.fetch_add(STEP, Relaxed).wrapping_add(STEP)))
    }
}

/// Each step is invertible, so different states have different ids.
fn mixed(state: u64) -> u64 {
    let one = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let two = (one ^ (one >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    two ^ (two >> 31)
}
