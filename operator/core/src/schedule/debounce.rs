//! Debounces translations of the world: a translation follows a short pause after a change, so that it covers many
//! changes.

use std::time::Duration;

/// Pause between a change and the translation.
const SETTLE: Duration = Duration::from_millis(20);
/// Longest delay that further changes can cause.
const SETTLE_MOST: Duration = Duration::from_millis(200);
/// Longest delay while many proxies have not reported on the last publication. Changes that reach proxies together cost
/// them less than single ones.
const SETTLE_BEHIND: Duration = Duration::from_millis(500);

/// Changes that wait for the next translation.
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
    /// Records a change.
    pub fn touch(&mut self, now: Duration) {
        let waiting = self.waiting.unwrap_or(Waiting { since: now, at: now });
        let at = waiting.at.max((now + SETTLE).min(waiting.since + SETTLE_MOST));
        self.waiting = Some(Waiting { at, ..waiting });
    }

    /// When to translate; `None` if nothing changed.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.waiting.map(|waiting| waiting.at)
    }

    /// Whether to translate now; if not, `due` returns the next time. `is_behind` says whether many proxies have not
    /// reported on the last publication.
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
    fn a_change_is_due_after_a_pause() {
        let mut debounce = Debounce::default();
        assert_eq!((debounce.due(), debounce.take(false, ms(5))), (None, false), "nothing changed");
        debounce.touch(ms(1000));
        assert_eq!(debounce.due(), Some(ms(1020)));
        assert!(debounce.take(false, ms(1020)));
        assert_eq!((debounce.due(), debounce.take(false, ms(1021))), (None, false), "the change was taken");
    }

    #[test]
    fn further_changes_extend_the_pause_but_not_forever() {
        let mut debounce = Debounce::default();
        (0..50).for_each(|tenth| debounce.touch(ms(1000 + tenth * 10)));
        assert_eq!(debounce.due(), Some(ms(1200)));
    }

    #[test]
    fn the_pause_is_longer_while_proxies_are_behind_but_not_forever() {
        let mut debounce = Debounce::default();
        debounce.touch(ms(1000));
        assert!(!debounce.take(true, ms(1020)));
        assert_eq!(debounce.due(), Some(ms(1040)));
        assert!(!debounce.take(true, ms(1499)));
        assert!(debounce.take(true, ms(1500)));
    }
}
