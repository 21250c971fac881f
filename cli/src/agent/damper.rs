//! Damps equal messages: the first is printed, and then one a minute.

use std::{collections::BTreeMap, time::Duration};

/// Time between two equal messages.
const PAUSE: Duration = Duration::from_secs(60);
/// Most different messages per minute.
const MOST: usize = 64;

/// The messages that were printed within the last minute, with their times.
#[derive(Debug, Default)]
pub(super) struct Damper(BTreeMap<(&'static str, String), Duration>);

impl Damper {
    /// Whether a message of this kind and reason is printed. `now` is the time since any fixed start.
    pub(super) fn tells(&mut self, kind: &'static str, reason: &str, now: Duration) -> bool {
        self.0.retain(|_, at| now.saturating_sub(*at) < PAUSE);
        let key = (kind, reason.to_owned());
        if self.0.contains_key(&key) || self.0.len() >= MOST {
            return false;
        }
        self.0.insert(key, now);
        true
    }

    /// Resets a kind, so that its next message counts as the first.
    pub(super) fn forget(&mut self, kind: &'static str) {
        self.0.retain(|(other, _), _| *other != kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_reason_is_told_at_first_and_then_once_a_minute() {
        let mut damper = Damper::default();
        let told: Vec<u64> = (0..150).filter(|now| damper.tells("lost", "reset", at(*now))).collect();
        assert_eq!(told, [0, 60, 120]);
        assert!(damper.tells("lost", "silent", at(150)) && damper.tells("refused", "reset", at(150)));
        damper.forget("lost");
        assert!(damper.tells("lost", "reset", at(150)) && !damper.tells("refused", "reset", at(150)));
    }

    #[test]
    fn different_reasons_are_bounded_too() {
        let mut damper = Damper::default();
        let told = |damper: &mut Damper, now| (0..1000).filter(|n| damper.tells("a", &n.to_string(), at(now))).count();
        assert_eq!((told(&mut damper, 0), told(&mut damper, 59), told(&mut damper, 60)), (MOST, 0, MOST));
    }
}
