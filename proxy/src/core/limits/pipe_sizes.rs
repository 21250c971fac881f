//! Sizes of the pipes for splicing: large while few are lent, and smaller the less of the budget is left
//! ([ADR 0129](../../../../docs/adr/0129-pipes-shrink-with-what-is-left.md)).

/// Size of the smallest pipe in bytes: the kernel's default with pages of 4 KiB.
pub const SMALLEST: usize = 64 << 10;
/// Size of the largest pipe in bytes: the most that the kernel gives to unprivileged users by default.
pub const LARGEST: usize = 1 << 20;
/// Number of sizes. Each is twice the one before.
const SIZES: usize = 5;
const _: () = assert!(SMALLEST << (SIZES - 1) == LARGEST);

/// Size of the next pipe, if `lent` bytes of the budget are lent: what leaves half of the budget free, or else an eighth
/// of what is free. `None`: too little is free.
#[must_use]
pub fn next_size(budget: usize, lent: usize) -> Option<usize> {
    let free = budget.saturating_sub(lent);
    if free < SMALLEST {
        return None;
    }
    let most = free.saturating_sub(budget / 2).max(free / 8);
    let power = most.checked_ilog2().map_or(0, |bits| 1_usize << bits);
    Some(power.clamp(SMALLEST, LARGEST))
}

/// Pipes that are not lent, by size. `P` is a pipe, which is closed when it is dropped.
#[derive(Debug)]
pub struct IdlePipes<P> {
    by_size: [Vec<P>; SIZES],
    bytes: usize,
}

impl<P> Default for IdlePipes<P> {
    fn default() -> Self {
        Self { by_size: std::array::from_fn(|_| Vec::new()), bytes: 0 }
    }
}

impl<P> IdlePipes<P> {
    /// Size of all these pipes together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a pipe of this size, which [`next_size`] has returned.
    pub fn put(&mut self, pipe: P, size: usize) {
        let rank = rank(size);
        self.by_size[rank].push(pipe);
        self.bytes += SMALLEST << rank;
    }

    /// Takes a pipe of this size or half of it. A stream that borrows again and again finds one although the size that it
    /// may have goes up and down.
    pub fn take_fitting(&mut self, size: usize) -> Option<P> {
        let rank = rank(size);
        self.take(rank).or_else(|| self.take(rank.checked_sub(1)?))
    }

    /// Takes a pipe: the smallest of those that have this size or more, or else the largest.
    pub fn take_nearest(&mut self, size: usize) -> Option<P> {
        let wanted = rank(size);
        (wanted..SIZES).chain((0..wanted).rev()).find_map(|rank| self.take(rank))
    }

    fn take(&mut self, rank: usize) -> Option<P> {
        let pipe = self.by_size[rank].pop()?;
        self.bytes -= SMALLEST << rank;
        Some(pipe)
    }
}

/// Position of a size among all sizes.
fn rank(size: usize) -> usize {
    (0..SIZES).find(|rank| size <= SMALLEST << rank).unwrap_or(SIZES - 1)
}

#[cfg(test)]
mod tests {
    use std::iter;

    use proptest::prelude::*;

    use super::*;

    /// The sizes of pipes that are lent until nothing is left.
    fn lend_all(budget: usize) -> Vec<usize> {
        let mut lent = 0;
        let next = || {
            let size = next_size(budget, lent)?;
            lent += size;
            Some(size)
        };
        iter::from_fn(next).collect()
    }

    #[test]
    fn the_first_half_is_for_large_pipes_and_the_other_for_many() {
        let kib = |sizes: &[(usize, usize)]| -> Vec<usize> {
            sizes.iter().flat_map(|&(count, size)| iter::repeat_n(size << 10, count)).collect()
        };
        assert!(lend_all(SMALLEST - 1).is_empty());
        assert_eq!(lend_all(SMALLEST), kib(&[(1, 64)]));
        assert_eq!(lend_all(1 << 20), kib(&[(1, 512), (8, 64)]));
        assert_eq!(lend_all(4 << 20), kib(&[(2, 1024), (1, 256), (7, 128), (14, 64)]), "the default");
        assert_eq!(lend_all(32 << 20), kib(&[(25, 1024), (7, 512), (7, 256), (7, 128), (14, 64)]), "a gateway");
    }

    #[test]
    fn a_pipe_fits_at_its_size_and_at_twice_its_size() {
        let mut idle = IdlePipes::default();
        for size in [64, 256, 1024] {
            idle.put(size, size << 10);
        }
        assert_eq!(idle.take_fitting(256 << 10), Some(256));
        assert_eq!(idle.take_fitting(256 << 10), None, "others are too large or too small");
        assert_eq!(idle.take_fitting(128 << 10), Some(64));
        assert_eq!(idle.take_fitting(SMALLEST), None);
        assert_eq!((idle.take_fitting(LARGEST), idle.bytes()), (Some(1024), 0));
    }

    #[test]
    fn the_nearest_pipe_is_the_next_larger_one_or_else_the_largest() {
        let mut idle = IdlePipes::default();
        for size in [64, 128, 512, 1024] {
            idle.put(size, size << 10);
        }
        let taken = [(); 5].map(|()| idle.take_nearest(256 << 10));
        assert_eq!(taken, [Some(512), Some(1024), Some(128), Some(64), None]);
        assert_eq!(idle.bytes(), 0);
        idle.put(1024, LARGEST);
        assert_eq!(idle.take_fitting(2 * LARGEST), Some(1024), "no pipe is larger");
    }

    proptest! {
        #[test]
        fn a_budget_is_used_up_and_never_exceeded(budget in 0..64_usize << 20) {
            let sizes = lend_all(budget);
            let all: usize = sizes.iter().sum();
            prop_assert!(all <= budget && budget - all < SMALLEST);
            prop_assert!(sizes.iter().all(|size| size.is_power_of_two() && (SMALLEST..=LARGEST).contains(size)));
        }

        #[test]
        fn the_next_pipe_is_no_larger_if_more_is_lent_or_the_budget_is_smaller(
            (budget, less) in (0..64_usize << 20, 0..8_usize << 20),
            (lent, more) in (0..64_usize << 20, 0..8_usize << 20),
        ) {
            let size = next_size(budget, lent);
            prop_assert!(next_size(budget, lent + more) <= size);
            prop_assert!(next_size(budget.saturating_sub(less), lent) <= size);
        }

        #[test]
        fn idle_pipes_are_found_once_and_their_bytes_are_counted(
            steps in prop::collection::vec((0..3_u8, 0..SIZES), 0..100),
        ) {
            let mut idle = IdlePipes::default();
            let mut there = Vec::new();
            for (step, rank) in steps {
                let size = SMALLEST << rank;
                let taken = match step {
                    0 => {
                        idle.put(size, size);
                        there.push(size);
                        None
                    }
                    1 => {
                        let taken = idle.take_fitting(size);
                        prop_assert!(taken.is_none_or(|taken| taken == size || taken == size / 2));
                        prop_assert_eq!(taken.is_none(), !there.contains(&size) && !there.contains(&(size / 2)));
                        taken
                    }
                    _ => {
                        let taken = idle.take_nearest(size);
                        prop_assert_eq!(taken.is_none(), there.is_empty());
                        taken
                    }
                };
                if let Some(taken) = taken {
                    let at = there.iter().position(|size| *size == taken).expect("it was put there");
                    there.swap_remove(at);
                }
                prop_assert_eq!(idle.bytes(), there.iter().sum::<usize>());
            }
        }
    }
}
