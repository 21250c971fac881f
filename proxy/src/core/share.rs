//! The share of a namespace: how many sessions all its listeners together may have in this process.
//!
//! A connection takes its place before anything else is done for it, so that connections that wait, for a header or in
//! a queue, count as well. The place of a UDP flow is taken and passed on under the lock of its limiter.

use std::sync::{
    Arc,
    atomic::{
        AtomicU32,
        Ordering::{AcqRel, Relaxed},
    },
};

/// The part of the process that a namespace without its own limit may use while there are other namespaces.
const PART: usize = 2;

/// Sessions of one namespace, over all its listeners and all workers.
#[derive(Debug)]
pub struct Share {
    /// Most sessions; [`u32::MAX`]: no limit.
    most: AtomicU32,
    live: AtomicU32,
}

impl Default for Share {
    fn default() -> Self {
        Self { most: AtomicU32::new(u32::MAX), live: AtomicU32::new(0) }
    }
}

impl Share {
    /// Replaces the limit. Live sessions stay.
    pub fn set(&self, most: Option<u32>) {
        self.most.store(most.unwrap_or(u32::MAX), Relaxed);
    }

    /// A place for a connection; `None` if the share is used up.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        self.take().then(|| Place(self.clone()))
    }

    /// Takes a place, if one is free.
    pub(super) fn take(&self) -> bool {
        let most = self.most.load(Relaxed);
        self.live.fetch_update(AcqRel, Relaxed, |live| (live < most).then(|| live + 1)).is_ok()
    }

    /// Returns places.
    pub(super) fn give(&self, places: usize) {
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        let _ = self.live.fetch_update(AcqRel, Relaxed, |live| Some(live.saturating_sub(places)));
    }

    /// Sessions now, and the most there may be.
    #[must_use]
    pub fn usage(&self) -> (u32, Option<u32>) {
        (self.live.load(Relaxed), Some(self.most.load(Relaxed)).filter(|most| *most < u32::MAX))
    }
}

/// A connection's place in the share of its namespace; free again on drop.
#[derive(Debug)]
pub struct Place(Arc<Share>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.give(1);
    }
}

/// The share of a namespace in a process with room for `room` sessions, which listeners of `namespaces` namespaces use.
/// `limits` are the limits that listeners of the namespace carry. Without a limit, a namespace may take a half of the
/// room while there are other namespaces, so that no namespace can take all of it.
#[must_use]
pub fn most(limits: impl Iterator<Item = u32>, namespaces: usize, room: usize) -> Option<u32> {
    let default = || (namespaces > 1).then(|| u32::try_from((room / PART).max(1)).unwrap_or(u32::MAX));
    limits.min().or_else(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back_and_a_lower_limit_sends_nobody_away() {
        let share = Arc::new(Share::default());
        assert_eq!(share.usage(), (0, None));
        share.set(Some(2));
        let (one, two) = (share.enter().expect("a place"), share.enter().expect("a place"));
        assert!(share.enter().is_none());
        share.set(Some(1));
        assert_eq!(share.usage(), (2, Some(1)));
        drop(one);
        assert!(share.enter().is_none());
        drop(two);
        assert!(share.enter().is_some());
    }

    #[test]
    fn the_smallest_limit_counts_and_only_beside_others_there_is_a_default() {
        let none = || std::iter::empty();
        assert_eq!(most([7, 5].into_iter(), 2, 100), Some(5));
        assert_eq!(most([900].into_iter(), 2, 100), Some(900), "a limit of the gateway replaces the default");
        assert_eq!((most(none(), 1, 100), most(none(), 2, 100), most(none(), 2, 1)), (None, Some(50), Some(1)));
    }
}
