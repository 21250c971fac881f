//! The clock by which certificates and tokens are judged.

use rustls::time_provider::TimeProvider;

/// Seconds since 1970 by a clock.
pub(crate) fn seconds(clock: &dyn TimeProvider) -> u64 {
    clock.current_time().map_or(0, |now| now.as_secs())
}
