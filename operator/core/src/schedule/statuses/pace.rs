//! Limits how often the status of one forward is written.

use std::time::Duration;

use proxy_api::doors::Rate;

use super::Statuses;
use crate::world::ObjectKey;

/// Pause between two writes of one object's status once its burst is used up: the status of an object whose state flips
/// is written this often, and its last state is always written.
const EACH: Duration = Duration::from_secs(2);
/// Writes of one object's status that need no pause. A roll-out takes about four.
const BURST: u32 = 10;

impl Statuses {
    /// Takes one write from the rate of this forward. If none is left, the forward is evaluated again when the rate
    /// permits it.
    pub(super) fn has_rested(&mut self, key: &ObjectKey, now: Duration) -> bool {
        let rate = Rate::every(EACH, BURST);
        let Some(entry) = self.entries.get_mut(key) else { return true };
        let wait = entry.bucket.wait(rate, now);
        if wait.is_zero() {
            entry.bucket.spend(rate, 1, now);
            return true;
        }
        // The counts are due, even if by then nothing else is left to write.
        entry.is_rested = true;
        self.later.insert((now + wait, key.clone()));
        false
    }
}
