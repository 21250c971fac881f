//! Numbers by chance, the same for the same seed.

use std::time::Duration;

/// A step of the state, so that seeds that follow each other give other numbers.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The function of splitmix64: every bit of the number changes about half of the result.
pub(crate) fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A sequence of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of one task: each task has its own, so that the order in which tasks run changes none.
    pub(crate) fn of_task(seed: u64, task: u64) -> Self {
        Self(mixed(seed ^ mixed(task.wrapping_add(1).wrapping_mul(STEP))))
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mixed(self.0)
    }

    /// A number below this one, or 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// A time from the first on, and below the second.
    pub(crate) fn millis(&mut self, least: u64, end: u64) -> Duration {
        Duration::from_millis(least + self.below(end.saturating_sub(least)))
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.number() & 1 == 1
    }

    /// One of these. `None`: there are none.
    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let at = self.below(all.len() as u64);
        all.get(usize::try_from(at).ok()?).copied()
    }
}

/// Bytes that a seed decides. Each byte depends on its place, so that a byte that is lost, doubled or moved is noticed.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    numbers: Random,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    pub(crate) fn new(seed: u64) -> Self {
        Self { numbers: Random(seed), word: [0; 8], used: 8 }
    }

    fn byte(&mut self) -> u8 {
        if self.used == self.word.len() {
            (self.word, self.used) = (self.numbers.number().to_le_bytes(), 0);
        }
        let byte = self.word[self.used];
        self.used += 1;
        byte
    }

    /// The next bytes.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            *byte = self.byte();
        }
    }

    /// Whether these are the next bytes.
    pub(crate) fn matches(&mut self, bytes: &[u8]) -> bool {
        let mut right = true;
        for byte in bytes {
            // All of them are passed, also after a wrong one.
            right &= self.byte() == *byte;
        }
        right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_numbers_of_each_task() {
        let numbers = |seed, task| {
            let mut random = Random::of_task(seed, task);
            [random.number(), random.number(), random.number()]
        };
        assert_eq!(numbers(7, 1), numbers(7, 1));
        assert_ne!(numbers(7, 1), numbers(7, 2));
        assert_ne!(numbers(7, 1), numbers(8, 1));
    }

    #[test]
    fn times_stay_within_their_bounds() {
        let mut random = Random::of_task(1, 1);
        let times: Vec<Duration> = (0..1000).map(|_| random.millis(20, 60)).collect();
        let bounds = Duration::from_millis(20)..Duration::from_millis(60);
        assert!(times.iter().all(|time| bounds.contains(time)));
        assert_eq!(random.millis(5, 5), Duration::from_millis(5));
    }

    #[test]
    fn a_pattern_in_pieces_is_the_same_pattern() {
        let mut whole = [0; 100];
        Pattern::new(3).fill(&mut whole);
        let mut reader = Pattern::new(3);
        assert!(whole.chunks(7).all(|piece| reader.matches(piece)));
    }

    #[test]
    fn a_byte_that_is_lost_doubled_or_changed_does_not_match() {
        let mut whole = [0; 100];
        Pattern::new(3).fill(&mut whole);
        let lost = [&whole[..50], &whole[51..]].concat();
        let doubled = [&whole[..50], &whole[49..]].concat();
        let mut changed = whole;
        changed[50] ^= 1;
        for wrong in [&lost[..], &doubled[..], &changed[..]] {
            assert!(!Pattern::new(3).matches(wrong));
        }
    }
}
