//! Damping: a new state is reported only once it has lasted, so that flapping does not flood the operator with reports.

use proxy_api::BackendHealth;

/// Seconds for which a state has to last.
const LASTS: u64 = 3;

/// The reported health of a listener's backends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Damped {
    reported: BackendHealth,
    /// A different observed state, and the time of its first observation (seconds of the process clock).
    other: Option<(BackendHealth, u64)>,
}

impl Damped {
    /// The reported state.
    #[must_use]
    pub fn reported(&self) -> BackendHealth {
        self.reported
    }

    /// Whether the reported state is that of a new listener, and no other state has been observed since.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.reported == BackendHealth::default() && self.other.is_none()
    }

    /// Records the state observed at `now`; returns whether the reported state changed.
    pub fn observe(&mut self, seen: BackendHealth, now: u64) -> bool {
        if seen == self.reported {
            self.other = None;
            return false;
        }
        let since = self.other.filter(|(other, _)| *other == seen).map_or(now, |(_, since)| since);
        self.other = Some((seen, since));
        if now.saturating_sub(since) < LASTS {
            return false;
        }
        (self.reported, self.other) = (seen, None);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_health_is_told_once_it_has_lasted() {
        use BackendHealth::{All, None, Some};
        let mut damped = Damped::default();
        let seen = [All, None, Some, None, None, All, None, None, None, None, None, All, All, All, All];
        let changes: Vec<bool> = seen.iter().zip(0..).map(|(seen, now)| damped.observe(*seen, now)).collect();
        let at: Vec<usize> = (0..seen.len()).filter(|at| changes[*at]).collect();
        assert_eq!((at, damped.reported()), (vec![9, 14], All));
    }

    #[test]
    fn a_listener_is_idle_while_its_backends_are_as_those_of_a_new_one() {
        let mut damped = Damped::default();
        assert!(damped.is_idle());
        assert!(!damped.observe(BackendHealth::None, 0) && !damped.is_idle(), "another state has begun");
        assert!(!damped.observe(BackendHealth::All, 1) && damped.is_idle(), "it is over");
        damped.observe(BackendHealth::None, 2);
        assert!(!damped.observe(BackendHealth::None, 4), "two seconds");
        assert!(damped.observe(BackendHealth::None, 5) && !damped.is_idle(), "three seconds");
    }
}
