//! The reported health of each listener's backends.

use std::collections::BTreeMap;

use proxy_api::{BackendHealth, ListenerId};

use crate::core::backends::damped::Damped;

/// Backend health by listener; a change is reported only once it has lasted. Listeners whose backends are and were
/// healthy have no entry.
#[derive(Debug, Default)]
pub struct Health(BTreeMap<ListenerId, Damped>);

/// How the reported health of a listener has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The health that was reported before.
    pub before: BackendHealth,
    /// The health that is reported now.
    pub after: BackendHealth,
}

impl Health {
    /// The reported health of a listener's backends.
    #[must_use]
    pub fn of(&self, id: &ListenerId) -> BackendHealth {
        self.0.get(id).map_or(BackendHealth::All, Damped::reported)
    }

    /// Forgets a listener that is gone.
    pub fn forget(&mut self, id: &ListenerId) {
        self.0.remove(id);
    }

    /// Takes the health of a live listener's backends at `now` (seconds of the process clock). Returns how the reported
    /// health has changed, if it has.
    pub fn observe(&mut self, id: &ListenerId, health: BackendHealth, now: u64) -> Option<Change> {
        if health == BackendHealth::All && !self.0.contains_key(id) {
            return None;
        }
        let damped = self.0.entry(id.clone()).or_default();
        let before = damped.reported();
        let changes = damped.observe(health, now);
        let (after, is_idle) = (damped.reported(), damped.is_idle());
        if is_idle {
            self.0.remove(id);
        }
        changes.then_some(Change { before, after })
    }
}

#[cfg(test)]
mod tests {
    use proxy_api::Origin;

    use super::*;

    fn id(name: &str) -> ListenerId {
        ListenerId::new(Origin::port_forward("ns", "f"), name)
    }

    #[test]
    fn a_lasting_change_is_reported_once_and_steady_health_never() {
        let (id, mut health) = (id("a"), Health::default());
        let mut changes = Vec::new();
        for now in 0..30 {
            let seen = if (10..20).contains(&now) { BackendHealth::None } else { BackendHealth::All };
            changes.extend(health.observe(&id, seen, now).map(|change| (now, change)));
        }
        let [down, up] = [(BackendHealth::All, BackendHealth::None), (BackendHealth::None, BackendHealth::All)]
            .map(|(before, after)| Change { before, after });
        assert_eq!(changes, [(13, down), (23, up)]);
    }

    #[test]
    fn a_listener_that_is_gone_is_forgotten() {
        let (id, mut health) = (id("a"), Health::default());
        for now in 0..5 {
            health.observe(&id, BackendHealth::None, now);
        }
        assert_eq!(health.of(&id), BackendHealth::None);
        health.forget(&id);
        assert_eq!(health.of(&id), BackendHealth::All);
    }

    /// Takes the health of all live listeners at once, and has entries for all of them.
    fn observe_all(
        known: &mut BTreeMap<ListenerId, Damped>,
        seen: &BTreeMap<&ListenerId, BackendHealth>,
        now: u64,
    ) -> Vec<(ListenerId, Change)> {
        known.retain(|id, _| seen.contains_key(id));
        let mut changes = Vec::new();
        for (&id, &health) in seen {
            let damped = known.entry(id.clone()).or_default();
            let before = damped.reported();
            if damped.observe(health, now) {
                changes.push((id.clone(), Change { before, after: damped.reported() }));
            }
        }
        changes
    }

    /// 64 rounds of the health of four listeners, some of which are not live in some rounds.
    #[test]
    fn one_listener_after_the_other_changes_as_all_at_once() {
        let ids = ["a", "b", "c", "d"].map(id);
        let (mut all, mut health, mut changes) = (BTreeMap::new(), Health::default(), 0);
        for now in 0..64_usize {
            let states = [BackendHealth::All, BackendHealth::Some, BackendHealth::None];
            let live = ids.iter().enumerate().filter(|(at, _)| !(now + 7 * at).is_multiple_of(13));
            let seen: BTreeMap<_, _> = live.map(|(at, id)| (id, states[(now / (4 + at)) % 3])).collect();
            let expected = observe_all(&mut all, &seen, now as u64);
            ids.iter().filter(|id| !seen.contains_key(id)).for_each(|id| health.forget(id));
            let found =
                seen.iter().filter_map(|(&id, seen)| Some((id.clone(), health.observe(id, *seen, now as u64)?)));
            let found: Vec<(ListenerId, Change)> = found.collect();
            assert_eq!(found, expected, "{now}");
            let reported = |id: &ListenerId| all.get(id).map_or(BackendHealth::All, Damped::reported);
            assert!(ids.iter().all(|id| health.of(id) == reported(id)), "{now}");
            changes += found.len();
        }
        assert!(changes > 0);
    }

    #[test]
    fn listeners_with_healthy_backends_are_not_kept() {
        let (id, mut health) = (id("a"), Health::default());
        let mut kept = |now, seen| {
            health.observe(&id, seen, now);
            health.0.len()
        };
        assert_eq!(kept(0, BackendHealth::All), 0);
        assert_eq!(kept(1, BackendHealth::None), 1);
        assert_eq!(kept(2, BackendHealth::All), 0, "it did not last");
    }
}
