//! The reported health of each listener's backends.

use std::collections::BTreeMap;

use proxy_api::{BackendHealth, ListenerId};

use super::notices::{self, About};
use crate::{
    core::damped::Damped,
    log::{Level, Notice},
};

/// Backend health by listener; a change is reported only once it has lasted. Listeners whose backends are and were
/// healthy have no entry.
#[derive(Debug, Default)]
pub(super) struct Health(BTreeMap<ListenerId, Damped>);

impl Health {
    /// The reported health of a listener's backends.
    pub(super) fn of(&self, id: &ListenerId) -> BackendHealth {
        self.0.get(id).map_or(BackendHealth::All, Damped::reported)
    }

    /// This listener is gone.
    pub(super) fn forget(&mut self, id: &ListenerId) {
        self.0.remove(id);
    }

    /// Takes the health of all live listeners at `now` (seconds of the process clock); other listeners are forgotten.
    /// Returns one notice for each listener whose reported health has changed.
    pub(super) fn observe(&mut self, seen: &BTreeMap<&ListenerId, BackendHealth>, now: u64) -> Vec<About> {
        self.0.retain(|id, damped| seen.contains_key(id) && !damped.is_idle());
        let mut notices = Vec::new();
        for (&id, &health) in seen {
            if health == BackendHealth::All && !self.0.contains_key(id) {
                continue;
            }
            let damped = self.0.entry(id.clone()).or_default();
            let before = damped.reported();
            if damped.observe(health, now) {
                notices.push((id.clone(), changed(id, before, damped.reported())));
            }
        }
        notices
    }
}

fn changed(id: &ListenerId, before: BackendHealth, after: BackendHealth) -> Notice {
    let (level, event, what) = match after {
        BackendHealth::All => (Level::Info, "backends_healthy", "all backends are healthy"),
        BackendHealth::Some if before == BackendHealth::None => {
            (Level::Info, "backends_healthy", "some backends are healthy again")
        }
        BackendHealth::Some => (Level::Warn, "backends_unhealthy", "not all backends are healthy"),
        BackendHealth::None => (
            Level::Error,
            "backends_unhealthy",
            "no backend is healthy; new sessions still try all with a weight above 0",
        ),
    };
    notices::notice(level, event, id, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::fixtures::id;

    #[test]
    fn a_lasting_change_is_reported_once_and_steady_health_never() {
        let (id, mut health) = (id("a"), Health::default());
        let mut events = Vec::new();
        for now in 0..30 {
            let seen = if (10..20).contains(&now) { BackendHealth::None } else { BackendHealth::All };
            let notices = health.observe(&BTreeMap::from([(&id, seen)]), now);
            events.extend(notices.into_iter().map(|(_, notice)| (now, notice.event)));
        }
        assert_eq!(events, [(13, "backends_unhealthy"), (23, "backends_healthy")]);
    }

    #[test]
    fn a_listener_that_is_gone_is_forgotten() {
        let (id, mut health) = (id("a"), Health::default());
        for now in 0..5 {
            health.observe(&BTreeMap::from([(&id, BackendHealth::None)]), now);
        }
        assert_eq!(health.of(&id), BackendHealth::None);
        let mut at_once = Health(health.0.clone());
        at_once.forget(&id);
        assert_eq!(at_once.of(&id), BackendHealth::All);
        assert!(health.observe(&BTreeMap::new(), 5).is_empty());
        assert_eq!(health.of(&id), BackendHealth::All);
    }

    #[test]
    fn listeners_with_healthy_backends_are_not_kept() {
        let (id, mut health) = (id("a"), Health::default());
        let mut kept = |now, seen| {
            health.observe(&BTreeMap::from([(&id, seen)]), now);
            health.0.len()
        };
        assert_eq!(kept(0, BackendHealth::All), 0);
        assert_eq!(kept(1, BackendHealth::None), 1);
        assert_eq!((2..4).map(|now| kept(now, BackendHealth::All)).min(), Some(0), "it did not last");
    }
}
