//! How often the status of one forward is written.

use std::time::Duration;

use proxy_api::doors::Rate;

use super::Statuses;
use crate::world::ObjectKey;

/// Pause between two writes of one object's status, once it has used up its burst: an object whose state flips is written
/// this often, and the last state always is.
const EACH: Duration = Duration::from_secs(2);
/// Writes of one object's status that need no pause. A roll-out takes about four.
const BURST: u32 = 10;

impl Statuses {
    /// Takes one write out of the rate of this forward; without one, the forward is evaluated again once it has one.
    pub(super) fn has_rested(&mut self, key: &ObjectKey, now: Duration) -> bool {
        let rate = Rate::every(EACH, BURST);
        let Some(entry) = self.entries.get_mut(key) else { return true };
        let wait = entry.bucket.wait(rate, now);
        if wait.is_zero() {
            entry.bucket.spend(rate, 1, now);
            return true;
        }
        // Also if only its counts are left to write by then.
        entry.is_rested = true;
        self.later.insert((now + wait, key.clone()));
        false
    }
}
