//! Forwards that are not ready, counted by reason, for a metric.

use std::collections::BTreeMap;

use super::Statuses;
use crate::world::ObjectKey;

#[derive(Debug, Default)]
pub(super) struct Unready {
    reasons: BTreeMap<ObjectKey, String>,
    /// A reason stays at the count 0, so that its series does not end. Reasons are few: the code defines them.
    counts: BTreeMap<String, usize>,
}

impl Statuses {
    /// Number of forwards that are not ready, by reason.
    #[must_use]
    pub fn unready(&self) -> &BTreeMap<String, usize> {
        &self.unready.counts
    }
}

impl Unready {
    /// Records that a forward is not ready for this reason, or is ready or gone (`None`).
    pub(super) fn set(&mut self, forward: &ObjectKey, reason: Option<&str>) {
        if self.reasons.get(forward).map(String::as_str) == reason {
            return;
        }
        if let Some(before) = self.reasons.remove(forward)
            && let Some(count) = self.counts.get_mut(&before)
        {
            *count = count.saturating_sub(1);
        }
        if let Some(reason) = reason {
            *self.counts.entry(reason.to_owned()).or_default() += 1;
            self.reasons.insert(forward.clone(), reason.to_owned());
        }
    }
}
