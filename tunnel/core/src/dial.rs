//! When an agent dials again.

use std::time::Duration;

/// The longest pause after a carrier that held.
const FIRST: Duration = Duration::from_millis(200);
/// The increase of the longest pause after each further failure.
const STEP: Duration = Duration::from_millis(400);
const LONGEST: Duration = Duration::from_secs(10);
/// The least value of the longest pause of an agent that was turned away. The pause is at least half of that.
const TURNED_AWAY: Duration = Duration::from_millis(1500);
/// A carrier that lasted this long has held: the endpoint had admitted the agent.
const HELD: Duration = Duration::from_millis(500);

/// The pauses between attempts. Each is random, from zero to a maximum that is short after a carrier that held, and
/// grows with each failed attempt.
///
/// The maximum grows linearly and does not double. When a thousand agents reconnect to an endpoint that takes 200 a
/// second, doubling would leave the agents that were closed several times waiting after all others are back.
///
/// An agent is turned away if the server closes its connection before the handshake, as it does beyond its rate. The
/// server is there, and will not have a place for the agent a moment later, so the pause is never short then.
#[derive(Clone, Debug, Default)]
pub struct Dialler {
    failures: u32,
}

impl Dialler {
    /// The pause before the next attempt. `up` is how long the last carrier lasted, if there was one;
    /// `chance` is from 0 up to, but not including, 1.
    pub fn pause(&mut self, up: Option<Duration>, chance: f64) -> Duration {
        if up.is_some_and(|up| up >= HELD) {
            self.failures = 0;
        }
        let longest = self.longest();
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(chance.clamp(0.0, 1.0))
    }

    /// The pause before the next attempt of an agent that was turned away. `chance` is as for [`Dialler::pause`].
    pub fn pause_when_turned_away(&mut self, chance: f64) -> Duration {
        let half = self.longest().max(TURNED_AWAY) / 2;
        self.failures = self.failures.saturating_add(1);
        half + half.mul_f64(chance.clamp(0.0, 1.0))
    }

    /// The longest pause now.
    fn longest(&self) -> Duration {
        LONGEST.min(FIRST + STEP.saturating_mul(self.failures))
    }

    /// The pause before the next attempt when success is unlikely: the pause after many failures.
    pub(crate) fn long_pause(&mut self, chance: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        LONGEST.mul_f64(chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Option<Duration> = Some(Duration::from_millis(499));
    const HELD_HALF_A_SECOND: Option<Duration> = Some(Duration::from_millis(500));

    fn pauses(up: Option<Duration>, count: usize) -> Vec<u128> {
        let mut dialler = Dialler::default();
        (0..count).map(|_| dialler.pause(up, 1.0).as_millis()).collect()
    }

    #[test]
    fn pauses_grow_to_ten_seconds_while_no_carrier_comes_or_holds() {
        for up in [None, AT_ONCE] {
            let pauses = pauses(up, 28);
            assert_eq!(pauses[..4], [200, 600, 1000, 1400]);
            assert_eq!(pauses[23..], [9400, 9800, 10_000, 10_000, 10_000]);
        }
    }

    #[test]
    fn a_carrier_that_is_cut_after_it_held_is_replaced_within_a_fifth_of_a_second_each_time() {
        assert_eq!(pauses(HELD_HALF_A_SECOND, 60), [200; 60]);
    }

    #[test]
    fn who_is_turned_away_waits_for_three_quarters_of_a_second_or_more_until_a_carrier_held() {
        let mut dialler = Dialler::default();
        let mut pauses =
            |chance| (0..6).map(|_| dialler.pause_when_turned_away(chance).as_millis()).collect::<Vec<_>>();
        assert_eq!(pauses(0.0), [750, 750, 750, 750, 900, 1100]);
        assert_eq!(pauses(1.0), [2600, 3000, 3400, 3800, 4200, 4600]);
        for _ in 0..100 {
            dialler.pause_when_turned_away(0.5);
        }
        assert_eq!(dialler.pause_when_turned_away(0.5).as_millis(), 7500, "of 5 to 10 s");
        assert_eq!(dialler.pause(HELD_HALF_A_SECOND, 1.0).as_millis(), 200);
    }

    #[test]
    fn pauses_are_short_again_after_a_carrier_that_held() {
        let mut dialler = Dialler::default();
        for _ in 0..100 {
            dialler.pause(None, 1.0);
        }
        assert_eq!(dialler.pause(HELD_HALF_A_SECOND, 1.0).as_millis(), 200);
        assert_eq!(dialler.pause(None, 0.5).as_millis(), 300, "half of 600");
    }
}
