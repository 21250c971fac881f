//! When to log that connections wait because the process has no files left.

use std::time::Duration;

use tokio::time::Instant;

use super::notices;
use crate::{
    files::RESERVE,
    log::{Level, Notice},
};

/// Shortest pause between two notices.
const PAUSE: Duration = Duration::from_secs(60);

/// The last notice about waits for files.
#[derive(Debug, Default)]
pub(super) struct FileWaits {
    /// Waits counted at the last notice.
    logged: u64,
    /// When the last notice was written.
    at: Option<Instant>,
}

impl FileWaits {
    /// Takes the count of waits and the usage (files in use, limit) at `now`. Returns a notice if the count has
    /// changed, no more often than once a minute.
    pub(super) fn observe(&mut self, waits: u64, (used, limit): (usize, usize), now: Instant) -> Option<Notice> {
        let is_recent = self.at.is_some_and(|at| now.saturating_duration_since(at) < PAUSE);
        if waits == self.logged || is_recent {
            return None;
        }
        (self.logged, self.at) = (waits, Some(now));
        let message = format!(
            "new connections wait for file descriptors: {used} of {limit} are in use, besides a reserve of {RESERVE}; \
             raise the limit of open files (ulimit -n)"
        );
        Some(notices::notice(Level::Warn, "files", "process", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: (usize, usize) = (4, 4);

    #[test]
    fn nothing_is_logged_without_a_new_wait() {
        let start = Instant::now();
        let mut waits = FileWaits::default();
        assert!(waits.observe(0, USAGE, start).is_none());
        assert!(waits.observe(1, USAGE, start).is_some());
        assert!(waits.observe(1, USAGE, start + PAUSE * 2).is_none());
    }

    #[test]
    fn new_waits_are_logged_once_a_minute() {
        let start = Instant::now();
        let mut waits = FileWaits::default();
        let logged: Vec<u32> = (0..130_u32)
            .filter(|second| {
                let now = start + Duration::from_secs((*second).into());
                waits.observe(u64::from(*second) + 1, USAGE, now).is_some()
            })
            .collect();
        assert_eq!(logged, [0, 60, 120]);
    }
}
