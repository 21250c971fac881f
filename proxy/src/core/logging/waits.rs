//! When to log that connections wait because the process has no room for them.

/// Shortest pause between two notices, in seconds.
const PAUSE: u64 = 60;

/// The last notice about waits for one resource.
#[derive(Debug, Default)]
pub struct Waits {
    /// Waits counted at the last notice.
    logged: u64,
    /// Time of the last notice, in seconds of the process clock.
    at: Option<u64>,
}

impl Waits {
    /// Takes the count of waits at `now` (seconds of the process clock). Returns whether a notice is due: if the count has
    /// changed, no more often than once a minute.
    #[must_use]
    pub fn is_due(&mut self, waits: u64, now: u64) -> bool {
        let is_recent = self.at.is_some_and(|at| now.saturating_sub(at) < PAUSE);
        if waits == self.logged || is_recent {
            return false;
        }
        (self.logged, self.at) = (waits, Some(now));
        true
    }

    /// Takes the count of waits, for none of which a notice is due: another one tells of them.
    pub fn pass_over(&mut self, waits: u64) {
        self.logged = waits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_logged_without_a_new_wait() {
        let mut waits = Waits::default();
        assert!(!waits.is_due(0, 0));
        assert!(waits.is_due(1, 0));
        assert!(!waits.is_due(1, PAUSE * 2));
    }

    #[test]
    fn new_waits_are_logged_once_a_minute() {
        let mut waits = Waits::default();
        let logged: Vec<u64> = (0..130).filter(|second| waits.is_due(*second + 1, *second)).collect();
        assert_eq!(logged, [0, 60, 120]);
    }

    #[test]
    fn waits_that_are_passed_over_are_not_logged_later_and_the_next_one_is() {
        let mut waits = Waits::default();
        waits.pass_over(3);
        assert!(!waits.is_due(3, 0) && waits.is_due(4, 0));
    }

    #[test]
    fn a_wait_within_the_pause_is_logged_after_it() {
        let mut waits = Waits::default();
        assert_eq!(
            [(1, 100), (2, 101), (2, 159), (2, 160), (2, 161)].map(|(count, now)| waits.is_due(count, now)),
            [true, false, false, true, false]
        );
    }
}
