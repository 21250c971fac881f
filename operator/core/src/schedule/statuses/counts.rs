//! Schedules refreshes of the counts in statuses.

use std::{collections::BTreeSet, time::Duration};

use crate::world::ObjectKey;

/// Forwards whose counts may be outdated, in the order in which a refresh is due.
#[derive(Debug, Default)]
pub(super) struct Counts {
    outdated: BTreeSet<ObjectKey>,
    /// The times may be too early, and some forwards may no longer be outdated.
    due: BTreeSet<(Duration, ObjectKey)>,
}

impl Counts {
    /// Records that the counts of a forward may be outdated; a refresh is not due before `at`.
    pub(super) fn outdate(&mut self, forward: ObjectKey, at: Duration) {
        if self.outdated.insert(forward.clone()) {
            self.due.insert((at, forward));
        }
    }

    pub(super) fn forget(&mut self, forward: &ObjectKey) {
        self.outdated.remove(forward);
    }

    /// Takes at most `most` forwards whose refresh is due. `rested` returns when the refresh of a forward is due after
    /// its last write.
    pub(super) fn take(
        &mut self,
        most: usize,
        now: Duration,
        rested: impl Fn(&ObjectKey) -> Duration,
    ) -> Vec<ObjectKey> {
        let mut taken = Vec::new();
        while taken.len() < most && self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, forward)) = self.due.pop_first() else { break };
            let at = rested(&forward);
            if !self.outdated.contains(&forward) {
                continue;
            }
            if at > now {
                self.due.insert((at, forward));
                continue;
            }
            self.outdated.remove(&forward);
            taken.push(forward);
        }
        taken
    }
}
