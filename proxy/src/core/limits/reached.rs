//! Listeners that recently refused sessions, or whose DNS names recently waited for their lookups, because the share of
//! their namespace or of one source was used up, and listeners that recently had a loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use proxy_api::{ListenerId, ReachedLimit};

/// Seconds without a refusal, or a long wait, after which a limit no longer counts as reached, or a loop as ended. This
/// is long because each change is reported to the operator.
pub const LASTS: u64 = 60;

/// The limits that count as reached.
#[derive(Debug, Default)]
pub struct Reached {
    /// Refusals for the share of the namespace.
    tenant: Refusals,
    /// Refusals for the share of one source.
    source: Refusals,
    /// Sessions and datagrams of a loop.
    loops: Refusals,
    /// Listeners with names whose namespace has used up its lookups.
    lookups: BTreeSet<ListenerId>,
}

/// Why the sessions or datagrams of a listener are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The share of the listener's namespace is used up.
    Tenant,
    /// One source has reached its share.
    Source,
    /// They are part of a loop.
    Loop,
}

/// Refusals for one cause, by listener.
#[derive(Debug, Default)]
struct Refusals(BTreeMap<ListenerId, Refused>);

#[derive(Debug)]
struct Refused {
    /// Number of refusals at the last observation.
    count: u64,
    /// Time of the observation that found the last refusal, in seconds of the process clock.
    at: u64,
    is_told: bool,
}

/// A change of a limit that a listener has reached, or of its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The limit now counts as reached, or the loop has begun.
    Reached,
    /// The limit no longer counts as reached, or the loop has ended.
    Left,
}

impl Reached {
    /// The limit that a listener has reached. A refused session is worse than a name that waits, and a namespace that
    /// is refused concerns more than a source.
    #[must_use]
    pub fn of(&self, id: &ListenerId) -> Option<ReachedLimit> {
        let tenant = self.tenant.is_told(id).then_some(ReachedLimit::Tenant);
        let source = || self.source.is_told(id).then_some(ReachedLimit::Source);
        tenant.or_else(source).or_else(|| self.lookups.contains(id).then_some(ReachedLimit::Lookups))
    }

    /// Whether a listener has a loop.
    #[must_use]
    pub fn has_loop(&self, id: &ListenerId) -> bool {
        self.loops.is_told(id)
    }

    /// Forgets a listener that is gone. While it is retired, its refusals stay known: it may return with its counters.
    pub fn forget(&mut self, id: &ListenerId) {
        for refusals in self.refusals() {
            refusals.forget(id);
        }
        self.lookups.remove(id);
    }

    /// Takes the number of refusals of a live listener for a cause, at `now` (seconds of the process clock). Returns
    /// whether the limit begins or ceases to count as reached, or a loop begins or ends.
    pub fn observe(&mut self, cause: Cause, id: &ListenerId, count: u64, now: u64) -> Option<Change> {
        let refusals = match cause {
            Cause::Tenant => &mut self.tenant,
            Cause::Source => &mut self.source,
            Cause::Loop => &mut self.loops,
        };
        refusals.observe(id, count, now)
    }

    /// Takes how long ago a lookup of a live listener's namespace last waited too long. Returns whether the lookups
    /// begin or cease to count as used up.
    pub fn observe_lookups(&mut self, id: &ListenerId, since_long_wait: Option<Duration>) -> Option<Change> {
        if since_long_wait.is_some_and(|ago| ago.as_secs() < LASTS) {
            return (!self.lookups.contains(id) && self.lookups.insert(id.clone())).then_some(Change::Reached);
        }
        self.lookups.remove(id).then_some(Change::Left)
    }

    /// Forgets the listeners that are gone: neither live nor retired.
    pub fn keep(&mut self, is_there: impl Fn(&ListenerId) -> bool) {
        for refusals in self.refusals() {
            refusals.0.retain(|id, _| is_there(id));
        }
        self.lookups.retain(is_there);
    }

    fn refusals(&mut self) -> [&mut Refusals; 3] {
        [&mut self.tenant, &mut self.source, &mut self.loops]
    }
}

impl Refusals {
    fn is_told(&self, id: &ListenerId) -> bool {
        self.0.get(id).is_some_and(|refused| refused.is_told)
    }

    fn forget(&mut self, id: &ListenerId) {
        if let Some(refused) = self.0.get_mut(id) {
            refused.is_told = false;
        }
    }

    fn observe(&mut self, id: &ListenerId, count: u64, now: u64) -> Option<Change> {
        if count == 0 {
            return self.0.remove(id).filter(|refused| refused.is_told).map(|_| Change::Left);
        }
        let known = self.0.entry(id.clone()).or_insert(Refused { count: 0, at: now, is_told: false });
        // A counter that begins again is no refusal.
        let is_more = count > known.count;
        known.count = count;
        if is_more {
            known.at = now;
            return (!mem::replace(&mut known.is_told, true)).then_some(Change::Reached);
        }
        if !known.is_told || now.saturating_sub(known.at) < LASTS {
            return None;
        }
        known.is_told = false;
        Some(Change::Left)
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
            events.extend(reached.observe(Cause::Tenant, &id, refusals, now).map(|change| (now, change)));
            assert_eq!(reached.of(&id).is_some(), (10..100).contains(&now), "{now}");
        }
        assert_eq!(events, [(10, Change::Reached), (100, Change::Left)]);
    }

    #[test]
    fn a_listener_that_is_gone_is_forgotten() {
        let (id, mut reached) = (id("a"), Reached::default());
        reached.observe(Cause::Tenant, &id, 1, 0);
        assert_eq!(reached.of(&id), Some(ReachedLimit::Tenant));
        reached.forget(&id);
        assert_eq!(reached.of(&id), None, "at once, before the next look");
        assert_eq!(reached.observe_lookups(&id, Some(Duration::ZERO)), Some(Change::Reached));
        reached.forget(&id);
        assert_eq!(reached.of(&id), None);
        reached.observe_lookups(&id, Some(Duration::ZERO));
        reached.observe(Cause::Source, &id, 1, 0);
        reached.observe(Cause::Loop, &id, 1, 0);
        reached.keep(|_| false);
        assert!(reached.refusals().iter().all(|refusals| refusals.0.is_empty()) && reached.lookups.is_empty());
    }

    #[test]
    fn a_listener_has_a_loop_until_nothing_came_back_for_a_minute_whatever_limit_it_reaches() {
        let (id, mut reached) = (id("a"), Reached::default());
        assert_eq!(reached.observe(Cause::Loop, &id, 0, 0), None);
        assert_eq!(reached.observe(Cause::Loop, &id, 3, 1), Some(Change::Reached));
        reached.observe(Cause::Tenant, &id, 1, 1);
        assert_eq!((reached.has_loop(&id), reached.of(&id)), (true, Some(ReachedLimit::Tenant)));
        assert_eq!(reached.observe(Cause::Loop, &id, 4, 31), None);
        assert_eq!(reached.observe(Cause::Loop, &id, 4, 30 + LASTS), None);
        assert_eq!(reached.observe(Cause::Loop, &id, 4, 31 + LASTS), Some(Change::Left));
        assert!(!reached.has_loop(&id));
        reached.observe(Cause::Loop, &id, 5, 100);
        reached.forget(&id);
        assert!(!reached.has_loop(&id), "at once, before the next look");
    }

    #[test]
    fn a_counter_that_begins_again_is_no_refusal_and_one_that_is_gone_ends_the_limit() {
        let (id, mut reached) = (id("a"), Reached::default());
        reached.observe(Cause::Loop, &id, 7, 0);
        assert_eq!(reached.observe(Cause::Loop, &id, 2, LASTS - 1), None);
        assert_eq!(reached.observe(Cause::Loop, &id, 2, LASTS), Some(Change::Left));
        assert_eq!(reached.observe(Cause::Loop, &id, 3, LASTS), Some(Change::Reached));
        assert_eq!(reached.observe(Cause::Loop, &id, 0, LASTS), Some(Change::Left));
        assert_eq!(reached.observe(Cause::Loop, &id, 0, LASTS), None);
    }

    #[test]
    fn lookups_count_as_used_up_until_none_has_waited_long_for_a_minute() {
        let (id, mut reached) = (id("a"), Reached::default());
        let mut observe = |seconds: Option<u64>| {
            let change = reached.observe_lookups(&id, seconds.map(Duration::from_secs));
            (change, reached.of(&id))
        };
        let lookups = Some(ReachedLimit::Lookups);
        assert_eq!(observe(None), (None, None));
        assert_eq!(observe(Some(0)), (Some(Change::Reached), lookups));
        assert_eq!(observe(Some(LASTS - 1)), (None, lookups));
        assert_eq!(observe(Some(LASTS)), (Some(Change::Left), None));
        assert_eq!(observe(Some(1)), (Some(Change::Reached), lookups));
        assert_eq!(observe(None), (Some(Change::Left), None), "it has no names any more");
    }

    #[test]
    fn a_listener_that_refuses_sessions_says_that_first() {
        let (id, mut reached) = (id("a"), Reached::default());
        reached.observe_lookups(&id, Some(Duration::ZERO));
        assert_eq!(reached.observe(Cause::Source, &id, 1, 1), Some(Change::Reached));
        reached.observe(Cause::Tenant, &id, 1, 0);
        assert_eq!(reached.of(&id), Some(ReachedLimit::Tenant));
        reached.observe(Cause::Tenant, &id, 1, LASTS);
        assert_eq!(reached.of(&id), Some(ReachedLimit::Source));
        reached.observe(Cause::Source, &id, 1, 1 + LASTS);
        assert_eq!(reached.of(&id), Some(ReachedLimit::Lookups));
    }

    #[test]
    fn a_listener_that_comes_back_with_its_counters_has_reached_nothing_yet() {
        let (id, mut reached) = (id("a"), Reached::default());
        reached.observe(Cause::Tenant, &id, 7, 0);
        reached.forget(&id);
        reached.keep(|retired| *retired == id);
        assert_eq!(reached.observe(Cause::Tenant, &id, 7, 2), None);
        assert_eq!(reached.of(&id), None);
        assert_eq!(reached.observe(Cause::Tenant, &id, 8, 3), Some(Change::Reached));
    }
}
