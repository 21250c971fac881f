//! Reverse index from objects or addresses to the forwards that name them.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::Origin;

use crate::world::ObjectKey;

/// Forwards by the objects, or the addresses, that they name.
#[derive(Debug)]
pub(crate) struct Index<K = ObjectKey>(BTreeMap<K, BTreeSet<Origin>>);

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Clone + Ord> Index<K> {
    /// Replaces the objects that a forward names. Both lists are sorted.
    pub(crate) fn set(&mut self, forward: &Origin, old: &[K], new: &[K]) {
        for gone in old.iter().filter(|named| new.binary_search(named).is_err()) {
            if let Some(forwards) = self.0.get_mut(gone) {
                forwards.remove(forward);
                if forwards.is_empty() {
                    self.0.remove(gone);
                }
            }
        }
        for added in new.iter().filter(|named| old.binary_search(named).is_err()) {
            self.0.entry(added.clone()).or_default().insert(forward.clone());
        }
    }

    /// The forwards that name an object.
    pub(crate) fn of(&self, named: &K) -> impl Iterator<Item = &Origin> {
        self.0.get(named).into_iter().flatten()
    }

    /// All objects that forwards name.
    pub(crate) fn named(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}
