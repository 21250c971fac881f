//! Listeners that lately refused sessions because the share of their namespace was used up.

use std::{collections::BTreeMap, mem};

use proxy_api::{ListenerId, ReachedLimit};

/// Seconds without a refusal after which a limit no longer counts as reached. So long, because each change is reported
/// to the operator.
pub const LASTS: u64 = 60;

/// The limits that count as reached.
#[derive(Debug, Default)]
pub struct Reached(BTreeMap<ListenerId, Refusals>);

#[derive(Debug)]
struct Refusals {
    /// Number of refusals at the last look.
    count: u64,
    /// Time of the look that found the last refusal, in seconds of the process clock.
    at: u64,
    is_told: bool,
}

/// What has changed about the limit of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It counts as reached.
    Reached,
    /// It counts as reached no more.
    Left,
}

impl Reached {
    /// The limit that a listener has reached.
    #[must_use]
    pub fn of(&self, id: &ListenerId) -> Option<ReachedLimit> {
        self.0.get(id).filter(|refusals| refusals.is_told).map(|_| ReachedLimit::Tenant)
    }

    /// This listener is gone. While it is retired, its refusals stay known: it comes back with its counters.
    pub fn forget(&mut self, id: &ListenerId) {
        if let Some(refusals) = self.0.get_mut(id) {
            refusals.is_told = false;
        }
    }

    /// Takes the number of refusals of a live listener at `now` (seconds of the process clock). Returns whether it begins
    /// or ceases to count.
    pub fn observe(&mut self, id: &ListenerId, count: u64, now: u64) -> Option<Change> {
        if count == 0 {
            self.0.remove(id);
            return None;
        }
        let known = self.0.entry(id.clone()).or_insert(Refusals { count: 0, at: now, is_told: false });
        if known.count != count {
            (known.count, known.at) = (count, now);
            return (!mem::replace(&mut known.is_told, true)).then_some(Change::Reached);
        }
        if !known.is_told || now.saturating_sub(known.at) < LASTS {
            return None;
        }
        known.is_told = false;
        Some(Change::Left)
    }

    /// Forgets the listeners that are gone: neither live nor retired.
    pub fn keep(&mut self, is_there: impl Fn(&ListenerId) -> bool) {
        self.0.retain(|id, _| is_there(id));
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
            events.extend(reached.observe(&id, refusals, now).map(|change| (now, change)));
            assert_eq!(reached.of(&id).is_some(), (10..100).contains(&now), "{now}");
        }
        assert_eq!(events, [(10, Change::Reached), (100, Change::Left)]);
    }

    #[test]
    fn a_listener_that_is_gone_is_forgotten() {
        let (id, mut reached) = (id("a"), Reached::default());
        reached.observe(&id, 1, 0);
        assert_eq!(reached.of(&id), Some(ReachedLimit::Tenant));
        reached.forget(&id);
        assert_eq!(reached.of(&id), None, "at once, before the next look");
        reached.keep(|_| false);
        assert!(reached.0.is_empty());
    }

    #[test]
    fn a_listener_that_comes_back_with_its_counters_has_reached_nothing_yet() {
        let (id, mut reached) = (id("a"), Reached::default());
        reached.observe(&id, 7, 0);
        reached.forget(&id);
        reached.keep(|retired| *retired == id);
        assert_eq!(reached.observe(&id, 7, 2), None);
        assert_eq!(reached.of(&id), None);
        assert_eq!(reached.observe(&id, 8, 3), Some(Change::Reached));
    }
}
