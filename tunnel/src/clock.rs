//! The clock that certificates and tokens are checked against.

use rustls::time_provider::TimeProvider;

/// Returns the seconds since 1970 by a clock.
pub(crate) fn seconds(clock: &dyn TimeProvider) -> u64 {
    clock.current_time().map_or(0, |now| now.as_secs())
}
