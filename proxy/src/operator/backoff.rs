//! Backoff between attempts: exponential with jitter per proxy, so that a fleet does not reconnect all at once.

use std::{
    hash::{BuildHasher, Hasher},
    time::Duration,
};

/// First backoff after a failure.
const FIRST: Duration = Duration::from_millis(200);
/// Longest backoff.
const MOST: Duration = Duration::from_secs(5);
/// Longest pause before trying another replica.
const SOON: Duration = Duration::from_millis(250);

/// State of the backoff.
#[derive(Debug)]
pub(super) struct Backoff {
    seed: foldhash::fast::RandomState,
    name: String,
    drawn: u64,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(name: String) -> Self {
        Self { seed: foldhash::fast::RandomState::default(), name, drawn: 0, failures: 0 }
    }

    /// Resets the backoff after a stream was established.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The backoff after a failure, with jitter: between half of it and all of it.
    pub(super) fn next(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.failures.min(10)).min(MOST);
        self.failures += 1;
        pause.mul_f64(0.5 + 0.5 * self.draw())
    }

    /// The pause before trying another replica.
    pub(super) fn soon(&mut self) -> Duration {
        SOON.mul_f64(0.2 + 0.8 * self.draw())
    }

    /// A pseudo-random number from 0 to 1.
    fn draw(&mut self) -> f64 {
        self.drawn += 1;
        let mut hasher = self.seed.build_hasher();
        hasher.write(self.name.as_bytes());
        hasher.write_u64(self.drawn);
        f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_anew_after_a_success() {
        let mut backoff = Backoff::new("pod".to_owned());
        let pauses: Vec<Duration> = (0..20).map(|_| backoff.next()).collect();
        assert!(pauses[0] >= FIRST / 2 && pauses[0] <= FIRST, "{pauses:?}");
        assert!(pauses[10..].iter().all(|pause| *pause >= MOST / 2 && *pause <= MOST), "{pauses:?}");
        assert!(pauses[10..].windows(2).any(|pair| pair[0] != pair[1]), "jitter: {pauses:?}");
        backoff.succeeded();
        assert!(backoff.next() <= FIRST);
        assert!((0..100).all(|_| backoff.soon() <= SOON));
    }
}
