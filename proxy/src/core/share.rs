//! The share of a namespace: how many sessions all of its listeners together may have in this process.
//!
//! A connection takes its place before anything else is done for it, so that connections that wait, for a header or in
//! a queue, count as well. The place of a UDP flow is taken and passed on under the lock of its limiter.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{AcqRel, Relaxed},
        },
    },
};

/// The part of the process that a namespace without its own limit may use while there are other namespaces.
const PART: usize = 2;

/// Sessions of one namespace, over all its listeners and all workers.
#[derive(Debug)]
pub struct Share {
    /// Most sessions; [`u32::MAX`]: no limit.
    most: AtomicU32,
    live: AtomicU32,
}

impl Default for Share {
    fn default() -> Self {
        Self { most: AtomicU32::new(u32::MAX), live: AtomicU32::new(0) }
    }
}

impl Share {
    /// Replaces the limit. Live sessions stay.
    pub fn set(&self, most: Option<u32>) {
        self.most.store(most.unwrap_or(u32::MAX), Relaxed);
    }

    /// A place for a connection; `None` if the share is used up.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        self.take().then(|| Place(self.clone()))
    }

    /// Takes a place, if one is free.
    pub(super) fn take(&self) -> bool {
        let most = self.most.load(Relaxed);
        self.live.fetch_update(AcqRel, Relaxed, |live| (live < most).then(|| live + 1)).is_ok()
    }

    /// Returns places.
    pub(super) fn give(&self, places: usize) {
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        let _ = self.live.fetch_update(AcqRel, Relaxed, |live| Some(live.saturating_sub(places)));
    }

    /// Sessions now, and the most there may be.
    #[must_use]
    pub fn usage(&self) -> (u32, Option<u32>) {
        (self.live.load(Relaxed), Some(self.most.load(Relaxed)).filter(|most| *most < u32::MAX))
    }
}

/// A connection's place in the share of its namespace; free again on drop.
#[derive(Debug)]
pub struct Place(Arc<Share>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.give(1);
    }
}

/// The share of a namespace in a process with room for `room` sessions, whose listeners belong to `namespaces`
/// namespaces. `limits` are the limits that the namespace's listeners carry. Without a limit, a namespace may take half
/// of the room while there are other namespaces, so that no namespace can take all of it.
#[must_use]
pub fn most(limits: impl Iterator<Item = u32>, namespaces: usize, room: usize) -> Option<u32> {
    let default = || (namespaces > 1).then(|| u32::try_from((room / PART).max(1)).unwrap_or(u32::MAX));
    limits.min().or_else(default)
}

/// The listeners of each namespace with the limits that they carry, updated per listener: the cost of a change depends
/// on the listeners that it concerns, not on all.
#[derive(Debug, Default)]
pub struct Tally {
    namespaces: BTreeMap<String, Carried>,
    /// Namespaces whose listeners were added, removed or changed since the last [`Tally::take_touched`].
    touched: BTreeSet<String>,
    /// Whether there were several namespaces then.
    were_several: bool,
}

/// The listeners of one namespace.
#[derive(Debug, Default)]
struct Carried {
    listeners: usize,
    /// Listeners by the limit that they carry.
    by_limit: BTreeMap<u32, usize>,
}

impl Tally {
    /// Adds a listener of this namespace that carries this limit.
    pub fn add(&mut self, namespace: &str, limit: Option<u32>) {
        let carried = self.namespaces.entry(namespace.to_owned()).or_default();
        carried.listeners += 1;
        if let Some(limit) = limit {
            *carried.by_limit.entry(limit).or_default() += 1;
        }
        self.touched.insert(namespace.to_owned());
    }

    /// Removes a listener of this namespace that carried this limit.
    pub fn remove(&mut self, namespace: &str, limit: Option<u32>) {
        let Some(carried) = self.namespaces.get_mut(namespace) else { return };
        carried.listeners = carried.listeners.saturating_sub(1);
        if let Some(limit) = limit {
            let count = carried.by_limit.get(&limit).copied().unwrap_or_default();
            if count > 1 {
                carried.by_limit.insert(limit, count - 1);
            } else {
                carried.by_limit.remove(&limit);
            }
        }
        if carried.listeners == 0 {
            self.namespaces.remove(namespace);
        }
        self.touched.insert(namespace.to_owned());
    }

    /// The share of a namespace with listeners, see [`most`].
    #[must_use]
    pub fn most(&self, namespace: &str, room: usize) -> Option<u32> {
        let limits = self.namespaces.get(namespace).into_iter().flat_map(|carried| carried.by_limit.keys().copied());
        most(limits.take(1), self.namespaces.len(), room)
    }

    /// The namespaces with listeners.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(String::as_str)
    }

    /// The namespaces with listeners whose shares may differ from those at the last call. A namespace affects the
    /// others only if it is the second one, or if it leaves one alone.
    #[must_use]
    pub fn take_touched(&mut self) -> BTreeSet<String> {
        let mut touched = std::mem::take(&mut self.touched);
        let are_several = self.namespaces.len() > 1;
        if std::mem::replace(&mut self.were_several, are_several) != are_several {
            touched.extend(self.namespaces.keys().cloned());
        }
        touched.retain(|namespace| self.namespaces.contains_key(namespace));
        touched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back_and_a_lower_limit_sends_nobody_away() {
        let share = Arc::new(Share::default());
        assert_eq!(share.usage(), (0, None));
        share.set(Some(2));
        let (one, two) = (share.enter().expect("a place"), share.enter().expect("a place"));
        assert!(share.enter().is_none());
        share.set(Some(1));
        assert_eq!(share.usage(), (2, Some(1)));
        drop(one);
        assert!(share.enter().is_none());
        drop(two);
        assert!(share.enter().is_some());
    }

    #[test]
    fn the_smallest_limit_counts_and_only_beside_others_there_is_a_default() {
        let none = || std::iter::empty();
        assert_eq!(most([7, 5].into_iter(), 2, 100), Some(5));
        assert_eq!(most([900].into_iter(), 2, 100), Some(900), "a limit of the gateway replaces the default");
        assert_eq!((most(none(), 1, 100), most(none(), 2, 100), most(none(), 2, 1)), (None, Some(50), Some(1)));
    }

    #[test]
    fn a_listener_concerns_the_share_of_its_namespace_and_of_no_other() {
        let mut tally = Tally::default();
        (0..10_000_u32).for_each(|at| tally.add(&format!("ns{}", at % 500), Some(at)));
        assert_eq!(tally.take_touched().len(), 500);
        tally.remove("ns7", Some(7));
        tally.add("ns7", None);
        assert_eq!(tally.take_touched(), BTreeSet::from(["ns7".to_owned()]));
        assert_eq!((tally.most("ns7", 100), tally.most("ns8", 100)), (Some(507), Some(8)), "the smallest that is left");
        tally.add("other", None);
        assert_eq!(tally.take_touched(), BTreeSet::from(["other".to_owned()]));
        assert_eq!(tally.most("other", 100), Some(50));
        assert!(tally.take_touched().is_empty());
    }

    #[test]
    fn the_second_namespace_and_the_last_but_one_concern_the_namespace_beside_them() {
        let mut tally = Tally::default();
        let touched = |tally: &mut Tally| tally.take_touched().into_iter().collect::<Vec<_>>();
        tally.add("a", None);
        assert_eq!((touched(&mut tally), tally.most("a", 100)), (vec!["a".to_owned()], None));
        tally.add("b", None);
        assert_eq!((touched(&mut tally), tally.most("a", 100)), (vec!["a".to_owned(), "b".to_owned()], Some(50)));
        tally.remove("b", None);
        assert_eq!((touched(&mut tally), tally.most("a", 100)), (vec!["a".to_owned()], None));
        tally.remove("b", None);
        assert_eq!((tally.namespaces().count(), touched(&mut tally).len()), (1, 0), "it had gone");
    }
}
