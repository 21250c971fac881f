//! When to reopen a stream: exponential backoff with full jitter, so that a fleet does not reconnect all at once.
//!
//! Pure: the seed is an argument, and the caller waits.

use std::time::Duration;

/// Bound of the first backoff; it doubles with each further failure.
const FIRST: Duration = Duration::from_millis(200);
/// Bound of the longest backoff.
const MOST: Duration = Duration::from_secs(15);
/// Bound of the first pauses before trying another replica.
const ELSEWHERE: Duration = Duration::from_millis(250);
/// Number of tries with this bound: with three replicas, three tries usually find the leader.
const QUICK: u32 = 3;
/// Bound of the longest pause before another replica. While no replica leads, a refusal is cheap, and the next leader
/// should not have to wait for its proxies.
const MOST_ELSEWHERE: Duration = Duration::from_secs(2);

/// State of the backoff.
#[derive(Debug)]
pub struct Backoff {
    /// State of the generator of jitter.
    state: u64,
    failures: u32,
    /// Refusals by replicas that do not lead.
    refusals: u32,
}

impl Backoff {
    /// Creates a backoff whose jitter differs from that of other seeds.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed, failures: 0, refusals: 0 }
    }

    /// Resets the backoff after a stream was established.
    pub fn succeeded(&mut self) {
        (self.failures, self.refusals) = (0, 0);
    }

    /// The pause after a failure. `hint`: the shortest pause that the operator asked for.
    pub fn after_failure(&mut self, hint: Option<Duration>) -> Duration {
        let bound = doubled(FIRST, self.failures).min(MOST);
        self.failures = self.failures.saturating_add(1);
        self.pause(bound, hint)
    }

    /// The pause before another replica is tried, because this one does not lead.
    pub fn elsewhere(&mut self, hint: Option<Duration>) -> Duration {
        self.refusals = self.refusals.saturating_add(1);
        let bound = doubled(ELSEWHERE, self.refusals.saturating_sub(QUICK)).min(MOST_ELSEWHERE);
        self.pause(bound, hint)
    }

    /// A random pause below the bound, after the hint. All proxies get the same hint at once, so they spread over
    /// another half of it.
    fn pause(&mut self, bound: Duration, hint: Option<Duration>) -> Duration {
        let hint = hint.unwrap_or_default();
        hint + (bound.max(hint / 2)).mul_f64(self.draw())
    }

    /// A pseudo-random number from 0 to 1 (`SplitMix64`).
    fn draw(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        f64::from(u32::try_from(mixed >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(pauses: &[Duration]) -> Duration {
        pauses.iter().sum::<Duration>() / u32::try_from(pauses.len()).expect("few")
    }

    #[test]
    fn pauses_after_failures_grow_to_a_bound_and_start_over_after_a_success() {
        let mut all = Vec::new();
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            let pauses: Vec<Duration> = (0..20).map(|_| backoff.after_failure(None)).collect();
            assert!(pauses[0] <= FIRST && pauses.iter().all(|pause| *pause <= MOST), "{pauses:?}");
            all.extend(pauses[10..].iter().copied());
            backoff.succeeded();
            assert!(backoff.after_failure(None) <= FIRST);
        }
        let mean = mean(&all);
        assert!(mean > MOST * 2 / 5 && mean < MOST * 3 / 5, "full jitter: half of the bound on average, {mean:?}");
    }

    // C10
    #[test]
    fn another_replica_is_tried_soon_and_then_less_and_less_often() {
        let mut backoff = Backoff::new(7);
        let pauses: Vec<Duration> = (0..40).map(|_| backoff.elsewhere(None)).collect();
        assert!(pauses[..3].iter().all(|pause| *pause <= ELSEWHERE), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= MOST_ELSEWHERE), "{pauses:?}");
        assert!(mean(&pauses[10..]) > MOST_ELSEWHERE / 4, "{pauses:?}");
        backoff.succeeded();
        assert!(backoff.elsewhere(None) <= ELSEWHERE);
    }

    #[test]
    fn proxies_with_different_seeds_do_not_come_back_together() {
        let first = |seed| Backoff::new(seed).after_failure(None);
        let mut pauses: Vec<Duration> = (0..100).map(first).collect();
        pauses.sort();
        pauses.dedup();
        assert!(pauses.len() > 95, "{} different pauses", pauses.len());
    }

    #[test]
    fn the_jitter_is_drawn_by_splitmix64() {
        let mut backoff = Backoff::new(0);
        let pauses = [(); 4].map(|()| backoff.after_failure(None).as_micros());
        assert_eq!(pauses, [176_662, 172_611, 21_147, 1_553_411]);
    }

    #[test]
    fn a_hint_of_the_operator_is_waited_for_and_spread() {
        let hint = Duration::from_secs(10);
        let pauses: Vec<Duration> = (0..100).map(|seed| Backoff::new(seed).after_failure(Some(hint))).collect();
        assert!(pauses.iter().all(|pause| *pause >= hint && *pause <= hint * 3 / 2), "{pauses:?}");
        assert!(pauses.iter().max() > pauses.iter().min().map(|least| *least + hint / 4).as_ref(), "{pauses:?}");
        assert!(Backoff::new(1).elsewhere(Some(hint)) >= hint);
    }

    #[test]
    fn the_bound_of_a_pause_doubles_sixteen_times_at_most() {
        let bounds = [0, 1, 3, 16, 17, u32::MAX].map(|times| doubled(Duration::from_millis(1), times).as_millis());
        assert_eq!(bounds, [1, 2, 8, 65_536, 65_536, 65_536]);
        assert_eq!(doubled(Duration::MAX, 1), Duration::MAX);
    }
}
