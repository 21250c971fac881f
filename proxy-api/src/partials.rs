//! The memory of incomplete messages, and of those that wait for a log, over all durable listeners of a process.
//!
//! Each connection has a little of its own. Beyond that, all share one bound, and a connection that grows leaves room
//! to others: the bytes of its source, and those of its listener (if several namespaces have listeners: of its
//! namespace), must fit in once more beside the bytes of all. So one source has at most a third of the memory, one IPv6
//! /64 three sevenths, one listener or one namespace a half, and however many there are, some is left for another.

use std::{
    collections::BTreeMap,
    mem::replace,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::doors::{Network, Source, weight};

/// Bytes of an incomplete message that a connection may always have. They fit into the memory reserved for its session.
pub const OWN_BYTES: usize = 8 << 10;

/// Bytes by holder. A count lives as long as something refers to it.
type Counts<K> = Mutex<BTreeMap<K, Weak<AtomicUsize>>>;

fn count_of<K: Ord>(counts: &Counts<K>, key: K) -> Arc<AtomicUsize> {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    counts.retain(|_, count| count.strong_count() > 0);
    let count = counts.get(&key).and_then(Weak::upgrade).unwrap_or_default();
    counts.insert(key, Arc::downgrade(&count));
    count
}

/// Whether more than `than` of the counts are referred to.
fn are_more<K>(counts: &Counts<K>, than: usize) -> bool {
    let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    counts.values().filter(|count| count.strong_count() > 0).nth(than).is_some()
}

/// The memory that all connections share.
#[derive(Debug)]
pub struct Partials {
    most: AtomicUsize,
    held: AtomicUsize,
    namespaces: Counts<String>,
}

impl Partials {
    /// Creates a memory of `most` bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most: AtomicUsize::new(most), held: AtomicUsize::default(), namespaces: Counts::default() }
    }

    /// Changes the number of bytes. Connections that have more keep it.
    pub fn resize(&self, most: usize) {
        self.most.store(most, Relaxed);
    }

    /// Whether a listener uses the memory.
    #[must_use]
    pub fn is_used(&self) -> bool {
        are_more(&self.namespaces, 0)
    }

    /// The share of a listener of this namespace.
    #[must_use]
    pub fn share(self: &Arc<Self>, namespace: &str) -> PartialShare {
        let namespace = count_of(&self.namespaces, namespace.to_owned());
        PartialShare {
            all: self.clone(),
            namespace,
            listener: Arc::default(),
            sources: Arc::default(),
            networks: Arc::default(),
        }
    }
}

/// The share of a listener.
#[derive(Clone, Debug)]
pub struct PartialShare {
    all: Arc<Partials>,
    namespace: Arc<AtomicUsize>,
    listener: Arc<AtomicUsize>,
    sources: Arc<Counts<IpAddr>>,
    networks: Arc<Counts<Network>>,
}

impl Default for PartialShare {
    /// The share of a listener without a bound.
    fn default() -> Self {
        Arc::new(Partials::new(usize::MAX)).share("")
    }
}

impl PartialShare {
    /// Creates the partial of a connection of this source, which is empty.
    #[must_use]
    pub fn partial(&self, source: IpAddr) -> Partial {
        let source = Source::of(source);
        Partial {
            of: self.clone(),
            source: count_of(&self.sources, source.address),
            network: source.network.map(|network| count_of(&self.networks, network)),
            own: OWN_BYTES,
            shared: 0,
        }
    }
}

/// The bytes that one connection holds of an incomplete message, or of messages that wait for the log. Dropping it
/// frees them.
#[derive(Debug)]
pub struct Partial {
    of: PartialShare,
    source: Arc<AtomicUsize>,
    network: Option<Arc<AtomicUsize>>,
    /// Bytes that the connection always has.
    own: usize,
    /// Bytes of the shared memory.
    shared: usize,
}

impl Partial {
    /// Creates a partial for messages of the same source that wait for the log. It is empty, and each byte counts.
    #[must_use]
    pub fn waiting(&self) -> Self {
        Self { of: self.of.clone(), source: self.source.clone(), network: self.network.clone(), own: 0, shared: 0 }
    }

    /// Replaces the bytes held by this many, or by none if there is no room for them. Returns whether it holds them.
    #[must_use]
    pub fn takes(&mut self, bytes: usize) -> bool {
        let has_room = self.holds(bytes);
        if !has_room {
            // A partial that does not grow always has room.
            let _ = self.holds(0);
        }
        has_room
    }

    /// Sets the number of bytes held. Returns whether there is room for them; without growth there always is.
    #[must_use]
    pub fn holds(&mut self, bytes: usize) -> bool {
        let now = bytes.saturating_sub(self.own);
        let before = replace(&mut self.shared, now);
        let PartialShare { all, namespace, listener, .. } = &self.of;
        let [of_all, of_namespace, of_listener, of_source] =
            [&all.held, &**namespace, &**listener, &*self.source].map(|count| moved(count, before, now));
        let of_network = self.network.as_deref().map_or(0, |count| moved(count, before, now));
        if now <= before {
            return true;
        }
        let of_group = if are_more(&all.namespaces, 1) { of_namespace } else { of_listener };
        weight(of_source, of_network) + of_group + of_all <= all.most.load(Relaxed)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Freeing bytes always succeeds.
        let _ = self.holds(0);
    }
}

/// Replaces `before` by `now` in a count, and returns the sum.
fn moved(count: &AtomicUsize, before: usize, now: usize) -> usize {
    count.fetch_add(now, Relaxed);
    count.fetch_sub(before, Relaxed).saturating_sub(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn from(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Whether there is room for this many MiB beside the own bytes.
    fn has_room(partial: &mut Partial, mebibytes: usize) -> bool {
        partial.holds(OWN_BYTES + mebibytes * MIB)
    }

    #[test]
    fn who_grows_leaves_room_to_others_and_a_little_is_always_there() {
        let all = Arc::new(Partials::new(90 * MIB));
        let listener = all.share("a");
        let (mut first, mut same) = (listener.partial(from(1)), listener.partial(from(1)));
        assert!(has_room(&mut first, 30));
        assert!(!has_room(&mut same, 1), "a source has a third");
        assert!(same.holds(OWN_BYTES));
        let mut second = listener.partial(from(2));
        assert!(has_room(&mut second, 10) && !has_room(&mut second, 11), "another source of the listener");
        let mut third = all.share("a").partial(from(1));
        assert!(has_room(&mut third, 16) && !has_room(&mut third, 17), "another listener of the namespace");
        let mut fourth = all.share("b").partial(from(1));
        assert!(has_room(&mut fourth, 10) && !has_room(&mut fourth, 11), "another namespace");
        assert!(!has_room(&mut all.share("a").partial(from(3)), 1), "beside others, the namespace has too much");
    }

    // C3
    #[test]
    fn an_ipv6_address_leaves_room_to_others_of_its_64_and_a_64_to_others() {
        let all = Arc::new(Partials::new(90 * MIB));
        let listener = all.share("a");
        let six = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        let mut first = listener.partial(six(1));
        assert!(has_room(&mut first, 30) && !has_room(&mut first, 31) && has_room(&mut first, 30));
        let mut neighbour = listener.partial(six(2));
        assert!(has_room(&mut neighbour, 6) && !has_room(&mut neighbour, 10));
        drop((first, neighbour));
        // Each of many addresses has little, and together they have less than the half of a listener.
        let mut many: Vec<Partial> = (0..90).map(|at| listener.partial(six(at))).collect();
        let taken = many.iter_mut().map(|one| usize::from(one.takes(OWN_BYTES + MIB))).sum::<usize>();
        assert_eq!(taken, 38, "a third of a network, beside all of it twice");
        let mut other = listener.partial(from(1));
        assert!(has_room(&mut other, 4));
    }

    #[test]
    fn messages_that_wait_share_the_memory_and_who_finds_no_room_for_them_takes_none() {
        let all = Arc::new(Partials::new(9 * MIB));
        let listener = all.share("a");
        let mut first = listener.partial(from(1));
        assert!(has_room(&mut first, 1) && first.waiting().takes(2 * MIB));
        let mut waiting = first.waiting();
        assert!(!waiting.takes(2 * MIB + 1), "a source has a third");
        assert!(all.held.load(Relaxed) == MIB && waiting.takes(OWN_BYTES));
        assert_eq!(all.held.load(Relaxed), MIB + OWN_BYTES, "each byte counts");
        drop((first, waiting));
        assert_eq!(all.held.load(Relaxed), 0);
    }

    #[test]
    fn what_a_connection_had_is_free_once_it_ends_and_a_smaller_bound_closes_nobody() {
        let all = Arc::new(Partials::new(3 * MIB));
        let (listener, other) = (all.share("a"), all.share("b"));
        let (mut first, mut second) = (listener.partial(from(1)), other.partial(from(2)));
        assert!(has_room(&mut first, 1) && !has_room(&mut second, 1));
        drop(first);
        assert!(has_room(&mut second, 0) && has_room(&mut second, 1));
        all.resize(1);
        assert!(has_room(&mut second, 1) && !has_room(&mut second, 2));
        drop((listener, other, second));
        assert!(!all.is_used() && all.held.load(Relaxed) == 0);
        assert!(all.share("c").partial(from(1)).holds(OWN_BYTES));
    }
}
