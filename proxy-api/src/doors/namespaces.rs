//! The namespaces of authenticated peers: at a full door, the one with the most loses a place to one with fewer.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{PlaceId, Places, Refusal};

/// The places of authenticated peers, by namespace. Peers of an unknown namespace are not included.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespaces {
    /// No set is empty.
    places: BTreeMap<String, BTreeSet<PlaceId>>,
    by_place: BTreeMap<PlaceId, String>,
}

impl Namespaces {
    fn join(&mut self, namespace: &str, place: PlaceId) {
        self.places.entry(namespace.to_owned()).or_default().insert(place);
        self.by_place.insert(place, namespace.to_owned());
    }

    /// Removes the place of a connection that is closed.
    pub(super) fn leave(&mut self, place: PlaceId) {
        let Some(namespace) = self.by_place.remove(&place) else { return };
        if let Some(places) = self.places.get_mut(&namespace) {
            places.remove(&place);
            if places.is_empty() {
                self.places.remove(&namespace);
            }
        }
    }

    /// The place that a newcomer of this namespace gets at a full door: the youngest of the namespace with the most,
    /// unless the newcomer's namespace would then have more than that one. So no two namespaces take the same place
    /// from each other again and again.
    fn gives_way_to(&self, namespace: &str) -> Option<PlaceId> {
        let own = self.places.get(namespace).map_or(0, BTreeSet::len);
        let most = self.places.values().max_by_key(|places| places.len())?;
        most.last().copied().filter(|_| own + 2 <= most.len())
    }
}

impl Places {
    /// Like [`Places::authenticate`], for a peer of a namespace. If all places are taken, it gets one of the namespace
    /// with the most, unless its own namespace has as many, or one less.
    ///
    /// # Errors
    /// See [`Places::authenticate`].
    pub fn authenticate_in(
        &mut self,
        place: PlaceId,
        namespace: &str,
        now: Duration,
    ) -> Result<Option<PlaceId>, Refusal> {
        if !self.strangers.contains_key(&place) {
            return self.authenticate(place, now);
        }
        // While there are more than the bound, after it was lowered, evicting one makes no room.
        let is_full = self.known.len() == self.bounds.known;
        let gives_way = if is_full { self.namespaces.gives_way_to(namespace) } else { None };
        if let Some(gives_way) = gives_way {
            self.release(gives_way, now);
        }
        let evicted = self.authenticate(place, now)?;
        self.namespaces.join(namespace, place);
        Ok(gives_way.or(evicted))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::doors::{Admission, Bounds, Evict};

    /// A door for proxies, all of which have a request in progress.
    struct Port {
        places: Places,
        /// The connections with a place, by namespace, the oldest first.
        open: Vec<(&'static str, PlaceId)>,
    }

    impl Port {
        fn new(known: usize) -> Self {
            let bounds = Bounds { strangers: 8, per_source: 8, known, evict: Evict::Silent, rates: None };
            Self { places: Places::new(bounds), open: Vec::new() }
        }

        /// Connects a proxy of this namespace. Returns whether it gets a place.
        fn come(&mut self, namespace: &'static str) -> bool {
            let now = Duration::ZERO;
            let Admission::Admit(place) = self.places.admit(IpAddr::from([192, 0, 2, 1]), now) else {
                panic!("there is room for strangers")
            };
            self.places.asks(place, now);
            let Ok(evicted) = self.places.authenticate_in(place, namespace, now) else { return false };
            self.open.retain(|(_, open)| Some(*open) != evicted);
            self.open.push((namespace, place));
            assert_eq!(self.open.len(), self.places.known(), "each that lost its place is named");
            true
        }

        fn leave(&mut self, at: usize) {
            let (_, place) = self.open.remove(at);
            self.places.release(place, Duration::ZERO);
        }

        fn held(&self) -> Vec<&'static str> {
            self.open.iter().map(|(namespace, _)| *namespace).collect()
        }
    }

    #[test]
    fn a_namespace_has_all_places_until_others_come() {
        let mut port = Port::new(4);
        assert_eq!(["a"; 5].map(|namespace| port.come(namespace)), [true, true, true, true, false]);
        assert_eq!(port.held(), ["a"; 4]);
    }

    #[test]
    fn the_youngest_of_the_namespace_with_the_most_gives_way_and_equals_take_nothing_from_each_other() {
        let mut port = Port::new(4);
        for _ in 0..4 {
            port.come("a");
        }
        let oldest = port.open[0];
        assert!(port.come("b") && port.come("b"));
        assert_eq!(port.held(), ["a", "a", "b", "b"]);
        assert_eq!(port.open[0], oldest);
        assert!(!port.come("a") && !port.come("b"));
        assert!(port.come("c"), "one with none takes a place of one with two");
        assert!(!port.come("c"), "it would have two, and leave one to the other");
    }

    #[test]
    fn namespaces_that_take_all_they_can_have_equal_shares() {
        let mut port = Port::new(60);
        for namespace in ["a", "b", "c"] {
            for _ in 0..100 {
                port.come(namespace);
            }
        }
        let of = |namespace: &str| port.held().iter().filter(|held| **held == namespace).count();
        assert_eq!(["a", "b", "c"].map(of), [20, 20, 20]);
    }

    #[test]
    fn a_place_that_is_free_again_belongs_to_no_namespace() {
        let mut port = Port::new(2);
        assert!(port.come("a") && port.come("a") && !port.come("a"));
        port.leave(0);
        port.leave(0);
        assert!(port.places.namespaces.places.is_empty() && port.places.namespaces.by_place.is_empty());
        assert!(port.come("b") && port.come("a") && !port.come("b"));
        assert_eq!(port.held(), ["b", "a"]);
    }

    #[test]
    fn who_has_a_place_keeps_it_when_asked_again() {
        let mut port = Port::new(1);
        port.come("a");
        let (_, place) = port.open[0];
        assert_eq!(port.places.authenticate_in(place, "b", Duration::ZERO), Ok(None));
        port.leave(0);
        assert!(port.places.namespaces.by_place.is_empty());
        assert_eq!(port.places.authenticate_in(place, "a", Duration::ZERO), Err(Refusal::Full), "it is gone");
    }
}
