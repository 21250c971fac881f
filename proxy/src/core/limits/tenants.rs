//! The limiters of forwards and the shares of namespaces. A listener's change costs only what it concerns.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use proxy_api::{Listener, ListenerId, Origin};

use crate::core::limits::{
    limiter::Limiter,
    share::{Share, Tally},
};

/// Number of limiters below which no sweep looks for unused ones.
const FEW: usize = 64;

/// Finds limiters and shares by name. Listeners and sessions keep both alive: a forward that is recreated meanwhile
/// counts the old sessions, too.
#[derive(Debug, Default)]
pub struct Tenants {
    /// Limits by namespace and name of the forward.
    limiters: BTreeMap<Origin, Weak<Limiter>>,
    /// Shares by namespace, kept alive by the limiters.
    shares: BTreeMap<String, Weak<Share>>,
    tally: Tally,
    /// Sessions that fit into the process.
    room: usize,
    /// Number of limiters at which unused ones are forgotten; 0 before there are any.
    sweep_at: usize,
}

impl Tenants {
    /// Creates an empty set, for a process with room for this number of sessions.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self { room, ..Self::default() }
    }

    /// Adds a live listener with this specification.
    pub fn joined(&mut self, id: &ListenerId, spec: &Listener) {
        self.tally.add(&id.origin.namespace, limit(spec));
    }

    /// Removes a listener that was live with this specification.
    pub fn left(&mut self, id: &ListenerId, spec: &Listener) {
        self.tally.remove(&id.origin.namespace, limit(spec));
    }

    /// The limits of a listener's forward, which all its listeners share.
    pub fn limiter(&mut self, id: &ListenerId) -> Arc<Limiter> {
        if let Some(limiter) = self.limiters.get(&id.origin).and_then(Weak::upgrade) {
            return limiter;
        }
        self.forget_unused();
        let limiter = Arc::new(Limiter::of(self.share(&id.origin.namespace)));
        self.limiters.insert(id.origin.clone(), Arc::downgrade(&limiter));
        limiter
    }

    /// The share of a namespace, which all its forwards have in common.
    fn share(&mut self, namespace: &str) -> Arc<Share> {
        if let Some(share) = self.shares.get(namespace).and_then(Weak::upgrade) {
            return share;
        }
        let share = Arc::new(Share::default());
        self.shares.insert(namespace.to_owned(), Arc::downgrade(&share));
        share
    }

    /// Forgets unused limiters and shares, whenever there are twice as many limiters as after the last time: so the
    /// cost for each new limiter does not grow with their number.
    fn forget_unused(&mut self) {
        if self.limiters.len() < self.sweep_at {
            return;
        }
        self.limiters.retain(|_, limiter| limiter.strong_count() > 0);
        self.shares.retain(|_, share| share.strong_count() > 0);
        self.sweep_at = FEW.max(2 * self.limiters.len());
    }

    /// Sets the shares of the namespaces whose listeners have changed since the last call.
    pub fn share_out(&mut self) {
        let touched = self.tally.take_touched();
        self.set(touched.iter().map(String::as_str));
    }

    /// Adapts all shares to room for this number of sessions.
    pub fn resize(&mut self, room: usize) {
        self.room = room;
        self.set(self.tally.namespaces());
    }

    fn set<'a>(&self, namespaces: impl Iterator<Item = &'a str>) {
        for namespace in namespaces {
            if let Some(share) = self.shares.get(namespace).and_then(Weak::upgrade) {
                share.set(self.tally.bound(namespace, self.room));
            }
        }
    }
}

/// The limit of sessions of its namespace that a listener carries.
fn limit(spec: &Listener) -> Option<u32> {
    spec.tenant_limits.as_deref().and_then(|limits| limits.max_connections)
}

#[cfg(test)]
mod tests {
    use proxy_api::TenantLimits;

    use super::*;
    use crate::fixtures::template;

    /// A listener that carries this limit of its namespace.
    fn carrying(most: Option<u32>) -> Listener {
        let limits = most.map(|most| Box::new(TenantLimits { max_connections: Some(most), max_log_bytes: None }));
        Listener { tenant_limits: limits, ..template() }
    }

    #[test]
    fn a_forward_has_one_limiter_and_a_namespace_one_share() {
        let mut tenants = Tenants::new(100);
        let limiters = [("a", "f", "l"), ("a", "f", "m"), ("a", "g", "l"), ("b", "f", "l")]
            .map(|(namespace, of, name)| tenants.limiter(&ListenerId::new(Origin::port_forward(namespace, of), name)));
        let [one, same, other, elsewhere] = &limiters;
        assert!(Arc::ptr_eq(one, same) && !Arc::ptr_eq(one, other));
        assert!(Arc::ptr_eq(&one.share, &other.share) && !Arc::ptr_eq(&one.share, &elsewhere.share));
    }

    #[test]
    fn shares_follow_listeners_and_the_room() {
        let mut tenants = Tenants::new(100);
        let [a, b] = ["a", "b"].map(|namespace| ListenerId::new(Origin::port_forward(namespace, "f"), "l"));
        let limiters = [tenants.limiter(&a), tenants.limiter(&b)];
        let most = || limiters.each_ref().map(|limiter| limiter.share.usage().1);
        tenants.joined(&a, &carrying(None));
        tenants.share_out();
        assert_eq!(most(), [None, None], "alone");
        tenants.joined(&b, &carrying(Some(7)));
        assert_eq!(most(), [None, None], "not yet");
        tenants.share_out();
        assert_eq!(most(), [Some(50), Some(7)]);
        tenants.resize(30);
        assert_eq!(most(), [Some(15), Some(7)]);
        tenants.left(&b, &carrying(Some(7)));
        tenants.share_out();
        assert_eq!(most(), [None, Some(7)], "alone again");
        tenants.joined(&b, &carrying(None));
        tenants.share_out();
        assert_eq!(most(), [Some(15), Some(15)], "the room stays");
    }

    #[test]
    fn unused_limiters_are_looked_for_when_the_number_of_all_has_doubled() {
        let mut tenants = Tenants::new(100);
        let id = |at: usize| ListenerId::new(Origin::port_forward(format!("ns{at}"), "f"), "l");
        let _kept: Vec<Arc<Limiter>> = (0..FEW).map(|at| tenants.limiter(&id(at))).collect();
        for at in FEW..2 * FEW {
            drop(tenants.limiter(&id(at)));
            assert_eq!(tenants.limiters.len(), at + 1);
        }
        drop(tenants.limiter(&id(2 * FEW)));
        assert_eq!((tenants.limiters.len(), tenants.shares.len()), (FEW + 1, FEW + 1));
    }

    #[test]
    fn limiters_that_nobody_uses_are_forgotten_before_they_outnumber_the_others() {
        let mut tenants = Tenants::new(100);
        let id = |at: usize| ListenerId::new(Origin::port_forward(format!("ns{at}"), "f"), "l");
        let kept = tenants.limiter(&id(0));
        for at in 1..1000 {
            drop(tenants.limiter(&id(at)));
            assert!(tenants.limiters.len() <= FEW && tenants.shares.len() <= FEW);
        }
        assert!(Arc::ptr_eq(&kept, &tenants.limiter(&id(0))));
    }
}
