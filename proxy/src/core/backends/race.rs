//! The order of the attempts of one step of the connect phase, over both address families ("Happy Eyeballs", RFC 8305).
//!
//! The endpoint that the policy picked is tried first. If it does not answer for a while, or as soon as an attempt
//! fails, an endpoint of the same entry and of the other family is tried in parallel. The first connection wins.

use std::time::Duration;

use crate::core::backends::{address::Address, balance::Entry};

/// How long an attempt may go unanswered before the next one begins in parallel (RFC 8305, section 8).
pub const HEAD_START: Duration = Duration::from_millis(250);

/// The attempts of one step. Times are counted from the beginning of the step.
#[derive(Debug)]
pub struct Race {
    /// Attempts that may still begin.
    left: u32,
    /// Whether one more may begin while others run.
    has_extra: bool,
    /// Attempts without an answer.
    running: u32,
    /// When the next attempt may begin.
    due: Duration,
}

impl Race {
    /// Creates a step that may make this many attempts, and with `has_extra` one more in parallel with another. A
    /// session has one extra attempt, so that a silent family does not fail a session that may make a single attempt.
    #[must_use]
    pub fn new(attempts: u32, has_extra: bool) -> Self {
        Self { left: attempts, has_extra, running: 0, due: Duration::ZERO }
    }

    /// Notes that an attempt has begun at `now`. Returns whether it is one of the attempts, not the extra one.
    pub fn began(&mut self, now: Duration) -> bool {
        let is_extra = self.has_extra && self.running > 0;
        if is_extra {
            self.has_extra = false;
        } else {
            self.left = self.left.saturating_sub(1);
        }
        self.running += 1;
        self.due = now + HEAD_START;
        !is_extra
    }

    /// Notes that an attempt has failed at `now`.
    pub fn failed(&mut self, now: Duration) {
        self.running = self.running.saturating_sub(1);
        self.due = now;
    }

    /// Notes that the next attempt was due at `now`, but had no room in parallel with the others.
    pub fn postponed(&mut self, now: Duration) {
        self.due = now + HEAD_START;
    }

    /// Notes that there is no endpoint left to try in parallel.
    pub fn exhausted(&mut self) {
        (self.left, self.has_extra) = (0, false);
    }

    /// When the next attempt begins; `None` if the step may make no further attempt.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        (self.left > 0 || (self.has_extra && self.running > 0)).then_some(self.due)
    }

    /// Whether every attempt has failed.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.running == 0
    }
}

/// Whether silence counts as the endpoint's failure, if the time for the step ended `ran` after its attempt began. A
/// parallel attempt may begin so late that no endpoint could have answered.
#[must_use]
pub fn is_charged(ran: Duration, time: Duration) -> bool {
    ran.saturating_mul(2) >= time
}

/// Whether an attempt at `loser`, which ran for this long without an answer, counts as a failure of its endpoint,
/// because an endpoint of the other family answered. Otherwise an unreachable family would never be ejected, and each
/// session that begins there would pay the head start.
#[must_use]
pub fn is_beaten(loser: &Address, winner: &Address, ran: Duration) -> bool {
    are_of_two_families(loser, winner) && ran > HEAD_START
}

/// Whether one address is IPv4 and the other one IPv6. Addresses behind agents are neither.
fn are_of_two_families(one: &Address, other: &Address) -> bool {
    let addresses = one.socket().zip(other.socket());
    addresses.is_some_and(|(one, other)| one.is_ipv4() != other.is_ipv4())
}

impl Entry {
    /// Whether there are endpoints of both families. Targets are sorted by address, IPv4 first.
    #[must_use]
    pub fn is_dual(&self) -> bool {
        let ends = self.endpoints.first().zip(self.endpoints.last());
        ends.is_some_and(|(first, last)| are_of_two_families(&first.address, &last.address))
    }
}
