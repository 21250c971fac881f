//! Rates, and the token buckets that enforce them.

use std::time::Duration;

/// A rate with a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time in which a bucket gains one token.
    each: Duration,
    /// Tokens of a full bucket.
    burst: u32,
}

impl Rate {
    /// One token per `each`; a full bucket has `burst` tokens, at least one.
    #[must_use]
    pub fn every(each: Duration, burst: u32) -> Self {
        Self { each, burst: burst.max(1) }
    }

    /// Divides this rate and its burst into `parts` equal parts. The burst of a part is at least one token.
    #[must_use]
    pub fn part_of(self, parts: u32) -> Self {
        let parts = parts.clamp(1, self.burst);
        Self::every(self.each.saturating_mul(parts), self.burst / parts)
    }

    /// This rate and its burst, multiplied by `times`.
    pub(super) fn times(self, times: u32) -> Self {
        Self::every(self.each / times.max(1), self.burst.saturating_mul(times))
    }

    /// Three quarters of this rate, and of its burst.
    pub(super) fn three_quarters(self) -> Self {
        Self::every(self.each.saturating_mul(4) / 3, self.burst - self.burst / 4)
    }

    /// The longer time for each token, and the smaller burst, of two rates.
    pub(super) fn slower(self, other: Self) -> Self {
        Self::every(self.each.max(other.each), self.burst.min(other.burst))
    }

    /// The shorter time for each token, and the larger burst, of two rates.
    pub(super) fn faster(self, other: Self) -> Self {
        Self::every(self.each.min(other.each), self.burst.max(other.burst))
    }

    /// Half of this rate without a burst: a full bucket has a single token.
    pub(super) fn half_of_each(self) -> Self {
        Self::every(self.each.saturating_mul(2), 1)
    }

    /// `times` tokens per second, at least one; a full bucket has `burst` tokens.
    #[must_use]
    pub fn per_second(times: u32, burst: u32) -> Self {
        Self::every(Duration::from_secs(1) / times.max(1), burst)
    }
}

/// A token bucket. Its whole state is the time at which it is full again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// Takes one token. Returns false, and takes nothing, if the bucket is empty.
    #[must_use]
    pub fn take(&mut self, rate: Rate, now: Duration) -> bool {
        let has_one = self.wait(rate, now).is_zero();
        if has_one {
            self.spend(rate, 1, now);
        }
        has_one
    }

    /// Takes this many tokens, even more than the bucket has: the debt delays the next token.
    pub fn spend(&mut self, rate: Rate, tokens: u32, now: Duration) {
        self.full_at = self.full_at.max(now).saturating_add(rate.each.saturating_mul(tokens));
    }

    /// Time until the bucket has a token.
    #[must_use]
    pub fn wait(&self, rate: Rate, now: Duration) -> Duration {
        let full = self.full_at.max(now).saturating_add(rate.each).saturating_sub(now);
        full.saturating_sub(rate.each.saturating_mul(rate.burst))
    }

    /// Tokens that were taken and have not been refilled; a partly refilled token counts.
    #[must_use]
    pub fn used(&self, rate: Rate, now: Duration) -> u64 {
        let missing = self.full_at.saturating_sub(now).as_nanos();
        u64::try_from(missing.div_ceil(rate.each.as_nanos().max(1))).unwrap_or(u64::MAX)
    }

    /// Tokens in the bucket.
    #[must_use]
    pub fn left(&self, rate: Rate, now: Duration) -> u64 {
        u64::from(rate.burst).saturating_sub(self.used(rate, now))
    }

    /// Whether more than half of the burst is left.
    #[must_use]
    pub fn is_over_half(&self, rate: Rate, now: Duration) -> bool {
        self.left(rate, now) > u64::from(rate.burst / 2)
    }

    /// Whether the bucket is full, and so equals a new one.
    #[must_use]
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }
}
