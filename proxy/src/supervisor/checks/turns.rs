//! Turns of checks, so that unanswered checks delay none of other namespaces.
//!
//! A check may take as long as its timeout, up to an hour, so backends decide when turns are released. A namespace has
//! turns of its own, as many as it has lookups of names, and all namespaces share more: one alone can use those, too.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use proxy_api::Origin;
use tokio::{
    select,
    sync::{Semaphore, SemaphorePermit},
};

/// Concurrent checks of one forward, so that a forward whose backends do not answer cannot delay the checks of others.
const OF_FORWARD: usize = 16;
/// Turns that each namespace has of its own.
const OF_NAMESPACE: usize = 32;
/// Additional turns, which all namespaces share.
const SHARED: usize = 256;

/// The turns of the process.
#[derive(Debug)]
pub(super) struct Turns {
    shared: Arc<Semaphore>,
    /// The turns of namespaces with checks.
    namespaces: BTreeMap<String, OfNamespace>,
}

#[derive(Debug)]
struct OfNamespace {
    turns: Arc<Semaphore>,
    forwards: BTreeMap<Origin, Arc<Semaphore>>,
}

impl Default for OfNamespace {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(OF_NAMESPACE)), forwards: BTreeMap::new() }
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self { shared: Arc::new(Semaphore::new(SHARED)), namespaces: BTreeMap::new() }
    }
}

impl Turns {
    /// The turns of this forward.
    pub(super) fn of(&mut self, forward: &Origin) -> OfForward {
        let namespace = self.namespaces.entry(forward.namespace.clone()).or_default();
        let own = namespace.forwards.entry(forward.clone()).or_insert_with(|| Arc::new(Semaphore::new(OF_FORWARD)));
        OfForward { forward: own.clone(), namespace: namespace.turns.clone(), shared: self.shared.clone() }
    }

    /// Forgets a forward that has no checks any longer.
    pub(super) fn forget(&mut self, forward: &Origin) {
        let Some(namespace) = self.namespaces.get_mut(&forward.namespace) else { return };
        namespace.forwards.remove(forward);
        if namespace.forwards.is_empty() {
            self.namespaces.remove(&forward.namespace);
        }
    }
}

/// The turns of a forward.
#[derive(Debug)]
pub(super) struct OfForward {
    forward: Arc<Semaphore>,
    namespace: Arc<Semaphore>,
    shared: Arc<Semaphore>,
}

/// A turn, until it is dropped: one of the forward, and one of its namespace or of all.
type Turn<'a> = [SemaphorePermit<'a>; 2];

impl OfForward {
    /// Waits for a turn, and counts if it has to. `None`: the turns are closed.
    pub(super) async fn take(&self, waits: &AtomicU64) -> Option<Turn<'_>> {
        if let Some(turn) = self.try_take() {
            return Some(turn);
        }
        waits.fetch_add(1, Relaxed);
        let forward = self.forward.acquire().await.ok()?;
        // Whichever is free first, preferably one of the namespace, as others may wait for the shared ones.
        let turn = select! {
            biased;
            own = self.namespace.acquire() => own,
            shared = self.shared.acquire() => shared,
        };
        Some([forward, turn.ok()?])
    }

    fn try_take(&self) -> Option<Turn<'_>> {
        let forward = self.forward.try_acquire().ok()?;
        let turn = self.namespace.try_acquire().or_else(|_| self.shared.try_acquire());
        Some([forward, turn.ok()?])
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    /// The turns of this many forwards of a namespace.
    fn forwards(turns: &mut Turns, namespace: &str, count: usize) -> Vec<OfForward> {
        (0..count).map(|at| turns.of(&Origin::port_forward(namespace, format!("f{at}")))).collect()
    }

    /// All the turns that checks of these forwards get now.
    fn all(forwards: &[OfForward]) -> Vec<Turn<'_>> {
        forwards.iter().flat_map(|forward| std::iter::from_fn(move || forward.try_take())).collect()
    }

    // D7
    #[test]
    fn checks_that_nobody_answers_leave_each_other_namespace_its_turns() {
        let mut turns = Turns::default();
        let [hostile, second, third] = ["a", "b", "c"].map(|namespace| forwards(&mut turns, namespace, 100));
        let held = all(&hostile);
        assert_eq!(held.len(), OF_NAMESPACE + SHARED);
        assert_eq!(all(&second).len(), OF_NAMESPACE);
        let (_of_second, of_third) = (all(&second), all(&third));
        assert_eq!(of_third.len(), OF_NAMESPACE, "and so has the next one");
        drop(held);
        assert_eq!(all(&third).len(), SHARED, "beside its own, which it has");
    }

    #[test]
    fn a_forward_leaves_turns_to_others_of_its_namespace() {
        let mut turns = Turns::default();
        let forwards = forwards(&mut turns, "a", 2);
        assert_eq!(all(&forwards[..1]).len(), OF_FORWARD);
        let _first = all(&forwards[..1]);
        assert_eq!(all(&forwards).len(), OF_FORWARD, "those of the second one");
    }

    #[test]
    fn a_check_that_waits_is_counted_and_gets_the_next_turn_of_its_namespace_or_of_all() {
        let (mut turns, waits) = (Turns::default(), AtomicU64::new(0));
        let [hostile, other] = ["a", "b"].map(|namespace| forwards(&mut turns, namespace, 100));
        let (mut of_hostile, mut of_other) = (all(&hostile), all(&other));
        let next = turns.of(&Origin::port_forward("b", "next"));
        let mut cx = Context::from_waker(Waker::noop());
        let mut held = Vec::new();
        for of in [&mut of_other, &mut of_hostile] {
            let mut waiting = pin!(next.take(&waits));
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            // The last one of the hostile namespace is a shared one.
            of.pop();
            let Poll::Ready(Some(turn)) = waiting.as_mut().poll(&mut cx) else { panic!("a turn is free") };
            held.push(turn);
        }
        assert_eq!(waits.load(Relaxed), 2);
        of_other.clear();
        assert!(pin!(next.take(&waits)).poll(&mut cx).is_ready());
        assert_eq!(waits.load(Relaxed), 2, "who finds a turn does not wait");
    }

    #[test]
    fn what_belongs_to_forwards_goes_with_the_last_one_of_its_namespace() {
        let mut turns = Turns::default();
        drop(forwards(&mut turns, "a", 2));
        let [first, second] = ["f0", "f1"].map(|name| Origin::port_forward("a", name));
        turns.forget(&first);
        assert_eq!(turns.namespaces.len(), 1);
        turns.forget(&second);
        turns.forget(&second);
        assert!(turns.namespaces.is_empty());
    }
}
