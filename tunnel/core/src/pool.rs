//! The memory that all sessions of a process share.
//!
//! Each session has a little of its own, so that it never stalls. Beyond that, all share one bound, and a session that
//! grows leaves as much free as it has: one has at most a half, n have n/(n+1), and a newcomer always finds room. A
//! session that needs more waits: it reads less, and grants less. None is ended for it.

use std::cell::Cell;
use std::rc::Rc;

use crate::limits::EARLY_CREDIT;

/// Bytes that a session may always grant; it may always keep as many.
pub(crate) const OWN_BYTES: u64 = EARLY_CREDIT;
/// A session that grows only by the least that is of use leaves free this part, an eighth, of what it then holds.
const LAST_PART: u64 = 8;

/// The memory of the sessions of one thread. No session changes it between the moment when another reads the room and
/// the moment when it takes that.
#[derive(Debug)]
pub struct Pool {
    /// The most sessions, each of which has its own bytes.
    sessions: u64,
    most: Cell<u64>,
    used: Cell<u64>,
}

impl Pool {
    /// Creates a pool of `bytes` for at most `sessions` sessions. The own bytes of these are part of it, but at least
    /// half of it is shared.
    pub fn new(bytes: u64, sessions: usize) -> Rc<Self> {
        let pool = Self { sessions: sessions as u64, most: Cell::default(), used: Cell::default() };
        pool.resize(bytes);
        Rc::new(pool)
    }

    /// Changes the number of bytes. A session that has more keeps it until it is used.
    pub fn resize(&self, bytes: u64) {
        let own = self.sessions.saturating_mul(2 * OWN_BYTES).min(bytes / 2);
        self.most.set(bytes - own);
    }

    /// Bytes that all sessions hold beyond their own.
    pub fn used(&self) -> u64 {
        self.used.get()
    }

    /// The most bytes that all sessions may hold beyond their own.
    pub fn most(&self) -> u64 {
        self.most.get()
    }

    /// The share of a new session.
    pub(crate) fn share(self: &Rc<Self>) -> Share {
        Share { of: self.clone(), taken: 0 }
    }

    fn free(&self) -> u64 {
        self.most().saturating_sub(self.used())
    }
}

/// The bytes that one session holds of a pool. Dropping it frees them.
#[derive(Debug)]
pub(crate) struct Share {
    of: Rc<Pool>,
    taken: u64,
}

impl Share {
    /// Sets the bytes that the session holds beyond its own.
    pub(crate) fn hold(&mut self, bytes: u64) {
        let used = self.of.used() - self.taken + bytes;
        self.of.used.set(used);
        self.taken = bytes;
    }

    /// Bytes by which the session may grow.
    pub(crate) fn room(&self) -> u64 {
        self.of.free().saturating_sub(self.taken) / 2
    }

    /// Bytes by which the session may grow if it asks only for the least that is of use. Many such sessions are less of
    /// a burden than a few large ones.
    pub(crate) fn last_room(&self) -> u64 {
        self.of.free().saturating_mul(LAST_PART).saturating_sub(self.taken) / (LAST_PART + 1)
    }

    /// Whether the session holds more than it leaves free.
    pub(crate) fn is_short(&self) -> bool {
        self.taken > self.of.free()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_grows_leaves_as_much_as_it_has_and_a_newcomer_finds_room() {
        let pool = Pool::new(1200, 0);
        let mut shares: Vec<Share> = (0..5).map(|_| pool.share()).collect();
        let mut taken = Vec::new();
        for share in &mut shares {
            let room = share.room();
            share.hold(room);
            taken.push(room);
            assert_eq!((share.room(), share.is_short()), (0, false));
        }
        assert_eq!(taken, [600, 300, 150, 75, 37]);
        assert!(shares[0].is_short(), "others have come");
        assert_eq!(shares[0].last_room(), 0);
        assert_eq!(shares[4].last_room(), (38 * 8 - 37) / 9);
        assert_eq!(pool.used(), 1162);
        drop(shares);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn what_sessions_have_for_themselves_is_part_of_the_memory_up_to_half_of_it() {
        let pool = Pool::new(100 * OWN_BYTES, 10);
        assert_eq!(pool.most(), 80 * OWN_BYTES);
        let mut share = pool.share();
        share.hold(30 * OWN_BYTES);
        pool.resize(30 * OWN_BYTES);
        assert_eq!((pool.most(), pool.used()), (15 * OWN_BYTES, 30 * OWN_BYTES));
        assert_eq!((share.room(), share.last_room()), (0, 0), "it keeps what it has");
    }
}
