//! The listeners of the proxy: those that serve, and earlier ones for as long as they have sessions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proxy_api::{Delivery, Listener, ListenerId, OnUpdate};

use crate::{
    core::{
        changes::diff::{self, Concern, Which},
        limits::tenants::Tenants,
        sessions::end::EndReason,
    },
    shared::Shared,
    worker::Ending,
};

/// Listeners by name.
pub(super) type ById = BTreeMap<ListenerId, Arc<Shared>>;

/// Owns every listener that workers may still use.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// Listeners that serve.
    live: ById,
    /// Durable listeners among them.
    durable: BTreeSet<ListenerId>,
    /// Removed listeners that still have sessions.
    retired: Vec<Arc<Shared>>,
    /// Listeners as they were before they moved to another socket or protocol, while they have sessions.
    moved: Vec<Arc<Shared>>,
    tenants: Tenants,
}

impl Listeners {
    /// Creates an owner without listeners, of a process with room for this number of sessions.
    pub(super) fn new(room: usize) -> Self {
        Self { tenants: Tenants::new(room), ..Self::default() }
    }

    /// The listeners that serve.
    pub(super) fn live(&self) -> &ById {
        &self.live
    }

    /// The durable listeners that serve.
    pub(super) fn durable(&self) -> impl Iterator<Item = (&ListenerId, &Arc<Shared>)> {
        self.durable.iter().filter_map(|id| self.live.get_key_value(id))
    }

    /// Removed listeners that still have sessions.
    pub(super) fn retired(&self) -> &[Arc<Shared>] {
        &self.retired
    }

    /// Whether listeners are kept only for their sessions.
    pub(super) fn has_old(&self) -> bool {
        !self.retired.is_empty() || !self.moved.is_empty()
    }

    /// The delivery state of each live durable listener. A listener that has not run for a second is omitted.
    pub(super) fn deliveries(&self) -> BTreeMap<&ListenerId, Delivery> {
        self.durable().filter_map(|(id, shared)| Some((id, shared.counters.delivery()?.into()))).collect()
    }

    /// Makes `next` the live listeners; all except those in `changed` are live already. Returns the changed ones that
    /// were live before, for [`Self::endings`] and then for [`Self::retire`].
    pub(super) fn place(&mut self, next: &BTreeMap<ListenerId, Arc<Listener>>, changed: &BTreeSet<ListenerId>) -> ById {
        if changed.is_empty() {
            return ById::new();
        }
        let before: ById = changed.iter().filter_map(|id| Some((id.clone(), self.live.get(id)?.clone()))).collect();
        for (id, shared) in &before {
            self.tenants.left(id, &shared.spec.load());
        }
        for shared in self.moved.iter().filter(|shared| changed.contains(&shared.id)) {
            // Current limits and policies apply to old sessions too.
            if let Some(spec) = next.get(&shared.id) {
                shared.spec.store(spec.clone());
            }
        }
        for id in changed.iter().filter(|id| !next.contains_key(*id)) {
            self.live.remove(id);
        }
        for (id, spec) in changed.iter().filter_map(|id| Some((id, next.get(id)?))) {
            self.place_one(id, spec);
        }
        for (id, shared) in changed.iter().filter_map(|id| Some((id, self.live.get(id)?))) {
            self.tenants.joined(id, &shared.spec.load());
        }
        for id in changed {
            if self.live.get(id).is_some_and(|shared| shared.spec.load().durable.is_some()) {
                self.durable.insert(id.clone());
            } else {
                self.durable.remove(id);
            }
        }
        self.tenants.share_out();
        before
    }

    /// Adapts the shares to room for this number of sessions.
    pub(super) fn resize(&mut self, room: usize) {
        self.tenants.resize(room);
    }

    /// Places one listener. If it moves to another socket or protocol, it becomes a new object, so that its old
    /// sessions can be distinguished from its new ones. It keeps its counters and the state of its endpoints.
    fn place_one(&mut self, id: &ListenerId, spec: &Arc<Listener>) {
        let limiter = self.tenants.limiter(id);
        let known = self.live.get(id);
        match known {
            Some(shared) if !diff::is_another(&shared.spec.load(), spec) => {
                if shared.spec.load().revision != spec.revision {
                    limiter.set(spec.limits.as_deref());
                    shared.spec.store(spec.clone());
                }
            }
            _ => {
                let before = known.or_else(|| self.retired.iter().find(|shared| shared.id == *id)).cloned();
                limiter.set(spec.limits.as_deref());
                let shared = match &before {
                    None => Shared::new(id.clone(), spec.clone(), Arc::default(), limiter),
                    Some(before) => Shared::after(before, spec.clone(), limiter),
                };
                if let Some(before) = before.as_ref().filter(|before| diff::can_follow(&before.spec.load(), spec)) {
                    before.spec.store(spec.clone());
                }
                self.moved.extend(before);
                self.live.insert(id.clone(), shared);
            }
        }
    }

    /// The sessions that a change ends under the policies of their listeners. `before` comes from [`Self::place`].
    pub(super) fn endings(&self, concerned: &[Concern], before: &ById) -> Vec<Ending> {
        let (mut endings, all) = (Vec::new(), Which::All);
        for concern in concerned {
            let sessions = concern.policy.sessions;
            let over_millis = match sessions.on_update {
                OnUpdate::Keep => continue,
                OnUpdate::Drain => u64::from(sessions.drain_seconds) * 1000,
                OnUpdate::Close => 0,
            };
            let present = before.get(&concern.listener);
            // No session of a listener from before a move fits the present one. One that moves now is the present one.
            let moved = self.moved.iter().filter(|shared| {
                shared.id == concern.listener && !present.is_some_and(|present| Arc::ptr_eq(present, shared))
            });
            let moved = moved.map(|shared| (shared, &all));
            let present = present.map(|shared| (shared, &concern.which));
            endings.extend(present.into_iter().chain(moved).map(|(listener, which)| Ending {
                listener: listener.clone(),
                which: which.clone(),
                reason: EndReason::Updated,
                over_millis,
            }));
        }
        endings
    }

    /// Retires the listeners of `before` that are no longer live but still have sessions.
    pub(super) fn retire(&mut self, before: &ById) {
        let Self { live, retired, .. } = self;
        let gone = before.iter().filter(|(id, _)| !live.contains_key(*id)).map(|(_, shared)| shared.clone());
        retired.extend(gone);
        retired.retain(|shared| shared.counters.active() > 0 && !live.contains_key(&shared.id));
    }

    /// Forgets old listeners whose last session has ended; true if a removed listener was among them.
    pub(super) fn forget_ended(&mut self) -> bool {
        let had = self.retired.len();
        self.retired.retain(|shared| shared.counters.active() > 0);
        self.moved.retain(has_sessions);
        self.retired.len() != had
    }
}

/// Whether sessions of a listener remain: they hold the only references outside the list of old listeners.
fn has_sessions(shared: &Arc<Shared>) -> bool {
    Arc::strong_count(shared) > 1
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use proxy_api::{Origin, Sessions, TenantLimits};

    use super::*;
    use crate::{
        fixtures::on_disk,
        supervisor::fixtures::{id, listener, listeners},
    };

    fn in_namespace(namespace: &str, limit: Option<u32>) -> (ListenerId, Arc<Listener>) {
        let limits =
            limit.map(|most| Box::new(TenantLimits { max_connections: Some(most), ..TenantLimits::default() }));
        let spec = Listener { tenant_limits: limits, ..(*listener(1, "b")).clone() }.sealed();
        (ListenerId::new(Origin::port_forward(namespace, "f"), "l"), Arc::new(spec))
    }

    /// Places these listeners, all of which may have changed.
    fn place(owner: &mut Listeners, next: &BTreeMap<ListenerId, Arc<Listener>>) -> ById {
        let changed = owner.live().keys().chain(next.keys()).cloned().collect();
        owner.place(next, &changed)
    }

    /// The share of each namespace, in order.
    fn shares(owner: &Listeners) -> Vec<Option<u32>> {
        owner.live().values().map(|shared| shared.limiter.share.usage().1).collect()
    }

    #[test]
    fn the_forwards_of_a_namespace_have_one_share_and_namespaces_have_shares_apart() {
        let mut owner = Listeners::new(100);
        let other = ListenerId::new(Origin::port_forward("a", "g"), "l");
        let (first, spec) = in_namespace("a", None);
        place(
            &mut owner,
            &BTreeMap::from([(first.clone(), spec.clone()), (other.clone(), spec), in_namespace("b", None)]),
        );
        let share = |id: &ListenerId| owner.live()[id].limiter.share.clone();
        assert!(Arc::ptr_eq(&share(&first), &share(&other)));
        assert!(!Arc::ptr_eq(&share(&first), &share(&in_namespace("b", None).0)));
    }

    #[test]
    fn a_share_follows_the_limits_of_its_listeners_and_the_number_of_namespaces() {
        let mut owner = Listeners::new(100);
        place(&mut owner, &BTreeMap::from([in_namespace("a", None)]));
        assert_eq!(shares(&owner), [None], "alone in the proxy");
        place(&mut owner, &BTreeMap::from([in_namespace("a", None), in_namespace("b", Some(7))]));
        assert_eq!(shares(&owner), [Some(50), Some(7)]);
        owner.resize(200);
        assert_eq!(shares(&owner), [Some(100), Some(7)]);
        place(&mut owner, &BTreeMap::from([in_namespace("b", Some(9))]));
        assert_eq!(shares(&owner), [Some(9)]);
    }

    #[test]
    fn the_durable_listeners_are_those_that_serve_as_such_now() {
        let keeps = |port| {
            let forwards = (*listener(port, "b")).clone();
            Arc::new(Listener { durable: Some(Box::new(on_disk())), ..forwards }.sealed())
        };
        let mut owner = Listeners::default();
        let mut durable = |next: &[(&str, Arc<Listener>)]| -> Vec<ListenerId> {
            let next = next.iter().map(|(name, spec)| (id(name), spec.clone())).collect();
            place(&mut owner, &next);
            owner.durable().map(|(id, _)| id.clone()).collect()
        };
        assert_eq!(durable(&[("a", keeps(1)), ("b", listener(2, "b")), ("c", keeps(3))]), [id("a"), id("c")]);
        assert_eq!(durable(&[("a", listener(1, "b")), ("b", keeps(2)), ("c", keeps(4))]), [id("b"), id("c")]);
        assert_eq!(durable(&[("b", keeps(2))]), [id("b")]);
    }

    fn concern(on_update: OnUpdate) -> Concern {
        let policy = (*listener(1, "b")).clone();
        let sessions = Sessions { on_update, drain_seconds: 7, ..policy.sessions };
        Concern { listener: id("a"), which: Which::All, policy: Arc::new(Listener { sessions, ..policy }) }
    }

    #[test]
    fn the_same_listeners_again_change_nothing() {
        let mut owner = Listeners::default();
        let next = listeners([("a", listener(1, "b"))]);
        place(&mut owner, &next);
        let before = place(&mut owner, &next);
        owner.retire(&before);
        assert!(Arc::ptr_eq(&before[&id("a")], &owner.live()[&id("a")]));
        assert!(!owner.has_old() && !owner.forget_ended());
        assert!(owner.endings(&[], &before).is_empty());
    }

    #[test]
    fn of_many_listeners_only_those_that_changed_are_placed() {
        let mut owner = Listeners::default();
        place(&mut owner, &listeners([("a", listener(1, "b")), ("c", listener(2, "b")), ("d", listener(3, "b"))]));
        let next = listeners([("a", listener(1, "b")), ("c", listener(2, "other"))]);
        let before = owner.place(&next, &BTreeSet::from([id("c"), id("d")]));
        assert_eq!(before.keys().collect::<Vec<_>>(), [&id("c"), &id("d")]);
        assert_eq!(owner.live().keys().collect::<Vec<_>>(), [&id("a"), &id("c")]);
        assert_eq!(owner.live()[&id("c")].spec.load().backends[0].id, "other");
    }

    #[test]
    fn a_listener_that_moves_keeps_its_counters_and_is_known_while_it_has_sessions() {
        let mut owner = Listeners::default();
        place(&mut owner, &listeners([("a", listener(1, "b"))]));
        let session = owner.live()[&id("a")].clone();
        place(&mut owner, &listeners([("a", listener(2, "b"))]));
        assert!(Arc::ptr_eq(&session.counters, &owner.live()[&id("a")].counters));
        assert!(!owner.forget_ended() && owner.has_old());
        drop(session);
        assert!(!owner.forget_ended() && !owner.has_old());
    }

    #[test]
    fn a_later_policy_ends_all_sessions_from_before_a_move() {
        // T24
        let mut owner = Listeners::default();
        place(&mut owner, &listeners([("a", listener(1, "b"))]));
        let session = owner.live()[&id("a")].clone();
        place(&mut owner, &listeners([("a", listener(2, "b"))]));
        let before = place(&mut owner, &listeners([("a", listener(2, "c"))]));
        let some = Concern { which: Which::Unfit(listener(2, "c")), ..concern(OnUpdate::Close) };
        let endings = owner.endings(std::slice::from_ref(&some), &before);
        let of_session = |ending: &&Ending| Arc::ptr_eq(&ending.listener, &session);
        assert_eq!(endings.iter().find(of_session).map(|ending| &ending.which), Some(&Which::All));
        let of_others: Vec<&Which> = endings.iter().filter(|it| !of_session(it)).map(|it| &it.which).collect();
        assert_eq!(of_others, [&some.which]);
    }

    #[test]
    fn the_sessions_of_a_listener_that_moves_are_ended_once() {
        let mut owner = Listeners::default();
        place(&mut owner, &listeners([("a", listener(1, "b"))]));
        let before = place(&mut owner, &listeners([("a", listener(2, "b"))]));
        let endings = owner.endings(&[concern(OnUpdate::Drain)], &before);
        assert_eq!(endings.len(), 1);
        assert!(Arc::ptr_eq(&endings[0].listener, &before[&id("a")]));
    }

    #[test]
    fn a_listener_that_moves_knows_its_endpoints_and_takes_up_its_turn_where_it_was() {
        let mut owner = Listeners::default();
        place(&mut owner, &listeners([("a", listener(1, "b"))]));
        let before = owner.live()[&id("a")].clone();
        before.targets.store(Arc::default());
        before.tickets.store(5, Relaxed);
        place(&mut owner, &listeners([("a", listener(2, "b"))]));
        let moved = &owner.live()[&id("a")];
        assert!(!Arc::ptr_eq(&before, moved));
        assert!(Arc::ptr_eq(&before.targets.load_full(), &moved.targets.load_full()));
        assert_eq!(moved.tickets.load(Relaxed), 5);
        moved.targets.store(Arc::default());
        assert!(Arc::ptr_eq(&before.targets.load_full(), &moved.targets.load_full()), "for sessions not yet connected");
        assert_eq!(before.spec.load().socket.port, 2, "old sessions have the new limits");
    }

    #[test]
    fn a_removed_listener_is_retired_until_its_last_session_ends() {
        let mut owner = Listeners::default();
        place(&mut owner, &listeners([("a", listener(1, "b"))]));
        let counters = owner.live()[&id("a")].counters.clone();
        counters.opened.fetch_add(1, Relaxed);
        let before = place(&mut owner, &BTreeMap::new());
        owner.retire(&before);
        assert!(owner.live().is_empty() && owner.retired().len() == 1);
        assert!(!owner.forget_ended() && owner.has_old());
        counters.closed[0].fetch_add(1, Relaxed);
        assert!(owner.forget_ended() && !owner.has_old());
    }

    #[test]
    fn sessions_end_as_the_policy_says() {
        let mut owner = Listeners::default();
        place(&mut owner, &listeners([("a", listener(1, "b"))]));
        let before = place(&mut owner, &BTreeMap::new());
        let over = |on_update| -> Vec<u64> {
            owner.endings(&[concern(on_update)], &before).iter().map(|ending| ending.over_millis).collect()
        };
        assert!(over(OnUpdate::Keep).is_empty());
        assert_eq!(over(OnUpdate::Drain), [7000]);
        assert_eq!(over(OnUpdate::Close), [0]);
    }
}
