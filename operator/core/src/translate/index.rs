//! Reverse index from objects to the forwards that name them.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::Origin;

use crate::world::ObjectKey;

/// Forwards by the objects that they name.
#[derive(Debug, Default)]
pub(crate) struct Index(BTreeMap<ObjectKey, BTreeSet<Origin>>);

impl Index {
    /// Replaces the objects that a forward names. Both lists are sorted.
    pub(crate) fn set(&mut self, forward: &Origin, old: &[ObjectKey], new: &[ObjectKey]) {
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
    pub(crate) fn of(&self, named: &ObjectKey) -> impl Iterator<Item = &Origin> {
        self.0.get(named).into_iter().flatten()
    }

    /// All objects that forwards name.
    pub(crate) fn named(&self) -> impl Iterator<Item = &ObjectKey> {
        self.0.keys()
    }
}
