//! When the periodic work of the control thread is due. Times are since that thread started.

use std::time::Duration;

/// Pause between two retries of failed listeners, and between two checks whether removed listeners still have sessions.
const RETRY: Duration = Duration::from_secs(1);
/// Pause between two checks of the open sockets and the health of backends.
const LOOK: Duration = Duration::from_secs(1);

/// Kinds of periodic work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Retry failed listeners and the file of ports, and forget listeners whose last session has ended.
    pub retry: bool,
    /// Check for hot sockets, a shortage of files or memory, and a change of backend health.
    pub look: bool,
}

/// The next time of each kind of work.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    retry: Duration,
    look: Duration,
}

impl Schedule {
    /// Creates a schedule in which every kind of work is first due one pause after `now`.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { retry: now + RETRY, look: now + LOOK }
    }

    /// When the next needed work is due; `None` if no work is needed.
    #[must_use]
    pub fn next(&self, wanted: Work) -> Option<Duration> {
        let retry = wanted.retry.then_some(self.retry);
        let look = wanted.look.then_some(self.look);
        retry.into_iter().chain(look).min()
    }

    /// Takes the wanted work that is due at `now`. Work that is late runs once, without catching up.
    #[must_use]
    pub fn take_due(&mut self, wanted: Work, now: Duration) -> Work {
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
    const RETRIES: Work = Work { retry: true, look: false };
    const LOOKS: Work = Work { retry: false, look: true };
    const BOTH: Work = Work { retry: true, look: true };
    const START: Duration = Duration::from_secs(100);

    fn before(time: Duration) -> Duration {
        time.saturating_sub(Duration::from_millis(1))
    }

    #[test]
    fn nothing_is_due_before_its_time_or_when_nothing_is_wanted() {
        let mut schedule = Schedule::new(START);
        assert_eq!(schedule.take_due(RETRIES, START + before(RETRY)), NONE);
        assert_eq!(schedule.take_due(LOOKS, START + before(LOOK)), NONE);
        assert_eq!(schedule.take_due(NONE, START + RETRY.max(LOOK) * 5), NONE);
        assert_eq!(schedule.next(NONE), None);
    }

    #[test]
    fn each_kind_of_work_is_due_at_its_time_and_then_a_pause_later() {
        for (work, pause) in [(RETRIES, RETRY), (LOOKS, LOOK)] {
            let mut schedule = Schedule::new(START);
            assert_eq!(schedule.next(work), Some(START + pause));
            assert_eq!(schedule.take_due(work, START + pause), work);
            assert_eq!(schedule.next(work), Some(START + pause * 2));
            assert_eq!(schedule.take_due(work, START + before(pause * 2)), NONE);
        }
    }

    #[test]
    fn late_work_runs_once_and_again_after_a_pause() {
        let mut schedule = Schedule::new(START);
        let late = START + RETRY.max(LOOK) * 5;
        assert_eq!(schedule.take_due(BOTH, late), BOTH);
        assert_eq!(schedule.take_due(BOTH, late), NONE);
        assert_eq!(schedule.next(BOTH), Some(late + RETRY.min(LOOK)));
        assert_eq!(schedule.take_due(BOTH, late + RETRY.max(LOOK)), BOTH);
    }

    #[test]
    fn the_work_that_is_due_first_is_next_and_other_work_keeps_its_time() {
        let mut schedule = Schedule::new(START);
        let late = START + RETRY * 5;
        assert_eq!(schedule.take_due(RETRIES, late), RETRIES);
        assert_eq!(schedule.next(RETRIES), Some(late + RETRY));
        assert_eq!(schedule.next(BOTH), Some(START + LOOK), "a look has not run");
    }
}
