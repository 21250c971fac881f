//! Delivery of notices to a user's webhook: the size of batches, the meaning of answers, and retries.

use std::time::Duration;

/// Most notices in one request.
pub const BATCH: usize = 50;
/// The time that the first notice of a request waits for others.
pub const COLLECT: Duration = Duration::from_secs(3);
/// Pauses between tries; after the last, the notices are dropped.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(15)];

/// The meaning of a webhook's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The notices are delivered.
    Delivered,
    /// A retry may succeed.
    Later,
    /// A retry will fail too.
    Refused,
}

/// Classifies an answer with this HTTP status code.
#[must_use]
pub const fn answer(code: u16) -> Answer {
    match code {
        200..=299 => Answer::Delivered,
        429 | 500..=599 => Answer::Later,
        _ => Answer::Refused,
    }
}

/// Pause before the next try, after `retries` retries; `None` if the notices are dropped.
#[must_use]
pub fn pause(retries: usize) -> Option<Duration> {
    PAUSES.get(retries).copied()
}
