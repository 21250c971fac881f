//! Schedules retries of watches that failed.
//!
//! While the API server is unavailable, all watches of all replicas fail, so their pauses grow. The leader election
//! sends requests to the API server every few seconds. The first answer ends the pauses: a change need not wait for the
//! pause of the watch that shows the change.

use std::time::Duration;

use super::backoff::Backoff;

/// Longest first pause.
const FIRST: Duration = Duration::from_millis(1600);
/// Longest pause of all.
pub const MOST: Duration = Duration::from_secs(30);
/// Longest pause once the API server answers again. A replica may have hundreds of watches, each of which connects.
pub const SPREAD: Duration = Duration::from_secs(2);
/// A failure that comes later than this after the previous one starts over. A watch of objects that do not change has
/// no events that show that it works.
const FORGET: Duration = Duration::from_secs(120);

/// The pauses of one watch.
#[derive(Debug)]
pub struct Retries {
    backoff: Backoff,
    /// Time of the last failure.
    last: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { backoff: Backoff::new(FIRST, MOST), last: Duration::ZERO }
    }
}

impl Retries {
    /// Returns the pause after one more failure: at least half of its bound. `chance` is a random number, so that
    /// watches that failed together are not retried together.
    pub fn failed(&mut self, chance: u32, now: Duration) -> Duration {
        if now.saturating_sub(self.last) > FORGET {
            self.backoff.reset();
        }
        self.last = now;
        let half = self.backoff.pause() / 2;
        half + part(half, chance)
    }

    /// Records that the watch works: the next failure starts over.
    pub fn succeeded(&mut self) {
        self.backoff.reset();
    }
}

/// The rest of a pause once the API server answers again. `chance` is a random number.
#[must_use]
pub fn shortened(left: Duration, chance: u32) -> Duration {
    left.min(part(SPREAD, chance))
}

fn part(of: Duration, chance: u32) -> Duration {
    of.mul_f64(f64::from(chance) / f64::from(u32::MAX))
}
