//! When a sink is tried again.

use std::time::Duration;

/// The longest pause after the first failure.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// The pauses between attempts at one sink: each has twice the bounds of the one before, up to 30
/// seconds, and is anywhere between half of its bound and all of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure. `chance` is from 0 up to, but not including, 1.
    pub fn pause(&mut self, chance: f64) -> Duration {
        let bound = FIRST.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        bound / 2 + (bound / 2).mul_f64(chance.clamp(0.0, 1.0))
    }

    /// The pause after a connection on which the cursor went from `before` to `after`: the first one again if it moved.
    pub fn ended(&mut self, before: u64, after: u64, chance: f64) -> Duration {
        if after > before {
            self.reset();
        }
        self.pause(chance)
    }

    /// Makes the next failure start over, as the sink took a message, or refused one.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(chance: f64, count: usize) -> Vec<u128> {
        let mut backoff = Backoff::default();
        (0..count).map(|_| backoff.pause(chance).as_millis()).collect()
    }

    #[test]
    fn pauses_double_to_thirty_seconds_and_stay_there() {
        let pauses = pauses(1.0, 100);
        assert_eq!(pauses[..10], [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000]);
        assert!(pauses[10..].iter().all(|pause| *pause == 30_000), "{pauses:?}");
    }

    #[test]
    fn chance_takes_up_to_half_of_a_pause() {
        assert_eq!(pauses(0.0, 3), [50, 100, 200]);
    }

    #[test]
    fn pauses_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.pause(1.0);
        }
        backoff.reset();
        assert_eq!(backoff.pause(1.0), FIRST);
    }

    #[test]
    fn pauses_grow_over_connections_on_which_the_cursor_stays_and_start_over_when_it_moves() {
        let mut backoff = Backoff::default();
        let pauses =
            [(3, 3), (3, 3), (3, 4), (4, 4)].map(|(before, after)| backoff.ended(before, after, 1.0).as_millis());
        assert_eq!(pauses, [100, 200, 100, 200]);
    }
}
