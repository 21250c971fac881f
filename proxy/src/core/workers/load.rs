//! Computes the load from counters at two points in time.

use std::{collections::BTreeMap, mem};

use proxy_api::{Load, MAX_LOADS, Work};

use crate::core::workers::walk::Walk;

/// Counters of one forward, summed over its listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Live sessions.
    pub live: u64,
    /// Sessions opened.
    pub begun: u64,
    /// Bytes, both directions together.
    pub bytes: u64,
}

/// Counters by forward, `NAMESPACE/NAME`.
pub type ByForward = BTreeMap<String, Counts>;

/// The load between two counts, computed in steps of few forwards: a proxy may have tens of thousands of them.
#[derive(Debug)]
pub struct Summing {
    /// The earlier counts of the forwards that are not summed yet.
    before: ByForward,
    now: ByForward,
    seconds: f64,
    walk: Walk<String>,
    load: Load,
}

impl Summing {
    /// Begins the load between two counts `seconds` apart. Intervals below a second count as a whole second, because
    /// they say too little about a single one.
    #[must_use]
    pub fn of(before: ByForward, now: ByForward, seconds: f64) -> Self {
        Self { before, now, seconds: seconds.max(1.0), walk: Walk::default(), load: Load::default() }
    }

    /// Adds the next `most` forwards. Returns the load and the later counts, once, when all are added.
    #[must_use]
    pub fn step(&mut self, most: usize) -> Option<(Load, ByForward)> {
        let (seconds, is_each_reported) = (self.seconds, self.now.len() <= MAX_LOADS);
        // Removed listeners take their counters with them.
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate"
        )]
        let rate = |before: u64, now: u64| (now.saturating_sub(before) as f64 / seconds).round() as u64;
        for (forward, now) in self.walk.step(&self.now, most) {
            let before = self.before.remove(forward).unwrap_or_default();
            let work = Work {
                connections: now.live,
                new_per_second: rate(before.begun, now.begun),
                bytes_per_second: rate(before.bytes, now.bytes),
            };
            self.load.sum.connections += work.connections;
            self.load.sum.new_per_second += work.new_per_second;
            self.load.sum.bytes_per_second += work.bytes_per_second;
            if is_each_reported {
                self.load.forwards.insert(forward.clone(), work);
            }
        }
        (!self.walk.is_under_way()).then(|| (mem::take(&mut self.load), mem::take(&mut self.now)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The load in steps of this many forwards, with the number of steps.
    fn in_steps(before: &ByForward, now: &ByForward, seconds: f64, most: usize) -> (Load, usize) {
        let (mut summing, mut steps) = (Summing::of(before.clone(), now.clone(), seconds), 0);
        loop {
            steps += 1;
            if let Some((load, counts)) = summing.step(most) {
                assert_eq!(counts, *now, "the next ones are compared with them");
                return (load, steps);
            }
        }
    }

    fn load(before: &ByForward, now: &ByForward, seconds: f64) -> Load {
        in_steps(before, now, seconds, usize::MAX).0
    }

    /// The load of all forwards at once.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
    fn at_once(before: &ByForward, now: &ByForward, seconds: f64) -> Load {
        let rate = |before: u64, now: u64| (now.saturating_sub(before) as f64 / seconds.max(1.0)).round() as u64;
        let mut load = Load::default();
        for (forward, now) in now {
            let before = before.get(forward).copied().unwrap_or_default();
            let work = Work {
                connections: now.live,
                new_per_second: rate(before.begun, now.begun),
                bytes_per_second: rate(before.bytes, now.bytes),
            };
            load.sum.connections += work.connections;
            load.sum.new_per_second += work.new_per_second;
            load.sum.bytes_per_second += work.bytes_per_second;
            load.forwards.insert(forward.clone(), work);
        }
        if load.forwards.len() > MAX_LOADS {
            load.forwards.clear();
        }
        load
    }

    fn counts() -> impl Strategy<Value = ByForward> {
        let one = (0..9_u64, 0..9000_u64, 0..9000_u64).prop_map(|(live, begun, bytes)| Counts { live, begun, bytes });
        prop::collection::btree_map((0..99_u8).prop_map(|at| format!("ns/{at}")), one, 0..90)
    }

    proptest! {
        #[test]
        fn steps_lead_to_the_load_of_all_forwards_at_once(
            before in counts(), now in counts(), seconds in 0.0..9.0_f64, most in 1..20_usize,
        ) {
            let (load, steps) = in_steps(&before, &now, seconds, most);
            prop_assert_eq!(load, at_once(&before, &now, seconds));
            prop_assert_eq!(steps, now.len() / most + 1, "each forward is in one step");
        }
    }

    #[test]
    fn rates_are_of_the_time_between_and_many_forwards_are_told_as_one() {
        let at = |live, begun, bytes| ByForward::from([("ns/a".to_owned(), Counts { live, begun, bytes })]);
        let measured = load(&at(1, 10, 1000), &at(4, 30, 5000), 2.0);
        assert_eq!(measured.sum, Work { connections: 4, new_per_second: 10, bytes_per_second: 2000 });
        assert_eq!(measured.forwards["ns/a"], measured.sum);
        let measured = load(&at(1, 10, 1000), &at(2, 11, 1400), 0.005);
        assert_eq!(
            measured.sum,
            Work { connections: 2, new_per_second: 1, bytes_per_second: 400 },
            "right after a reconnect"
        );
        assert_eq!(load(&at(1, 10, 1000), &at(0, 0, 0), 2.0).sum, Work::default(), "a recreated listener");
        let mut many: ByForward =
            (0..=MAX_LOADS).map(|n| (format!("ns/{n}"), Counts { live: 1, begun: 1, bytes: 0 })).collect();
        let measured = load(&ByForward::new(), &many, 1.0);
        assert_eq!((measured.sum.connections, measured.forwards.len()), (MAX_LOADS as u64 + 1, 0));
        many.pop_first();
        assert_eq!(load(&ByForward::new(), &many, 1.0).forwards.len(), MAX_LOADS);
    }
}
