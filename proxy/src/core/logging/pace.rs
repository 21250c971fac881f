//! Rate limits for log lines about many equal events: one line per period, with the number of events since the last.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Seconds between two lines about events of one kind.
pub const EVERY: u64 = 10;

/// The lines about events of one kind, which any thread may count.
#[derive(Debug, Default)]
pub struct Pace {
    /// The second of the last line plus one; 0: there was none.
    last: AtomicU64,
    /// Number of events at the last line.
    logged: AtomicU64,
}

impl Pace {
    /// Decides whether to log the `count`th event of its kind, at second `now`. If so, returns the number of events
    /// since the last line, including this one.
    #[must_use]
    pub fn due(&self, now: u64, count: u64) -> Option<u64> {
        let last = self.last.load(Relaxed);
        if last > 0 && now < last - 1 + EVERY {
            return None;
        }
        // If two threads race, one writes the line.
        self.last.compare_exchange(last, now + 1, Relaxed, Relaxed).ok()?;
        Some(count.saturating_sub(self.logged.swap(count, Relaxed)))
    }

    /// The number of unlogged events, when `count` have happened by second `now`, if there are any and the pause is
    /// over: so the last events of a flood are logged, too.
    #[must_use]
    pub fn rest(&self, now: u64, count: u64) -> Option<u64> {
        if count <= self.logged.load(Relaxed) || self.last.load(Relaxed) == 0 {
            return None;
        }
        self.due(now, count).filter(|since| *since > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_at_its_start_and_one_in_a_while_with_its_size() {
        let pace = Pace::default();
        let lines: Vec<(u64, u64)> =
            (0..=2 * EVERY).filter_map(|now| pace.due(now, now + 1).map(|since| (now, since))).collect();
        assert_eq!(lines, [(0, 1), (EVERY, EVERY), (2 * EVERY, EVERY)]);
    }

    #[test]
    fn the_rest_of_a_flood_is_told_once_when_the_next_line_is_due() {
        let pace = Pace::default();
        assert_eq!(pace.rest(0, 0), None);
        assert_eq!(pace.due(0, 1), Some(1));
        assert_eq!(pace.due(0, 40), None);
        assert_eq!((pace.rest(EVERY - 1, 40), pace.rest(EVERY, 40)), (None, Some(39)));
        assert_eq!((pace.rest(2 * EVERY, 40), pace.due(2 * EVERY, 41)), (None, Some(1)));
    }

    #[test]
    fn a_rare_event_is_a_line_each_time() {
        let pace = Pace::default();
        assert_eq!((pace.due(5, 1), pace.due(5 + EVERY, 2), pace.due(1000, 3)), (Some(1), Some(1), Some(1)));
    }
}
