//! Listeners that lately refused sessions because the share of their namespace was used up.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::{ListenerId, ReachedLimit};

use super::notices::{About, notice};
use crate::log::Level;

/// Seconds without a refusal after which a limit no longer counts as reached. So long, because each change is reported
/// to the operator.
const LASTS: u64 = 60;

/// The limits that count as reached.
#[derive(Debug, Default)]
pub(super) struct Reached(BTreeMap<ListenerId, Refusals>);

#[derive(Debug)]
struct Refusals {
    /// Number of refusals at the last look.
    count: u64,
    /// Time of the look that found the last refusal, in seconds of the process clock.
    at: u64,
    is_told: bool,
}

impl Reached {
    /// The limit that a listener has reached.
    pub(super) fn of(&self, id: &ListenerId) -> Option<ReachedLimit> {
        self.0.get(id).filter(|refusals| refusals.is_told).map(|_| ReachedLimit::Tenant)
    }

    /// This listener is gone. While it is retired, its refusals stay known: it comes back with its counters.
    pub(super) fn forget(&mut self, id: &ListenerId) {
        if let Some(refusals) = self.0.get_mut(id) {
            refusals.is_told = false;
        }
    }

    /// Takes the number of refusals of each listener that has any, at `now` (seconds of the process clock); other
    /// listeners are forgotten, unless they are `retired`. Returns a notice for each listener that begins or ceases to
    /// count.
    pub(super) fn observe(
        &mut self,
        seen: &BTreeMap<&ListenerId, u64>,
        retired: &BTreeSet<&ListenerId>,
        now: u64,
    ) -> Vec<About> {
        self.0.retain(|id, _| seen.contains_key(id) || retired.contains(id));
        let mut notices = Vec::new();
        for (&id, &count) in seen {
            let known = self.0.entry(id.clone()).or_insert(Refusals { count: 0, at: now, is_told: false });
            if known.count != count {
                (known.count, known.at) = (count, now);
                if !std::mem::replace(&mut known.is_told, true) {
                    let message = format!(
                        "sessions are refused: namespace {} has used up its share of this proxy (reason TenantLimit)",
                        id.origin.namespace
                    );
                    notices.push((id.clone(), notice(Level::Warn, "limit_reached", id, message)));
                }
            } else if known.is_told && now.saturating_sub(known.at) >= LASTS {
                known.is_told = false;
                let message = format!("no session was refused for {LASTS} s");
                notices.push((id.clone(), notice(Level::Info, "limit_left", id, message)));
            }
        }
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::fixtures::id;

    #[test]
    fn a_limit_counts_as_reached_until_no_session_was_refused_for_a_minute() {
        let (id, mut reached) = (id("a"), Reached::default());
        let mut events = Vec::new();
        for now in 0..150 {
            let refusals = match now {
                0..10 => 0,
                10..20 => now - 9,
                20..40 => 10,
                _ => 11,
            };
            let seen = BTreeMap::from([(&id, refusals)]);
            let seen = if refusals == 0 { BTreeMap::new() } else { seen };
            let notices = reached.observe(&seen, &BTreeSet::new(), now);
            events.extend(notices.into_iter().map(|(_, notice)| (now, notice.event)));
            assert_eq!(reached.of(&id).is_some(), (10..100).contains(&now), "{now}");
        }
        assert_eq!(events, [(10, "limit_reached"), (100, "limit_left")]);
    }

    #[test]
    fn a_listener_that_is_gone_is_forgotten() {
        let (id, mut reached) = (id("a"), Reached::default());
        let none = BTreeSet::new();
        reached.observe(&BTreeMap::from([(&id, 1)]), &none, 0);
        assert_eq!(reached.of(&id), Some(ReachedLimit::Tenant));
        reached.forget(&id);
        assert_eq!(reached.of(&id), None, "at once, before the next look");
        reached.observe(&BTreeMap::new(), &none, 1);
        assert!(reached.0.is_empty());
    }

    #[test]
    fn a_listener_that_comes_back_with_its_counters_has_reached_nothing_yet() {
        let (id, mut reached) = (id("a"), Reached::default());
        let none = BTreeSet::new();
        reached.observe(&BTreeMap::from([(&id, 7)]), &none, 0);
        reached.forget(&id);
        assert!(reached.observe(&BTreeMap::new(), &BTreeSet::from([&id]), 1).is_empty());
        assert!(reached.observe(&BTreeMap::from([(&id, 7)]), &none, 2).is_empty());
        assert_eq!(reached.of(&id), None);
        assert_eq!(reached.observe(&BTreeMap::from([(&id, 8)]), &none, 3).len(), 1);
    }
}
