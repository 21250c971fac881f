//! The process clock: time since start, in a compact form that every session can hold.

#[cfg(test)]
use std::time::Duration;
use std::time::Instant;

/// Time since the start of the process.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts a clock.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Creates a clock that started this long ago.
    #[cfg(test)]
    pub(crate) fn of_age(age: Duration) -> Self {
        Instant::now().checked_sub(age).map_or_else(Self::start, Self)
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Seconds since the start.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0.elapsed().as_secs()
    }
}
