//! Ports for listeners that accept any port.
//!
//! In rank order, each listener gets the first free port, counted from a start that is a hash of its name: the same
//! listener tends to get the same port again. A later listener may displace one of a lower rank, which then continues
//! its search. The outcome is the same as if all had arrived at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proxy_api::Transport;

use super::{ListenerRef, Lost, Port, Rank};

/// Ranges of ports, bounds included.
type Ranges = Vec<(u16, u16)>;

/// The owner of the listeners that accept any port: answers an allocation's queries, and takes its results.
pub(super) trait Requesters {
    /// Returns the request of a listener.
    fn request(&self, listener: &ListenerRef) -> Option<AnyPort<'_>>;

    /// Whether a port may be allocated at all.
    fn is_open(&self, port: Port) -> bool;

    /// The reason why a listener may have no port now, if its namespace has no share left.
    fn refused(&self, listener: &ListenerRef) -> Option<Lost>;

    /// Begins a new decision on all listeners, in rank order.
    fn restart(&mut self);

    /// Records the outcome for a listener.
    fn assign(&mut self, listener: &ListenerRef, given: Given);
}

/// The request of a listener that accepts any port.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnyPort<'a> {
    pub(super) transport: Transport,
    /// The ranges to choose from, bounds included.
    pub(super) ranges: &'a [(u16, u16)],
    /// The position at which the search begins, counted through the ranges again and again.
    pub(super) start: u64,
}

/// The outcome for a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    Port(u16),
    /// The namespace of the listener has no share left.
    Refused(Lost),
    /// All ports of the listener's ranges are taken.
    None,
    /// The Service of the gateway has no room for another port.
    NoRoom,
}

/// The listeners of a group that accept any port.
#[derive(Debug, Default)]
pub(super) struct Allocation {
    /// All listeners that accept any port.
    all: BTreeSet<Arc<Rank>>,
    /// Listeners without a decision.
    todo: BTreeSet<Arc<Rank>>,
    given: BTreeMap<Port, Arc<Rank>>,
    /// Ranges without a free port, each with the first listener that found none: listeners after it find none either.
    full: Vec<(Transport, Ranges, Arc<Rank>)>,
    /// Ports that became free: listeners that skipped them might have them.
    freed: BTreeSet<Port>,
    /// Whether there was room for fewer ports than there are listeners, at the last decision.
    was_short: bool,
    /// Present if that room was used up: its size, and the last listener that got a port. Listeners after that one get
    /// none until the room changes.
    used_up: Option<(usize, Option<Arc<Rank>>)>,
}

impl Allocation {
    /// Number of listeners that accept any port.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The listener to which a port was allocated.
    pub(super) fn holder(&self, port: Port) -> Option<&ListenerRef> {
        self.given.get(&port).map(|rank| &rank.listener)
    }

    pub(super) fn insert(&mut self, rank: Rank) {
        let rank = Arc::new(rank);
        self.todo.insert(rank.clone());
        self.all.insert(rank);
    }

    /// Removes a listener; `port` is its allocated port.
    pub(super) fn remove(&mut self, rank: &Rank, port: Option<Port>) {
        self.all.remove(rank);
        self.todo.remove(rank);
        if let Some(port) = port.filter(|port| self.given.get(port).is_some_and(|holder| **holder == *rank)) {
            self.given.remove(&port);
            self.freed.insert(port);
        }
    }

    /// Removes a port from allocation, as a listener requests it by number from now on.
    pub(super) fn close(&mut self, port: Port) {
        self.freed.remove(&port);
        self.todo.extend(self.given.remove(&port));
    }

    /// Returns a port to allocation, as no listener requests it by number any more.
    pub(super) fn open(&mut self, port: Port) {
        self.freed.insert(port);
    }

    /// Whether a listener has no decision, or ports became free.
    pub(super) fn is_due(&self) -> bool {
        !self.todo.is_empty() || !self.freed.is_empty()
    }

    /// Decides the listeners without a decision, or all if ports became free, room is short or `redecide` is set.
    /// Returns the number of ports that were tried.
    pub(super) fn settle(&mut self, room: usize, redecide: bool, requesters: &mut impl Requesters) -> u64 {
        let is_short = self.all.len() > room;
        let was_short = std::mem::replace(&mut self.was_short, is_short);
        let comes_too_late = is_short && !redecide && self.freed.is_empty() && self.comes_too_late(room);
        let is_again = !comes_too_late && (redecide || is_short || was_short || !self.freed.is_empty());
        if is_again {
            self.freed.clear();
            self.given.clear();
            self.full.clear();
            self.used_up = None;
            self.todo.clone_from(&self.all);
            requesters.restart();
        }
        let (mut left, mut tried) = (if comes_too_late { 0 } else { room }, 0);
        let mut last = None;
        while let Some(rank) = self.todo.pop_first() {
            let listener = &rank.listener;
            if let Some(lost) = requesters.refused(listener) {
                requesters.assign(listener, Given::Refused(lost));
            } else if is_short && left == 0 {
                requesters.assign(listener, Given::NoRoom);
            } else if let Some(port) = self.search(&rank, &*requesters, &mut tried) {
                left = left.saturating_sub(1);
                last = Some(rank.clone());
                requesters.assign(listener, Given::Port(port.1));
                self.todo.extend(self.given.insert(port, rank));
            } else {
                requesters.assign(listener, Given::None);
            }
        }
        if is_again && is_short && left == 0 {
            self.used_up = Some((room, last));
        }
        tried
    }

    /// Whether the same room was used up before the turn of the listeners without a decision.
    fn comes_too_late(&self, room: usize) -> bool {
        let Some((_, last)) = self.used_up.as_ref().filter(|(used, _)| *used == room) else { return false };
        last.as_ref().is_none_or(|last| self.todo.first().is_none_or(|first| last < first))
    }

    fn search(&mut self, rank: &Arc<Rank>, requesters: &impl Requesters, tried: &mut u64) -> Option<Port> {
        let AnyPort { transport, ranges, start } = requesters.request(&rank.listener)?;
        let full = self.full.iter().find(|(of, full, _)| *of == transport && full == ranges);
        if full.is_some_and(|(_, _, first)| first <= rank) {
            return None;
        }
        let total = total(ranges);
        let start = start % total.max(1);
        let mut ports = (0..total).map(|step| (transport, nth_port(ranges, (start + step) % total)));
        let found = ports.find(|port| {
            *tried += 1;
            requesters.is_open(*port) && self.given.get(port).is_none_or(|holder| rank < holder)
        });
        if found.is_none() {
            self.full.retain(|(of, full, _)| *of != transport || full != ranges);
            self.full.push((transport, ranges.to_vec(), rank.clone()));
        }
        found
    }
}

/// Number of ports in these ranges.
fn total(ranges: &[(u16, u16)]) -> u64 {
    ranges.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
}

/// The port at this position when the ranges are counted through.
fn nth_port(ranges: &[(u16, u16)], mut nth: u64) -> u16 {
    for (first, last) in ranges {
        let width = u64::from(last - first) + 1;
        if nth < width {
            return first.saturating_add(u16::try_from(nth).unwrap_or(0));
        }
        nth -= width;
    }
    ranges.first().map_or(0, |range| range.0)
}
