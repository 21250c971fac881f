//! The delivery states of durable listeners, as reported.

use std::collections::BTreeMap;

use proxy_api::{Delivery, ListenerId};

/// The delivery state of each observed live durable listener. The log has the notices.
#[derive(Debug, Default)]
pub struct Deliveries(BTreeMap<ListenerId, Delivery>);

impl Deliveries {
    /// How a listener delivers; `None`: it is not durable, or was not observed yet.
    #[must_use]
    pub fn of(&self, id: &ListenerId) -> Option<Delivery> {
        self.0.get(id).copied()
    }

    /// Forgets a listener that is gone.
    pub fn forget(&mut self, id: &ListenerId) {
        self.0.remove(id);
    }

    /// Takes the states of all live durable listeners; other listeners are forgotten. Returns the listeners whose state
    /// has changed.
    pub fn observe(&mut self, seen: &BTreeMap<&ListenerId, Delivery>) -> Vec<ListenerId> {
        let mut changed: Vec<ListenerId> = self.0.keys().filter(|id| !seen.contains_key(*id)).cloned().collect();
        self.0.retain(|id, _| seen.contains_key(id));
        for (&id, &delivery) in seen {
            if self.of(id) != Some(delivery) {
                self.0.insert(id.clone(), delivery);
                changed.push(id.clone());
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use proxy_api::Origin;

    use super::*;

    fn id(name: &str) -> ListenerId {
        ListenerId::new(Origin::port_forward("ns", "f"), name)
    }

    #[test]
    fn a_listener_that_delivers_in_another_way_is_told_once() {
        let (a, b) = (id("a"), id("b"));
        let mut deliveries = Deliveries::default();
        let first = BTreeMap::from([(&a, Delivery::Flowing), (&b, Delivery::Behind)]);
        assert_eq!(deliveries.observe(&first), [a.clone(), b.clone()]);
        assert!(deliveries.observe(&first).is_empty());
        let stalled = BTreeMap::from([(&a, Delivery::Stalled), (&b, Delivery::Behind)]);
        assert_eq!(deliveries.observe(&stalled), from_ref(&a));
        assert_eq!((deliveries.of(&a), deliveries.of(&b)), (Some(Delivery::Stalled), Some(Delivery::Behind)));
    }

    #[test]
    fn a_listener_that_is_gone_or_durable_no_more_is_forgotten() {
        let (a, b) = (id("a"), id("b"));
        let mut deliveries = Deliveries::default();
        deliveries.observe(&BTreeMap::from([(&a, Delivery::Full), (&b, Delivery::Full)]));
        deliveries.forget(&b);
        assert_eq!(deliveries.of(&b), None, "at once, before the next look");
        assert_eq!(deliveries.observe(&BTreeMap::new()), from_ref(&a));
        assert_eq!(deliveries.of(&a), None);
    }
}
