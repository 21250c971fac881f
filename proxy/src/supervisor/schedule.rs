//! When the periodic work of the control thread is due. Time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Pause between two retries of failed listeners, and between two checks whether removed listeners still have sessions.
const RETRY: Duration = Duration::from_secs(1);
/// Pause between two looks at the open sockets and the health of backends.
const LOOK: Duration = Duration::from_secs(1);

/// Kinds of periodic work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Work {
    /// Retry failed listeners and forget listeners whose last session has ended.
    pub(super) retry: bool,
    /// Look for hot sockets, a shortage of files and a change of backend health.
    pub(super) look: bool,
}

/// The next time of each kind of work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    retry: Instant,
    look: Instant,
}

impl Schedule {
    /// A schedule in which every kind of work is first due one pause after `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { retry: now + RETRY, look: now + LOOK }
    }

    /// When the next wanted work is due; `None` if no work is wanted.
    pub(super) fn next(&self, wanted: Work) -> Option<Instant> {
        let retry = wanted.retry.then_some(self.retry);
        let look = wanted.look.then_some(self.look);
        retry.into_iter().chain(look).min()
    }

    /// Takes the wanted work that is due at `now`. Work that is late runs once, without catching up.
    pub(super) fn take_due(&mut self, wanted: Work, now: Instant) -> Work {
        let due = Work { retry: wanted.retry && self.retry <= now, look: wanted.look && self.look <= now };
        if due.retry {
            self.retry = now + RETRY;
        }
        if due.look {
            self.look = now + LOOK;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Work = Work { retry: false, look: false };
    const BOTH: Work = Work { retry: true, look: true };

    #[test]
    fn nothing_is_due_before_its_time_or_when_nothing_is_wanted() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        assert_eq!(schedule.take_due(BOTH, start), NONE);
        let late = start + RETRY.max(LOOK) * 5;
        assert_eq!(schedule.take_due(NONE, late), NONE);
        assert_eq!(schedule.next(NONE), None);
    }

    #[test]
    fn late_work_runs_once_and_again_after_a_pause() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let late = start + RETRY.max(LOOK) * 5;
        assert_eq!(schedule.take_due(BOTH, late), BOTH);
        assert_eq!(schedule.take_due(BOTH, late), NONE);
        assert_eq!(schedule.next(BOTH), Some(late + RETRY.min(LOOK)));
        assert_eq!(schedule.take_due(BOTH, late + RETRY.max(LOOK)), BOTH);
    }

    #[test]
    fn work_that_becomes_wanted_late_is_due_at_once() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let late = start + RETRY * 5;
        let retry = Work { retry: true, look: false };
        assert_eq!(schedule.next(retry), Some(start + RETRY));
        assert_eq!(schedule.take_due(retry, late), retry);
        assert_eq!(schedule.next(retry), Some(late + RETRY));
    }
}
