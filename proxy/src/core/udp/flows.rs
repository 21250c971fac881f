//! A bounded table of UDP flows in order of use, with no sockets and no clock.

use std::{hash::Hash, net::IpAddr, net::SocketAddr, rc::Rc};

use foldhash::{HashMap, HashMapExt};
use slab::Slab;

use crate::core::workers::rounds::{BLOCK, Occupied, SLICES, places_of};

/// Key of a flow: the client, and the local address it sent to, which replies leave from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Client address.
    pub client: SocketAddr,
    /// Local address, if the system reports it.
    pub local: Option<IpAddr>,
}

/// Idle time below which a flow counts as in use and is never evicted, in milliseconds.
pub(in crate::core) const IN_USE_MILLIS: u64 = 1000;
/// Idle time, in milliseconds, after which a flow counts as finished if its end is due anyway. An answer rarely takes
/// longer, and nobody waits for the end of the process: the timers of sessions are a second late as well.
pub const QUIET_MILLIS: u64 = 2000;
const NONE: usize = usize::MAX;

struct Node<T> {
    key: FlowKey,
    used: u64,
    newer: usize,
    older: usize,
    value: T,
}

/// Flows by key, in order of last use.
pub struct FlowTable<T> {
    nodes: Slab<Node<T>>,
    by_key: HashMap<FlowKey, usize>,
    newest: usize,
    oldest: usize,
    limit: usize,
    /// Flows in each slice of the sweep, with those of other tables.
    occupied: Rc<Occupied>,
    /// The slice of the first places.
    first_slice: usize,
}

/// The table is full of flows in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<T> FlowTable<T> {
    /// Creates an empty table for at most `limit` flows.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self::swept(limit, Rc::default(), 0)
    }

    /// Like [`Self::new`], for a sweep that visits the slices in `occupied`; the first places are in `first_slice`.
    #[must_use]
    pub fn swept(limit: usize, occupied: Rc<Occupied>, first_slice: usize) -> Self {
        let (nodes, by_key, limit) = (Slab::new(), HashMap::new(), limit.max(1));
        Self { nodes, by_key, newest: NONE, oldest: NONE, limit, occupied, first_slice: first_slice % SLICES }
    }

    /// Number of flows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the table has no flows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Finds a flow.
    #[must_use]
    pub fn get(&self, key: &FlowKey) -> Option<&T> {
        self.by_key.get(key).map(|at| &self.nodes[*at].value)
    }

    /// Finds a flow and records its use at `now` (milliseconds).
    pub fn touch(&mut self, key: &FlowKey, now: u64) -> Option<&mut T> {
        let at = *self.by_key.get(key)?;
        self.unlink(at);
        self.link_newest(at);
        let node = &mut self.nodes[at];
        node.used = now;
        Some(&mut node.value)
    }

    /// Adds a flow. If the table is full, the least recently used idle flow is evicted and returned.
    ///
    /// # Errors
    /// [`Full`] if every flow is in use.
    pub fn insert(&mut self, key: FlowKey, value: T, now: u64) -> Result<Option<T>, Full> {
        let replaced = self.remove(&key);
        let evicted = if self.nodes.len() < self.limit { None } else { Some(self.evict(now).ok_or(Full)?) };
        let at = self.nodes.insert(Node { key, used: now, newer: NONE, older: NONE, value });
        self.by_key.insert(key, at);
        self.occupied.add(self.swept_place(at));
        self.link_newest(at);
        Ok(evicted.or(replaced))
    }

    /// Whether the table can take another flow at `now`.
    #[must_use]
    pub fn has_room(&self, now: u64) -> bool {
        self.nodes.len() < self.limit
            || self.nodes.get(self.oldest).is_some_and(|oldest| now.saturating_sub(oldest.used) >= IN_USE_MILLIS)
    }

    /// Whether a flow is not quiet at `now`.
    #[must_use]
    pub fn is_busy(&self, now: u64) -> bool {
        self.nodes.get(self.newest).is_some_and(|newest| now.saturating_sub(newest.used) < QUIET_MILLIS)
    }

    /// Whether this flow is quiet at `now`.
    #[must_use]
    pub fn is_quiet(&self, key: &FlowKey, now: u64) -> bool {
        self.by_key.get(key).is_none_or(|at| now.saturating_sub(self.nodes[*at].used) >= QUIET_MILLIS)
    }

    /// Removes the least recently used flow if it is idle at `now`.
    pub fn evict(&mut self, now: u64) -> Option<T> {
        let oldest = self.nodes.get(self.oldest)?;
        (now.saturating_sub(oldest.used) >= IN_USE_MILLIS).then_some(oldest.key).and_then(|key| self.remove(&key))
    }

    /// Removes a flow.
    pub fn remove(&mut self, key: &FlowKey) -> Option<T> {
        let at = self.by_key.remove(key)?;
        self.occupied.remove(self.swept_place(at));
        self.unlink(at);
        Some(self.nodes.remove(at).value)
    }

    /// Removes the least recently used flow if it has been idle for `idle` milliseconds; call until `None`.
    pub fn expire(&mut self, now: u64, idle: u64) -> Option<T> {
        let oldest = self.nodes.get(self.oldest)?;
        let key = (now.saturating_sub(oldest.used) >= idle).then_some(oldest.key)?;
        self.remove(&key)
    }

    /// Removes all flows that match `wanted`.
    pub fn remove_where(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let keys: Vec<FlowKey> =
            self.nodes.iter().filter(|(_, node)| wanted(&node.value)).map(|(_, node)| node.key).collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// All flows, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&FlowKey, &T)> {
        self.nodes.iter().map(|(_, node)| (&node.key, &node.value))
    }

    /// The flows of a slice, each with the time of its last use.
    pub fn in_slice(&self, slice: usize) -> impl Iterator<Item = (&T, u64)> {
        let own = (slice % SLICES + SLICES - self.first_slice) % SLICES;
        let nodes = places_of(own, self.nodes.capacity()).filter_map(|place| self.nodes.get(place));
        nodes.map(|node| (&node.value, node.used))
    }

    fn swept_place(&self, at: usize) -> usize {
        at + self.first_slice * BLOCK
    }

    fn unlink(&mut self, at: usize) {
        let (newer, older) = (self.nodes[at].newer, self.nodes[at].older);
        match self.nodes.get_mut(newer) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.nodes.get_mut(older) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, at: usize) {
        let previous = self.newest;
        if let Some(node) = self.nodes.get_mut(previous) {
            node.newer = at;
        } else {
            self.oldest = at;
        }
        let node = &mut self.nodes[at];
        node.newer = NONE;
        node.older = previous;
        self.newest = at;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u16) -> FlowKey {
        FlowKey { client: SocketAddr::from(([10, 0, 0, 1], n)), local: None }
    }

    #[test]
    fn a_full_table_evicts_the_oldest_that_is_not_in_use_and_else_refuses() {
        let mut table = FlowTable::new(2);
        assert_eq!(table.insert(key(1), 'a', 0), Ok(None));
        assert_eq!(table.insert(key(2), 'b', 500), Ok(None));
        assert_eq!(table.insert(key(3), 'c', 900), Err(Full));
        table.touch(&key(1), 950);
        assert_eq!(table.insert(key(3), 'c', 1500), Ok(Some('b')), "the least recently used, not the oldest");
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn expiry_goes_by_last_use() {
        let mut table = FlowTable::new(9);
        for n in 1..=3 {
            table.insert(key(n), n, 0).expect("room");
        }
        table.touch(&key(1), 60);
        assert_eq!((table.expire(100, 100), table.expire(100, 100), table.expire(100, 100)), (Some(2), Some(3), None));
        assert_eq!(table.touch(&key(1), 200).copied(), Some(1));
    }

    #[test]
    fn flows_are_busy_until_the_last_of_them_is_quiet() {
        // T23
        let mut table = FlowTable::new(9);
        assert!(!table.is_busy(0));
        for n in 1..=2 {
            table.insert(key(n), n, 0).expect("room");
        }
        table.touch(&key(1), 500);
        assert!(table.is_busy(QUIET_MILLIS + 499) && !table.is_busy(QUIET_MILLIS + 500));
        let quiet = |n| table.is_quiet(&key(n), QUIET_MILLIS);
        assert_eq!((quiet(1), quiet(2)), (false, true));
    }

    #[test]
    fn a_full_table_has_room_once_the_flow_used_longest_ago_is_idle() {
        let mut table = FlowTable::new(2);
        table.insert(key(1), 'a', 0).expect("room");
        assert!(table.has_room(0));
        table.insert(key(2), 'b', 500).expect("room");
        assert!(!table.has_room(999) && table.has_room(1000));
    }

    #[test]
    fn flows_are_found_by_their_keys_and_removed_by_what_they_are() {
        let mut table = FlowTable::new(9);
        assert!(table.is_empty());
        for n in 1..=4 {
            table.insert(key(n), n, 0).expect("room");
        }
        assert_eq!((table.get(&key(2)), table.get(&key(9)), table.is_empty()), (Some(&2), None, false));
        let mut all: Vec<(u16, u16)> = table.iter().map(|(key, n)| (key.client.port(), *n)).collect();
        all.sort_unstable();
        assert_eq!(all, [(1, 1), (2, 2), (3, 3), (4, 4)]);
        let mut gone = table.remove_where(|n| n.is_multiple_of(2));
        gone.sort_unstable();
        assert_eq!((gone, table.len()), (vec![2, 4], 2));
    }

    #[test]
    fn each_flow_is_in_the_slice_that_it_is_counted_in_from_the_first_one_of_its_table_on() {
        for first in [0, 1, 62, 64, 65] {
            let occupied = Rc::new(Occupied::default());
            let mut table = FlowTable::swept(usize::MAX, occupied.clone(), first);
            for n in 0..600 {
                table.insert(key(n), n, n.into()).expect("room");
            }
            let slices = [0, 1, 2, 3].map(|after| (first + after) % SLICES);
            assert_eq!(slices.map(|slice| table.in_slice(slice).count()), [256, 256, 88, 0], "{first}");
            assert_eq!(slices.map(|slice| table.in_slice(slice + SLICES).count()), [256, 256, 88, 0], "{first}");
            assert!(table.in_slice(slices[2]).all(|(n, used)| *n >= 512 && used == u64::from(*n)));
            assert_eq!(slices.map(|slice| occupied.has(slice)), [true, true, true, false]);
            assert_eq!((0..SLICES).filter(|slice| occupied.has(*slice)).count(), 3);
            for n in 512..600 {
                table.remove(&key(n));
            }
            assert_eq!(slices.map(|slice| occupied.has(slice)), [true, true, false, false]);
        }
    }

    proptest! {
        /// Compares with a plain list kept in order of use.
        #[test]
        fn behaves_like_a_list_in_order_of_use(
            steps in proptest::collection::vec((0_u8..4, 0_u16..8, 0_u64..700), 0..200), limit in 1_usize..6,
        ) {
            let mut table = FlowTable::new(limit);
            let mut list: Vec<(u16, u64)> = Vec::new();
            let mut now = 0;
            for (step, n, passed) in steps {
                now += passed;
                let known = list.iter().position(|(other, _)| *other == n);
                match step {
                    0 => {
                        let found = table.touch(&key(n), now).copied();
                        prop_assert_eq!(found, known.map(|_| n));
                        if let Some(at) = known { list.remove(at); list.push((n, now)); }
                    }
                    1 => {
                        if let Some(at) = known { list.remove(at); }
                        let full = list.len() >= limit;
                        let evictable = !full || list.first().is_some_and(|(_, used)| now - used >= 1000);
                        prop_assert_eq!(table.insert(key(n), n, now).is_ok(), evictable);
                        if evictable {
                            if full { list.remove(0); }
                            list.push((n, now));
                        }
                    }
                    2 => {
                        prop_assert_eq!(table.remove(&key(n)), known.map(|_| n));
                        if let Some(at) = known { list.remove(at); }
                    }
                    _ => {
                        let old = list.first().filter(|(_, used)| now - used >= 500).map(|(n, _)| *n);
                        prop_assert_eq!(table.expire(now, 500), old);
                        if old.is_some() { list.remove(0); }
                    }
                }
                prop_assert_eq!(table.len(), list.len());
            }
        }
    }
}
