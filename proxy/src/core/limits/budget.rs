//! Budget for bytes buffered in memory for peers that do not read.
//!
//! A read takes its room before it begins, because the sink may accept none of it. Small reads are many, and nearly all
//! of them are written at once. Their room is a reserve of the worker, so that they touch no state that workers share.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Most bytes of a reserve, and of a read that uses it.
const RESERVE_BYTES: usize = 16 * 1024;

/// A byte budget shared by all workers.
#[derive(Debug)]
pub struct Budget {
    taken: AtomicUsize,
    /// The part of `taken` that is held in reserves.
    reserved: AtomicUsize,
    limit: AtomicUsize,
}

impl Budget {
    /// Creates a budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { taken: AtomicUsize::new(0), reserved: AtomicUsize::new(0), limit: AtomicUsize::new(limit) }
    }

    /// Takes `bytes` if they fit; returns whether they did.
    fn take(&self, bytes: usize) -> bool {
        let fits = |taken: usize| taken.checked_add(bytes).filter(|total| *total <= self.limit.load(Relaxed));
        self.taken.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    /// Returns `bytes` to the budget.
    pub fn give(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Relaxed);
    }

    /// Bytes currently held for sinks or by large reads.
    pub fn held(&self) -> usize {
        // The two counters change one after the other.
        self.taken.load(Relaxed).saturating_sub(self.reserved.load(Relaxed))
    }

    /// Size of the budget in bytes.
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Changes the size of the budget; returns whether it differs.
    pub fn resize(&self, limit: usize) -> bool {
        self.limit.swap(limit, Relaxed) != limit
    }
}

/// Room in the budget for the reads of one worker, which come one after another.
#[derive(Debug)]
pub struct Reserve {
    budget: Arc<Budget>,
    /// Most bytes of the reserve, and of a read that uses it.
    most: usize,
    left: Cell<usize>,
}

impl Reserve {
    /// Creates an empty reserve of one of the workers. The first small read fills it. If all reserves would exceed a
    /// quarter of the budget, there are none: workers that read nothing would keep room from those that do.
    #[must_use]
    pub fn new(budget: Arc<Budget>, workers: usize) -> Self {
        let fits = workers.saturating_mul(RESERVE_BYTES) <= budget.limit() / 4;
        Self { budget, most: if fits { RESERVE_BYTES } else { 0 }, left: Cell::new(0) }
    }

    /// Takes the room of a read of up to `bytes`, until [`Reserve::keep`]. False if the budget has none.
    #[must_use]
    pub fn take(&self, bytes: usize) -> bool {
        if bytes > self.most {
            return self.budget.take(bytes);
        }
        let left = self.left.get();
        if left >= bytes {
            return true;
        }
        let lacking = self.most - left;
        let is_filled = self.budget.take(lacking);
        if is_filled {
            self.budget.reserved.fetch_add(lacking, Relaxed);
            self.left.set(self.most);
        }
        is_filled
    }

    /// Ends a read of up to `bytes`. The `kept` bytes stay taken until [`Budget::give`].
    pub fn keep(&self, bytes: usize, kept: usize) {
        if bytes > self.most {
            self.budget.give(bytes - kept);
        } else if kept > 0 {
            self.left.set(self.left.get() - kept);
            self.budget.reserved.fetch_sub(kept, Relaxed);
        }
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        self.budget.reserved.fetch_sub(self.left.get(), Relaxed);
        self.budget.give(self.left.get());
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn budget(limit: usize) -> (Arc<Budget>, Reserve) {
        let budget = Arc::new(Budget::new(limit));
        let reserve = Reserve::new(budget.clone(), 0);
        (budget, reserve)
    }

    #[test]
    fn small_reads_that_keep_nothing_take_from_the_budget_once() {
        let (budget, reserve) = budget(RESERVE_BYTES);
        for bytes in [RESERVE_BYTES, 1, RESERVE_BYTES] {
            assert!(reserve.take(bytes));
            reserve.keep(bytes, 0);
            assert_eq!((budget.taken.load(Relaxed), budget.held()), (RESERVE_BYTES, 0));
        }
        drop(reserve);
        assert_eq!((budget.taken.load(Relaxed), budget.reserved.load(Relaxed)), (0, 0));
    }

    #[test]
    fn what_is_kept_is_held_until_it_is_given_back() {
        let (budget, reserve) = budget(1 << 20);
        for (bytes, kept) in [(RESERVE_BYTES, 100), (RESERVE_BYTES, RESERVE_BYTES), (64 << 10, 5), (7, 7)] {
            let before = budget.held();
            assert!(reserve.take(bytes));
            reserve.keep(bytes, kept);
            assert_eq!(budget.held(), before + kept);
        }
        budget.give(budget.held());
        assert_eq!(budget.held(), 0);
        drop(reserve);
        assert_eq!(budget.taken.load(Relaxed), 0);
    }

    #[test]
    fn reserves_and_what_is_held_stay_within_the_limit() {
        let (budget, reserve) = budget(2 * RESERVE_BYTES);
        let other = Reserve::new(budget.clone(), 0);
        assert!(!reserve.take(2 * RESERVE_BYTES + 1), "larger than all");
        assert!(reserve.take(RESERVE_BYTES));
        reserve.keep(RESERVE_BYTES, 100);
        assert!(!reserve.take(2 * RESERVE_BYTES), "what the reserve has is taken");
        assert!(reserve.take(RESERVE_BYTES - 100), "there is that much left");
        reserve.keep(RESERVE_BYTES - 100, RESERVE_BYTES - 100);
        assert_eq!(budget.held(), RESERVE_BYTES);
        assert!(other.take(1) && !reserve.take(1), "the other worker has the rest");
        assert_eq!(budget.taken.load(Relaxed), 2 * RESERVE_BYTES);
        budget.give(100);
        assert!(!reserve.take(1), "a reserve is filled or nothing");
        budget.give(RESERVE_BYTES - 100);
        assert!(reserve.take(1));
    }

    #[test]
    fn a_small_budget_has_no_reserves_that_other_workers_would_lack() {
        let budget = Arc::new(Budget::new(4 * 16 * RESERVE_BYTES - 1));
        let reserve = Reserve::new(budget.clone(), 16);
        assert!(reserve.take(1));
        assert_eq!((budget.taken.load(Relaxed), budget.reserved.load(Relaxed)), (1, 0));
        reserve.keep(1, 0);
        assert_eq!(budget.taken.load(Relaxed), 0, "each read gives its own room back");
        let one = Reserve::new(budget.clone(), 15);
        assert!(one.take(1));
        assert_eq!(budget.reserved.load(Relaxed), RESERVE_BYTES);
    }

    #[test]
    fn reserves_may_be_a_quarter_of_the_budget() {
        let budget = Arc::new(Budget::new(4 * 16 * RESERVE_BYTES));
        let reserve = Reserve::new(budget.clone(), 16);
        assert!(reserve.take(1));
        assert_eq!(budget.reserved.load(Relaxed), RESERVE_BYTES);
    }

    #[test]
    fn a_budget_that_shrinks_takes_nothing_until_what_is_held_fits() {
        let budget = Budget::new(10);
        assert!(budget.take(10) && !budget.take(1));
        assert!(!budget.resize(10), "the same");
        assert!(budget.resize(4));
        assert_eq!((budget.limit(), budget.held()), (4, 10), "what is held stays");
        assert!(!budget.take(0));
        budget.give(7);
        assert!(!budget.take(2) && budget.take(1));
        assert!(!budget.take(usize::MAX), "more than can be counted");
        assert_eq!(budget.held(), 4);
    }

    #[test]
    fn workers_that_read_at_once_stay_within_the_limit() {
        let budget = Arc::new(Budget::new(3 * RESERVE_BYTES));
        thread::scope(|scope| {
            for worker in 1..=4 {
                let budget = budget.clone();
                scope.spawn(move || {
                    let reserve = Reserve::new(budget.clone(), 0);
                    for n in 0..2000 {
                        let bytes = n * worker * 7919 % (2 * RESERVE_BYTES) + 1;
                        if reserve.take(bytes) {
                            assert!(budget.taken.load(Relaxed) <= budget.limit());
                            reserve.keep(bytes, bytes / 2);
                            budget.give(bytes / 2);
                        }
                    }
                });
            }
        });
        assert_eq!((budget.taken.load(Relaxed), budget.reserved.load(Relaxed)), (0, 0));
    }

    proptest! {
        /// Three workers read, one read each at a time, sinks take kept bytes, and the limit changes. Reads that do not
        /// fit are refused and take nothing, reads that fit are not refused, and no byte is lost or counted twice.
        #[test]
        fn what_is_taken_stays_within_the_limit_and_all_of_it_comes_back(
            limit in 0..=24 * RESERVE_BYTES,
            steps in prop::collection::vec((0..6_u8, 0..3_usize, 1..=2 * RESERVE_BYTES), 0..200),
        ) {
            let budget = Arc::new(Budget::new(limit));
            let taken = || budget.taken.load(Relaxed);
            let reserves = [(); 3].map(|()| Reserve::new(budget.clone(), 3));
            let (mut reads, mut kept) = ([0_usize; 3], Vec::<usize>::new());
            for (step, worker, bytes) in steps {
                let (before, reserve) = (taken(), &reserves[worker]);
                match step {
                    0 => {
                        budget.resize(8 * bytes);
                    }
                    1 => budget.give(kept.pop().unwrap_or_default()),
                    _ if reads[worker] > 0 => {
                        let read = std::mem::take(&mut reads[worker]);
                        kept.push(bytes % (read + 1));
                        reserve.keep(read, bytes % (read + 1));
                    }
                    _ => {
                        let left = reserve.left.get();
                        let lacking = if bytes > reserve.most {
                            bytes
                        } else if bytes > left {
                            reserve.most - left
                        } else {
                            0
                        };
                        let fits = lacking == 0 || before + lacking <= budget.limit();
                        prop_assert_eq!(reserve.take(bytes), fits);
                        prop_assert_eq!(taken() - before, if fits { lacking } else { 0 });
                        reads[worker] = if fits { bytes } else { 0 };
                    }
                }
                let large: usize = reads.iter().filter(|read| **read > reserve.most).sum();
                let ready: usize = reserves.iter().map(|reserve| reserve.left.get()).sum();
                prop_assert_eq!(budget.held(), kept.iter().sum::<usize>() + large);
                prop_assert_eq!(taken(), budget.held() + ready);
                prop_assert!(taken() <= before.max(budget.limit()), "only a limit that shrinks is below what is taken");
            }
            for (read, reserve) in reads.into_iter().zip(reserves) {
                if read > 0 {
                    reserve.keep(read, 0);
                }
            }
            for bytes in kept {
                budget.give(bytes);
            }
            prop_assert_eq!((taken(), budget.reserved.load(Relaxed)), (0, 0));
        }
    }
}
