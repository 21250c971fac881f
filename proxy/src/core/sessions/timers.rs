//! Time limits of a session.
//!
//! Times are milliseconds of the process clock, truncated to whole ones. An event at 1.9 ms is recorded at 1, and 2.1
//! ms is read as 2: their difference is one, although only a fifth of that has passed. So a limit is over only when the
//! difference exceeds it by the grain. The sweep visits each session once per round ([`crate::core::workers::rounds`]),
//! so no end is more than a second late.

use proxy_api::Timeouts;

use crate::core::sessions::end::EndReason;

/// Grain of recorded times, in milliseconds: an event is less than this after its record.
pub const GRAIN_MILLIS: u64 = 1;

/// The inputs of a session's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerState {
    /// Start of the session.
    pub started: u64,
    /// The last byte, or the start of the half-close.
    pub active_at: u64,
    /// Whether one side has finished sending.
    pub half_closed: bool,
    /// Scheduled end of the session, with its reason.
    pub end_at: Option<(u64, EndReason)>,
}

/// Whether `limit_millis` have passed at `now` since an event at `since`; never too early.
#[must_use]
pub fn has_passed(since: u64, limit_millis: u64, now: u64) -> bool {
    now.saturating_sub(since) >= limit_millis.saturating_add(GRAIN_MILLIS)
}

/// Milliseconds of a limit in seconds.
#[must_use]
pub fn millis(seconds: u32) -> u64 {
    u64::from(seconds) * 1000
}

/// Why a session ends at `now`, whether or not it moves bytes: its scheduled end, or its age.
#[must_use]
pub fn cut(state: &TimerState, times: &Timeouts, now: u64) -> Option<EndReason> {
    let scheduled = state.end_at.filter(|(at, _)| has_passed(*at, 0, now)).map(|(_, reason)| reason);
    let is_old = times.max_session_seconds.is_some_and(|most| has_passed(state.started, millis(most), now));
    scheduled.or_else(|| is_old.then_some(EndReason::MaxSession))
}

/// Whether a connected session has moved no byte for too long at `now`.
#[must_use]
pub fn is_silent(state: &TimerState, times: &Timeouts, now: u64) -> bool {
    let limit = if state.half_closed { times.half_close_seconds } else { times.idle_seconds };
    has_passed(state.active_at, millis(limit), now)
}
