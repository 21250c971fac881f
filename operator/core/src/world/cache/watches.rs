//! The watches of the cache: which of them the cache waits for, and which should list again.

use std::{collections::BTreeSet, time::Duration};

use super::{Cache, State, Touched};
use crate::world::watched::{Kind, Source};

/// Shortest time between two lists of one watch that are requested because there is room. A list may have a hundred
/// thousand objects, and nothing is published before it ends.
const LIST_EVERY: Duration = Duration::from_secs(60);

/// The objects of one watch that the limit left out.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Number of events that were left out since the last list began.
    count: u64,
    /// Whether a known object has gone since then, so that there is room for one that was left out.
    has_room: bool,
    /// When another list may be requested.
    next: Duration,
}

impl LeftOut {
    /// Leaves one object out.
    pub(super) fn add(&mut self) {
        self.count += 1;
    }

    /// Whether objects were left out, so that unknown objects may exist.
    pub(super) const fn is_any(&self) -> bool {
        self.count > 0
    }

    /// Records that a known object is gone.
    pub(super) fn make_room(&mut self) {
        self.has_room = self.is_any();
    }

    /// Begins a list, with all the room. Returns how many objects were left out before.
    pub(super) fn restarted(&mut self) -> u64 {
        self.has_room = false;
        std::mem::take(&mut self.count)
    }

    /// Whether the watch should list again; if so, the next time is a while later.
    fn takes_turn(&mut self, now: Duration) -> bool {
        let is_due = self.has_room && now >= self.next;
        if is_due {
            self.has_room = false;
            self.next = now.saturating_add(LIST_EVERY);
        }
        is_due
    }
}

impl Cache {
    /// Adds a watch.
    pub fn expect(&mut self, source: &Source) {
        let is_late = self.is_open;
        self.sources.entry(source.clone()).or_insert_with(|| State { is_late, ..State::default() });
        self.wait_for(source);
    }

    /// Notes whether [`Cache::is_synced`] waits for this watch.
    pub(super) fn wait_for(&mut self, source: &Source) {
        let is_missing = |state: &State| !state.synced && !state.is_late && source.kind.is_required();
        if self.sources.get(source).is_some_and(is_missing) {
            self.awaited.insert(source.clone());
        } else {
            self.awaited.remove(source);
        }
    }

    /// Opens the cache: snapshots are published from now on, and a watch that is added later blocks nothing else.
    pub fn open(&mut self) {
        self.is_open = true;
    }

    /// Namespaces whose pods are watched.
    #[must_use]
    pub fn watched_pods(&self) -> BTreeSet<String> {
        self.sources
            .keys()
            .filter(|source| source.kind == Kind::Pods)
            .filter_map(|source| source.namespace.clone())
            .collect()
    }

    /// Forgets the pods of a namespace whose watch has ended.
    pub fn forget_pods(&mut self, namespace: &str) -> Touched {
        let source = Source { kind: Kind::Pods, namespace: Some(namespace.to_owned()) };
        let mut touched = Touched::default();
        let mut forgotten = self.sources.remove(&source).unwrap_or_default();
        self.left_out = self.left_out.saturating_sub(forgotten.left_out.restarted());
        self.wait_for(&source);
        for key in forgotten.known {
            touched.absorb(self.remove(source.kind, &key));
        }
        touched
    }

    /// The watches that left objects out, have room for some of them now, and should list again.
    #[must_use]
    pub fn due_lists(&mut self, now: Duration) -> Vec<Source> {
        if self.left_out == 0 {
            return Vec::new();
        }
        let due = |(source, state): (&Source, &mut State)| {
            (state.synced && state.left_out.takes_turn(now)).then(|| source.clone())
        };
        self.sources.iter_mut().filter_map(due).collect()
    }
}
