//! Token buckets.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// A burst is this fraction of a second: a quarter.
const BURST: u64 = 4;
/// Smallest burst in bytes: one packet.
const LEAST_BURST: u64 = 1500;
/// Bytes promised to a waiting session, unless half a burst is less.
const PORTION: u64 = 16 * 1024;

/// A token bucket: tokens arrive at a steady rate and accumulate up to a burst. Initially full.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tokens {
    /// Thousandths of tokens taken and not refilled yet.
    taken: u64,
    /// Time of the last refill in milliseconds of the process clock.
    at: u64,
}

impl Tokens {
    /// Tokens available at `now` (milliseconds), at `rate` tokens per second.
    fn available(&mut self, rate: u64, burst: u64, now: u64) -> u64 {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        self.taken = self.taken.saturating_sub(passed.saturating_mul(rate));
        burst.saturating_mul(1000).saturating_sub(self.taken) / 1000
    }

    /// Takes `count` tokens, all or none. More than a burst can be taken from a full bucket, which then runs a debt.
    pub(super) fn take(&mut self, count: u64, rate: u64, burst: u64, now: u64) -> bool {
        let enough = self.available(rate, burst, now) >= count.min(burst);
        if enough {
            self.taken = self.taken.saturating_add(count.saturating_mul(1000));
        }
        enough
    }

    /// Limits the debt to a new burst.
    pub(super) fn clamp(&mut self, burst: u64) {
        self.taken = self.taken.min(burst.saturating_mul(1000));
    }

    /// Promises the next `count` tokens; returns the milliseconds until they are available.
    fn promise(&mut self, count: u64, rate: u64, burst: u64) -> u64 {
        self.taken = self.taken.saturating_add(count.saturating_mul(1000));
        self.taken.saturating_sub(burst.saturating_mul(1000)).div_ceil(rate).max(1)
    }

    /// Whether future tokens are already promised.
    fn is_promised(&self, burst: u64) -> bool {
        self.taken > burst.saturating_mul(1000)
    }

    fn give(&mut self, count: u64) {
        self.taken = self.taken.saturating_sub(count.saturating_mul(1000));
    }
}

/// Bandwidth of a forward, both directions, over all workers.
#[derive(Debug, Default)]
pub struct Bucket {
    /// Bytes per second; 0: unlimited. Written under the lock.
    rate: AtomicU64,
    /// Number of rate changes. A change voids earlier promises.
    term: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tokens: Tokens,
    /// Tokens promised to datagrams, which wait as if they were one session.
    turn: Turn,
}

/// Bytes for datagrams, usable from a certain time.
#[derive(Debug, Default)]
struct Turn {
    bytes: u64,
    /// Milliseconds of the process clock.
    due: u64,
}

/// The bytes that a session may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// Move up to this many bytes, and return the rest.
    Bytes(usize),
    /// These bytes are reserved for later, after those of earlier requests.
    Later {
        /// Number of bytes; return them if they are not moved.
        bytes: usize,
        /// Wait in milliseconds.
        millis: u64,
        /// Value of [`Bucket::term`] for which the promise is valid.
        term: u64,
    },
}

impl Bucket {
    /// Sets the rate, in bytes per second.
    pub fn set(&self, rate: Option<u64>) {
        let rate = rate.unwrap_or(0);
        let mut state = self.lock();
        if self.rate.swap(rate, Relaxed) != rate {
            self.term.fetch_add(1, Relaxed);
            state.tokens.clamp(burst(rate));
            state.turn = Turn::default();
        }
    }

    /// Generation of the rate: changes whenever the rate does.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a limit is set.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.rate.load(Relaxed) != 0
    }

    /// Takes up to `most` bytes at `now` (milliseconds), at least one: available bytes, or else the next ones to
    /// arrive.
    #[must_use]
    pub fn allow(&self, most: usize, now: u64) -> Allowance {
        if !self.is_limited() {
            return Allowance::Bytes(most);
        }
        let tokens = &mut self.lock().tokens;
        let rate = self.rate.load(Relaxed);
        if rate == 0 {
            return Allowance::Bytes(most);
        }
        let burst = burst(rate);
        let available = tokens.available(rate, burst, now);
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        if available > 0 {
            let some = available.min(most);
            tokens.take(some, rate, burst, now);
            return Allowance::Bytes(usize::try_from(some).unwrap_or(usize::MAX));
        }
        // At most one second's worth, so that no portion takes long.
        let portion = PORTION.min(burst / 2).min(most).min(rate).max(1);
        let millis = tokens.promise(portion, rate, burst);
        Allowance::Later { bytes: usize::try_from(portion).unwrap_or(usize::MAX), millis, term: self.term() }
    }

    /// Returns bytes that were allowed but not moved.
    pub fn give(&self, bytes: usize) {
        if bytes > 0 && self.is_limited() {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            self.lock().tokens.give(bytes);
        }
    }

    /// Takes the bytes of a datagram, all or none.
    #[must_use]
    pub fn take(&self, bytes: usize, now: u64) -> bool {
        if !self.is_limited() {
            return true;
        }
        let State { tokens, turn } = &mut *self.lock();
        let rate = self.rate.load(Relaxed);
        let count = u64::try_from(bytes).unwrap_or(u64::MAX);
        if rate == 0 {
            return true;
        }
        if turn.bytes >= count && now >= turn.due {
            turn.bytes -= count;
            return true;
        }
        let burst = burst(rate);
        if tokens.take(count, rate, burst, now) {
            return true;
        }
        // Sessions wait in line for tokens. Reserve a turn, so that datagrams arriving after it are not dropped.
        if tokens.is_promised(burst) && turn.bytes < count {
            let portion = PORTION.min(burst / 2).min(rate).max(count);
            turn.bytes = turn.bytes.saturating_add(portion);
            turn.due = now.saturating_add(tokens.promise(portion, rate, burst));
        }
        false
    }
}

fn burst(rate: u64) -> u64 {
    (rate / BURST).max(LEAST_BURST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_a_rate_everything_is_allowed() {
        let bucket = Bucket::default();
        assert_eq!(bucket.allow(1 << 20, 0), Allowance::Bytes(1 << 20));
        assert!(bucket.take(1 << 20, 0) && !bucket.is_limited());
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let bucket = Bucket::default();
        bucket.set(Some(100_000));
        assert_eq!(bucket.allow(1 << 20, 0), Allowance::Bytes(25_000));
        bucket.give(10_000);
        assert_eq!(bucket.allow(4_000, 0), Allowance::Bytes(4_000));
        assert!(bucket.take(6_000, 0) && !bucket.take(1, 0));
        assert!(bucket.take(1_000, 10) && !bucket.take(1, 10));
    }

    #[test]
    fn those_who_wait_are_served_in_their_order_and_a_lower_rate_freezes_nobody() {
        let bucket = Bucket::default();
        bucket.set(Some(100_000));
        assert_eq!(bucket.allow(1 << 20, 0), Allowance::Bytes(25_000));
        assert_eq!(bucket.allow(1 << 20, 0), Allowance::Later { bytes: 12_500, millis: 125, term: 1 });
        assert_eq!(bucket.allow(1 << 20, 0), Allowance::Later { bytes: 12_500, millis: 250, term: 1 });
        assert!(!bucket.take(1, 100));
        bucket.give(25_000);
        bucket.set(Some(1_000_000_000));
        assert_eq!(bucket.term(), 2, "earlier promises are void");
        assert!(matches!(bucket.allow(1 << 30, 1_000), Allowance::Bytes(_)));
        bucket.set(Some(10_000));
        assert!(bucket.take(1_000, 1_200), "debt of an earlier rate is capped");
    }

    #[test]
    fn datagrams_beside_sessions_that_use_everything_up_have_a_share() {
        const RATE: u64 = 100_000;
        let bucket = Bucket::default();
        bucket.set(Some(RATE));
        // Two sessions that always want more bytes, and a datagram every two milliseconds.
        let (mut sessions, mut datagrams) = ([(0, 0_u64); 2], 0_u64);
        let mut moved = 0_u64;
        for now in 0..10_000 {
            for (promised, due) in &mut sessions {
                if now < *due {
                    continue;
                }
                moved += std::mem::take(promised);
                match bucket.allow(1 << 20, now) {
                    Allowance::Bytes(bytes) => moved += bytes as u64,
                    Allowance::Later { bytes, millis, .. } => (*promised, *due) = (bytes as u64, now + millis),
                }
            }
            if now % 2 == 0 && bucket.take(500, now) {
                datagrams += 500;
            }
        }
        let all = moved + datagrams;
        assert!(all <= RATE * 10 + RATE / 4, "{all}");
        assert!(datagrams >= all / 5, "{datagrams} of {all}");
        assert!(datagrams <= all / 2, "{datagrams} of {all}");
    }

    proptest! {
        #[test]
        fn datagrams_are_never_more_than_the_rate_a_burst_and_one_of_them(
            rate in 100_u64..1_000_000,
            size in 1_usize..65_000,
            every in 1_u64..50,
            beside in any::<bool>(),
        ) {
            let bucket = Bucket::default();
            bucket.set(Some(rate));
            let (mut moved, mut due) = (0_u64, 0);
            for now in (0..20_000).step_by(usize::try_from(every).unwrap_or(1)) {
                if beside && now >= due {
                    match bucket.allow(16_384, now) {
                        Allowance::Bytes(bytes) => moved += bytes as u64,
                        Allowance::Later { bytes, millis, .. } => {
                            // Counted before it arrives; the debt is at most the waiting bytes.
                            moved += bytes as u64;
                            due = now + millis;
                        }
                    }
                }
                if bucket.take(size, now) {
                    moved += size as u64;
                }
                let waiting = 16_384 + size as u64;
                prop_assert!(moved <= burst(rate) + now * rate / 1000 + size as u64 + waiting + 1, "{} at {}", moved, now);
            }
        }

        #[test]
        fn never_more_than_the_rate_and_one_burst(
            rate in 1_u64..1_000_000,
            asks in proptest::collection::vec((0_u64..500, 1_usize..300_000, any::<bool>()), 1..200),
        ) {
            let bucket = Bucket::default();
            bucket.set(Some(rate));
            let (mut now, mut moved) = (0, 0_u64);
            for (later, most, gives_back) in asks {
                now += later;
                match bucket.allow(most, now) {
                    Allowance::Bytes(bytes) => {
                        prop_assert!(bytes > 0 && bytes <= most);
                        let used = if gives_back { bytes / 2 } else { bytes };
                        bucket.give(bytes - used);
                        moved += used as u64;
                    }
                    Allowance::Later { bytes, millis, .. } => {
                        prop_assert!(bytes > 0 && bytes <= most);
                        now += millis;
                        moved += bytes as u64;
                    }
                }
                prop_assert!(moved <= burst(rate) + now * rate / 1000 + 1);
            }
        }
    }
}
