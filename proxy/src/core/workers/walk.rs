//! A walk over a map in steps of few entries, so that other tasks run in between. The map may change meanwhile.

use std::{collections::BTreeMap, ops::Bound};

/// The progress of a walk: the last entry of the last step. A walk restarts after its last step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk<K>(Option<K>);

impl<K> Default for Walk<K> {
    fn default() -> Self {
        Self(None)
    }
}

impl<K: Ord + Clone> Walk<K> {
    /// The last entry of the last step; `None`: the walk is at its beginning.
    #[must_use]
    pub fn last(&self) -> Option<&K> {
        self.0.as_ref()
    }

    /// Whether the walk has begun, and has steps left.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the next `most` entries; fewer are the last step. An entry that stays during the walk is in one step.
    pub fn step<'a, V>(&mut self, all: &'a BTreeMap<K, V>, most: usize) -> Vec<(&'a K, &'a V)> {
        let behind = self.0.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let step: Vec<(&'a K, &'a V)> = all.range::<K, _>((behind, Bound::Unbounded)).take(most).collect();
        self.0 = if step.len() < most { None } else { step.last().map(|&(key, _)| key.clone()) };
        step
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_walk_over_ten_thousand_entries_has_forty_steps_of_few_each_time() {
        let all: BTreeMap<u16, u16> = (0..10_000).map(|at| (at, at)).collect();
        let mut walk = Walk::default();
        for _ in 0..2 {
            let mut seen = Vec::new();
            for at in 1..=40 {
                let step = walk.step(&all, 256);
                assert!(step.len() <= 256);
                seen.extend(step.into_iter().map(|(key, _)| *key));
                assert_eq!(walk.is_under_way(), at < 40, "step {at}");
            }
            assert!(seen.into_iter().eq(0..10_000));
        }
    }

    #[test]
    fn a_walk_over_nothing_is_one_step() {
        let mut walk = Walk::<u8>::default();
        assert!(walk.step(&BTreeMap::<u8, u8>::new(), 4).is_empty() && !walk.is_under_way());
    }

    proptest! {
        #[test]
        fn what_is_there_all_the_time_is_seen_once_and_nothing_twice(
            first in prop::collection::btree_set(any::<u8>(), 0..40),
            edits in prop::collection::vec((any::<u8>(), any::<bool>()), 0..40),
            most in 1..8_usize,
        ) {
            let mut all: BTreeMap<u8, u8> = first.iter().map(|key| (*key, *key)).collect();
            let mut stays = first;
            let (mut walk, mut seen, mut edits) = (Walk::default(), Vec::new(), edits.into_iter());
            loop {
                let step = walk.step(&all, most);
                prop_assert!(step.len() <= most);
                seen.extend(step.into_iter().map(|(key, _)| *key));
                if !walk.is_under_way() {
                    break;
                }
                for (key, comes) in edits.by_ref().take(2) {
                    if comes {
                        all.insert(key, key);
                    } else {
                        all.remove(&key);
                        stays.remove(&key);
                    }
                }
            }
            prop_assert!(seen.is_sorted_by(|one, next| one < next), "each once, in order");
            prop_assert!(stays.is_subset(&seen.into_iter().collect::<BTreeSet<_>>()));
        }
    }
}
