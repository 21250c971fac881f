//! The share of a namespace: how many sessions all of its listeners together may have in this process.
//!
//! A connection takes its place before anything else is done for it, so that connections that wait, for a header or in
//! a queue, count as well. The place of a UDP flow is taken and passed on under the lock of its limiter. Flows need not
//! leave room: where it is short, those of the largest parties are evicted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{AcqRel, Relaxed},
        },
    },
};

use crate::core::limits::session_room::SessionRoom;

/// The part of the process that a namespace without its own limit may use while there are other namespaces.
const PART: usize = 2;

/// The bound on the sessions of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Most sessions; `None`: no limit.
    pub most: Option<u32>,
    /// Whether its connections also leave room to others, depending on the free room.
    pub leaves_room: bool,
}

impl Bound {
    /// A fixed number of sessions, whatever others have.
    #[must_use]
    pub const fn of(most: u32) -> Self {
        Self { most: Some(most), leaves_room: false }
    }
}

/// Sessions of one namespace, over all its listeners and all workers.
#[derive(Debug)]
pub struct Share {
    /// Most sessions; [`u32::MAX`]: no limit.
    most: AtomicU32,
    /// See [`Bound::leaves_room`].
    leaves_room: AtomicBool,
    live: AtomicU32,
}

impl Default for Share {
    fn default() -> Self {
        Self { most: AtomicU32::new(u32::MAX), leaves_room: AtomicBool::new(false), live: AtomicU32::new(0) }
    }
}

impl Share {
    /// Replaces the bound. Live sessions stay.
    pub fn set(&self, bound: Bound) {
        self.most.store(bound.most.unwrap_or(u32::MAX), Relaxed);
        self.leaves_room.store(bound.leaves_room, Relaxed);
    }

    /// Takes a place for a connection that leaves this room to others; `None` if the share is used up.
    #[must_use]
    pub fn enter(self: &Arc<Self>, room: SessionRoom) -> Option<Place> {
        let leaves_room = self.leaves_room.load(Relaxed);
        let admits = |live: u32| !leaves_room || room.admits(usize::try_from(live).unwrap_or(usize::MAX));
        self.take_if(admits).then(|| Place(self.clone()))
    }

    /// Takes a place, if one is free.
    pub(in crate::core) fn take(&self) -> bool {
        self.take_if(|_| true)
    }

    fn take_if(&self, admits: impl Fn(u32) -> bool) -> bool {
        let most = self.most.load(Relaxed);
        self.live.fetch_update(AcqRel, Relaxed, |live| (live < most && admits(live)).then(|| live + 1)).is_ok()
    }

    /// Returns places.
    pub(in crate::core) fn give(&self, places: usize) {
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        let _ = self.live.fetch_update(AcqRel, Relaxed, |live| Some(live.saturating_sub(places)));
    }

    /// The number of sessions at which a connection that leaves this room to others gets no place; `None`: no limit.
    #[must_use]
    pub fn limit(&self, room: SessionRoom) -> Option<u32> {
        let most = self.usage().1?;
        let leaves_room = self.leaves_room.load(Relaxed);
        let by_room = || u32::try_from(room.most_of_one()).unwrap_or(u32::MAX);
        Some(if leaves_room { most.min(by_room()) } else { most })
    }

    /// The number of sessions now, and the most there may be, whatever is free.
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
/// of the room while there are other namespaces, so that no namespace can take all of it. Of three or more, each leaves
/// room to others, so that no two or more can.
#[must_use]
pub fn bound(limits: impl Iterator<Item = u32>, namespaces: usize, room: usize) -> Bound {
    if let Some(most) = limits.min() {
        return Bound::of(most);
    }
    let part = || u32::try_from((room / PART).max(1)).unwrap_or(u32::MAX);
    // As many namespaces as there are parts get one each. One more would get none.
    Bound { most: (namespaces > 1).then(part), leaves_room: namespaces > PART }
}

/// The listeners of each namespace with the limits that they carry, updated per listener: the cost of a change depends
/// on the listeners that it concerns, not on all.
#[derive(Debug, Default)]
pub struct Tally {
    namespaces: BTreeMap<String, Carried>,
    /// Namespaces whose listeners were added, removed or changed since the last [`Tally::take_touched`].
    touched: BTreeSet<String>,
    /// The number of namespaces at that time, as far as it affects others.
    before: usize,
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

    /// The share of a namespace with listeners, see [`bound`].
    #[must_use]
    pub fn bound(&self, namespace: &str, room: usize) -> Bound {
        let limits = self.namespaces.get(namespace).into_iter().flat_map(|carried| carried.by_limit.keys().copied());
        bound(limits.take(1), self.namespaces.len(), room)
    }

    /// The namespaces with listeners.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(String::as_str)
    }

    /// The namespaces with listeners whose shares may differ from those at the last call. A namespace affects the
    /// others only if it is the second or third one, or if it leaves one or two behind.
    #[must_use]
    pub fn take_touched(&mut self) -> BTreeSet<String> {
        let mut touched = std::mem::take(&mut self.touched);
        let now = self.namespaces.len().min(PART + 1);
        if std::mem::replace(&mut self.before, now) != now {
            touched.extend(self.namespaces.keys().cloned());
        }
        touched.retain(|namespace| self.namespaces.contains_key(namespace));
        touched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: SessionRoom = SessionRoom { most: 100, free: 99 };
    const FULL: SessionRoom = SessionRoom { most: 100, free: 0 };

    #[test]
    fn places_are_bounded_and_come_back_and_a_lower_limit_sends_nobody_away() {
        let share = Arc::new(Share::default());
        assert_eq!(share.usage(), (0, None));
        share.set(Bound::of(2));
        let (one, two) = (share.enter(FULL).expect("a place"), share.enter(FULL).expect("a place"));
        assert!(share.enter(EMPTY).is_none());
        share.set(Bound::of(1));
        assert_eq!(share.usage(), (2, Some(1)));
        drop(one);
        assert!(share.enter(EMPTY).is_none());
        drop(two);
        assert!(share.enter(EMPTY).is_some());
    }

    #[test]
    fn the_smallest_limit_counts_and_only_beside_others_there_is_a_default() {
        let none = || std::iter::empty();
        assert_eq!(bound([7, 5].into_iter(), 3, 100), Bound::of(5));
        assert_eq!(bound([900].into_iter(), 3, 100), Bound::of(900), "a limit of the gateway replaces the default");
        assert_eq!([1, 2].map(|namespaces| bound(none(), namespaces, 100)), [Bound::default(), Bound::of(50)]);
        assert_eq!(bound(none(), 2, 1), Bound::of(1));
        assert_eq!(bound(none(), 3, 100), Bound { leaves_room: true, ..Bound::of(50) });
    }

    /// Places that each namespace gets of a room for `most` sessions, if each in turn takes all that it gets.
    fn filled_by(namespaces: u32, most: usize) -> Vec<u32> {
        let mut places = Vec::new();
        let count = usize::try_from(namespaces).expect("few");
        let fill = |_| {
            let share = Arc::<Share>::default();
            share.set(bound(std::iter::empty(), count, most));
            while let Some(free) = most.checked_sub(places.len() + 1)
                && let Some(place) = share.enter(SessionRoom { most, free })
            {
                places.push(place);
            }
            share.usage().0
        };
        (0..namespaces).map(fill).collect()
    }

    #[test]
    fn of_three_namespaces_no_two_take_all_places_and_of_many_none_is_without() {
        assert_eq!(filled_by(1, 1000), [1000]);
        assert_eq!(filled_by(2, 1000), [500, 500]);
        assert_eq!(filled_by(3, 1000), [500, 313, 72]);
        assert!(filled_by(12, 1000).iter().all(|places| *places > 0));
    }

    #[test]
    fn a_connection_gets_a_place_exactly_below_the_limit_that_is_shown() {
        for bound in [Bound::default(), Bound::of(50), Bound { leaves_room: true, ..Bound::of(50) }] {
            for free in 0..100 {
                let (share, room) = (Arc::new(Share::default()), SessionRoom { most: 100, free });
                share.set(bound);
                let places: Vec<Place> = (0..100).map_while(|_| share.enter(room)).collect();
                let limit = share.limit(room).map_or(places.len(), |limit| usize::try_from(limit).expect("small"));
                assert_eq!(places.len(), limit.min(100), "{bound:?}, {free} free");
            }
        }
        let share = Share::default();
        share.set(Bound { leaves_room: true, ..Bound::of(50) });
        assert_eq!([EMPTY, FULL].map(|room| share.limit(room)), [Some(50), Some(3)]);
        assert_eq!(share.limit(SessionRoom { most: 100, free: 10 }), Some(5), "48 times the cube of a tenth, and one");
    }

    #[test]
    fn a_namespace_with_a_limit_of_its_own_leaves_no_room_and_flows_give_way_by_themselves() {
        let share = Arc::new(Share::default());
        share.set(Bound { leaves_room: true, ..Bound::of(5) });
        let first = [(); 4].map(|()| share.enter(FULL));
        assert_eq!(
            first.each_ref().map(Option::is_some),
            [true, true, true, false],
            "the last room is for those with fewer"
        );
        assert!(share.take(), "a flow");
        share.set(Bound::of(5));
        assert!(share.enter(FULL).is_some());
    }

    #[test]
    fn a_listener_concerns_the_share_of_its_namespace_and_of_no_other() {
        let mut tally = Tally::default();
        (0..10_000_u32).for_each(|at| tally.add(&format!("ns{}", at % 500), Some(at)));
        assert_eq!(tally.take_touched().len(), 500);
        tally.remove("ns7", Some(7));
        tally.add("ns7", None);
        assert_eq!(tally.take_touched(), BTreeSet::from(["ns7".to_owned()]));
        let bounds = [tally.bound("ns7", 100), tally.bound("ns8", 100)];
        assert_eq!(bounds, [Bound::of(507), Bound::of(8)], "the smallest that is left");
        tally.add("other", None);
        assert_eq!(tally.take_touched(), BTreeSet::from(["other".to_owned()]));
        assert_eq!(tally.bound("other", 100), Bound { leaves_room: true, ..Bound::of(50) });
        assert!(tally.take_touched().is_empty());
    }

    #[test]
    fn a_limit_counts_until_the_last_listener_that_carries_it_is_gone() {
        let mut tally = Tally::default();
        for limit in [Some(5), Some(5), Some(5), Some(9), None] {
            tally.add("a", limit);
        }
        for left in [5, 5, 9] {
            tally.remove("a", Some(5));
            assert_eq!(tally.bound("a", 100), Bound::of(left));
        }
        tally.remove("a", Some(9));
        assert_eq!(tally.bound("a", 100), Bound::default(), "the last one carries none");
    }

    #[test]
    fn the_second_and_third_namespace_come_and_go_and_concern_those_beside_them() {
        let mut tally = Tally::default();
        let touched = |tally: &mut Tally| tally.take_touched().into_iter().collect::<Vec<_>>();
        tally.add("a", None);
        assert_eq!((touched(&mut tally), tally.bound("a", 100)), (vec!["a".to_owned()], Bound::default()));
        tally.add("b", None);
        assert_eq!((touched(&mut tally), tally.bound("a", 100)), (vec!["a".to_owned(), "b".to_owned()], Bound::of(50)));
        tally.add("c", None);
        assert_eq!(touched(&mut tally), ["a", "b", "c"]);
        assert!(tally.bound("a", 100).leaves_room);
        tally.add("d", None);
        assert_eq!(touched(&mut tally), ["d"], "the fourth one concerns no other");
        tally.remove("d", None);
        tally.remove("c", None);
        assert_eq!((touched(&mut tally), tally.bound("a", 100)), (vec!["a".to_owned(), "b".to_owned()], Bound::of(50)));
        tally.remove("b", None);
        assert_eq!((touched(&mut tally), tally.bound("a", 100)), (vec!["a".to_owned()], Bound::default()));
        tally.remove("b", None);
        assert_eq!((tally.namespaces().count(), touched(&mut tally).len()), (1, 0), "it had gone");
    }
}
