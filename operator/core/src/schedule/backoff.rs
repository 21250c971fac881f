//! Pauses between retries: each pause is twice as long as the one before, up to a limit.

use std::time::Duration;

/// The pauses of one operation that is retried.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` to `most`.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The pause after one more failure.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next.min(self.most);
        self.next = pause.saturating_mul(2);
        pause
    }

    /// Records a success: the next failure starts over.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}
