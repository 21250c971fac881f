//! Ids of sessions: unique in a process, and different in every process.
//!
//! The ids are the numbers of the `SplitMix64` generator. All 2^64 of them differ, and none reveals how many sessions
//! came before: a backend that reads its ids in PROXY headers must not see the load of its neighbours at a glance. Ids
//! are names and not secrets: the next id can be computed from one.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use proxy_api::SessionId;

/// Distance of two states. It is odd, so no state repeats before all 2^64 have been used.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// Ids that a worker takes at a time. Workers then write their common state once for this many sessions.
const BLOCK: u64 = 256;

/// The ids that no worker has taken yet.
#[derive(Debug)]
pub struct SessionIds(AtomicU64);

impl SessionIds {
    /// Creates the ids that begin at this seed. Each process needs its own: a random number.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Creates the ids of one worker.
    #[must_use]
    pub fn of_worker(self: &Arc<Self>) -> WorkerIds {
        WorkerIds { all: self.clone(), state: Cell::new(0), left: Cell::new(0) }
    }

    /// Takes a block, and returns the state before its ids.
    fn block(&self) -> u64 {
        self.0.fetch_add(STEP.wrapping_mul(BLOCK), Relaxed)
    }
}

/// The ids of the sessions of one worker.
#[derive(Debug)]
pub struct WorkerIds {
    all: Arc<SessionIds>,
    /// State of the last id.
    state: Cell<u64>,
    /// Remaining ids of the block.
    left: Cell<u64>,
}

impl WorkerIds {
    /// The id of the next session.
    #[must_use]
    pub fn next_id(&self) -> SessionId {
        let (before, left) = match self.left.get() {
            0 => (self.all.block(), BLOCK),
            left => (self.state.get(), left),
        };
        let state = before.wrapping_add(STEP);
        self.state.set(state);
        self.left.set(left - 1);
        SessionId(mixed(state))
    }
}

/// Each step is invertible, so different states have different ids.
fn mixed(state: u64) -> u64 {
    let one = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let two = (one ^ (one >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    two ^ (two >> 31)
}
