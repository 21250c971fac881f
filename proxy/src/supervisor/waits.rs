//! When to log that connections wait because the process has no room for them.

use std::time::Duration;

use tokio::time::Instant;

use super::notices;
use crate::{
    core::capacity::SESSION_PLACES,
    files::RESERVE,
    log::{Level, Notice},
};

/// Shortest pause between two notices.
const PAUSE: Duration = Duration::from_secs(60);

/// What connections wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// File descriptors.
    Files,
    /// Memory.
    Sessions,
}

/// The last notice about waits for one resource.
#[derive(Debug)]
pub(super) struct Waits {
    lack: Lack,
    /// Waits counted at the last notice.
    logged: u64,
    /// When the last notice was written.
    at: Option<Instant>,
}

impl Waits {
    /// No notice so far.
    pub(super) fn new(lack: Lack) -> Self {
        Self { lack, logged: 0, at: None }
    }

    /// Takes the count of waits and the usage (places in use, limit) at `now`. Returns a notice if the count has
    /// changed, no more often than once a minute.
    pub(super) fn observe(&mut self, waits: u64, usage: (usize, usize), now: Instant) -> Option<Notice> {
        let is_recent = self.at.is_some_and(|at| now.saturating_duration_since(at) < PAUSE);
        if waits == self.logged || is_recent {
            return None;
        }
        (self.logged, self.at) = (waits, Some(now));
        Some(match self.lack {
            Lack::Files => notices::notice(Level::Warn, "files", "process", no_files(usage)),
            Lack::Sessions => notices::notice(Level::Warn, "sessions", "process", no_sessions(usage)),
        })
    }
}

fn no_files((used, limit): (usize, usize)) -> String {
    format!(
        "new connections wait for file descriptors: {used} of {limit} are in use, besides a reserve of {RESERVE}; \
         raise the limit of open files (ulimit -n)"
    )
}

fn no_sessions((_, limit): (usize, usize)) -> String {
    format!(
        "new connections wait for others to end: {} sessions are the most for this process; raise its memory limit, or \
         set --max-sessions",
        limit / SESSION_PLACES
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: (usize, usize) = (4, 4);

    #[test]
    fn nothing_is_logged_without_a_new_wait() {
        let start = Instant::now();
        let mut waits = Waits::new(Lack::Files);
        assert!(waits.observe(0, USAGE, start).is_none());
        assert!(waits.observe(1, USAGE, start).is_some());
        assert!(waits.observe(1, USAGE, start + PAUSE * 2).is_none());
    }

    #[test]
    fn new_waits_are_logged_once_a_minute() {
        let start = Instant::now();
        let mut waits = Waits::new(Lack::Files);
        let logged: Vec<u32> = (0..130_u32)
            .filter(|second| {
                let now = start + Duration::from_secs((*second).into());
                waits.observe(u64::from(*second) + 1, USAGE, now).is_some()
            })
            .collect();
        assert_eq!(logged, [0, 60, 120]);
    }

    #[test]
    fn a_notice_names_what_is_lacking_and_its_limit() {
        let told = |lack| Waits::new(lack).observe(1, USAGE, Instant::now()).expect("a first wait").message;
        assert!(told(Lack::Files).contains("4 of 4"), "{}", told(Lack::Files));
        assert!(told(Lack::Sessions).contains("2 sessions"), "{}", told(Lack::Sessions));
    }
}
