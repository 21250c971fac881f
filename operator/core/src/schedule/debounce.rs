//! When changes of the world are looked at: a moment after the first one, so that one look takes many.

use std::time::Duration;

/// Pause after a change before the world is looked at.
const SETTLE: Duration = Duration::from_millis(20);
/// Longest time that further changes may put the look off.
const SETTLE_MOST: Duration = Duration::from_millis(200);
/// Longest time that the look waits while many proxies have not reported on what was published last: proxies that are sent
/// many changes at once share the work that single changes would make.
const SETTLE_BEHIND: Duration = Duration::from_millis(500);

/// Changes that wait to be looked at.
#[derive(Debug, Default)]
pub struct Debounce {
    waiting: Option<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: Duration,
    at: Duration,
}

impl Debounce {
    /// Something changed.
    pub fn touch(&mut self, now: Duration) {
        let waiting = self.waiting.unwrap_or(Waiting { since: now, at: now });
        let at = waiting.at.max((now + SETTLE).min(waiting.since + SETTLE_MOST));
        self.waiting = Some(Waiting { at, ..waiting });
    }

    /// When to look; `None` if nothing changed.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.waiting.map(|waiting| waiting.at)
    }

    /// Whether to look now; if not, `due` says when. `is_behind`: many proxies have not reported on what was published last.
    pub fn take(&mut self, is_behind: bool, now: Duration) -> bool {
        let Some(waiting) = self.waiting else { return false };
        if is_behind && now < waiting.since + SETTLE_BEHIND {
            self.waiting = Some(Waiting { at: now + SETTLE, ..waiting });
            return false;
        }
        self.waiting = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_change_is_looked_at_a_moment_later() {
        let mut debounce = Debounce::default();
        assert_eq!((debounce.due(), debounce.take(false, ms(5))), (None, false), "nothing changed");
        debounce.touch(ms(1000));
        assert_eq!(debounce.due(), Some(ms(1020)));
        assert!(debounce.take(false, ms(1020)));
        assert_eq!((debounce.due(), debounce.take(false, ms(1021))), (None, false), "it was looked at");
    }

    #[test]
    fn further_changes_put_the_look_off_and_not_for_ever() {
        let mut debounce = Debounce::default();
        (0..50).for_each(|tenth| debounce.touch(ms(1000 + tenth * 10)));
        assert_eq!(debounce.due(), Some(ms(1200)));
    }

    #[test]
    fn while_proxies_are_behind_the_look_waits_and_not_for_ever() {
        let mut debounce = Debounce::default();
        debounce.touch(ms(1000));
        assert!(!debounce.take(true, ms(1020)));
        assert_eq!(debounce.due(), Some(ms(1040)));
        assert!(!debounce.take(true, ms(1499)));
        assert!(debounce.take(true, ms(1500)));
    }
}
