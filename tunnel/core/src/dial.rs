//! When an agent dials again.

use std::time::Duration;

const FIRST_JITTER: Duration = Duration::from_millis(200);
const BASE: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
const STEADY: Duration = Duration::from_secs(30);

/// The pauses between attempts: none but a little chance after a carrier that held, then twice as
/// long each time with full jitter, so that a thousand agents do not come back at one moment.
#[derive(Clone, Debug, Default)]
pub struct Dialler {
    failures: u32,
}

impl Dialler {
    /// The pause before the next attempt. `up` is how long the last carrier held, if there was one;
    /// `chance` is from 0 up to, but not including, 1.
    pub fn pause(&mut self, up: Option<Duration>, chance: f64) -> Duration {
        if up.is_some_and(|up| up >= STEADY) {
            self.failures = 0;
        }
        let longest = match self.failures {
            0 => FIRST_JITTER,
            n => LONGEST.min(BASE.saturating_mul(2u32.saturating_pow(n))),
        };
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_ten_seconds_and_shrink_after_a_carrier_that_held() {
        let mut dialler = Dialler::default();
        let pauses: Vec<u128> = (0..8).map(|_| dialler.pause(None, 1.0).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(dialler.pause(Some(Duration::from_secs(5)), 1.0).as_millis(), 10_000);
        assert_eq!(dialler.pause(Some(Duration::from_secs(30)), 1.0).as_millis(), 200);
        assert_eq!(dialler.pause(None, 0.5).as_millis(), 200);
    }
}
