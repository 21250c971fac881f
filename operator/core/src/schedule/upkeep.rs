//! Schedules checks of state that expires or that other clients may change: certificates, CA bundles, the metrics API,
//! the installed CRDs.

use std::time::Duration;

use super::backoff::Backoff;

/// The result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked<'a> {
    /// Nothing is missing or wrong.
    Done,
    /// Nothing failed, but something that others wait for is still missing.
    Incomplete,
    /// The check failed, for this reason.
    Failed(&'a str),
}

/// The reaction to a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Pause until the next check.
    pub pause: Duration,
    /// Whether to report a failure: the check failed, and the previous one did not fail for the same reason.
    pub is_news: bool,
}

/// The cause of consecutive failures. Only a cause that differs from the one before is logged.
#[derive(Clone, Debug, Default)]
pub struct Cause<C> {
    /// Cause of the last failure; absent after a success.
    last: Option<C>,
}

impl<C: PartialEq> Cause<C> {
    /// Records a failure. Returns whether the failure is news.
    pub fn failed(&mut self, cause: C) -> bool {
        let is_news = self.last.as_ref() != Some(&cause);
        self.last = Some(cause);
        is_news
    }

    /// Records a success: the next failure is news.
    pub fn succeeded(&mut self) {
        self.last = None;
    }
}

/// The repeated checks of one part of the state.
#[derive(Debug)]
pub struct Rounds {
    often: Duration,
    soon: Duration,
    backoff: Backoff,
    cause: Cause<String>,
}

impl Rounds {
    /// Checks at the interval `often`, or at the interval `soon` while something is missing. After failures the pauses
    /// grow from `soon` to `most`.
    #[must_use]
    pub const fn new(often: Duration, soon: Duration, most: Duration) -> Self {
        Self { often, soon, backoff: Backoff::new(soon, most), cause: Cause { last: None } }
    }

    /// Records a check.
    pub fn checked(&mut self, checked: Checked<'_>) -> Next {
        let Checked::Failed(why) = checked else {
            self.cause.succeeded();
            self.backoff.reset();
            return Next { pause: if checked == Checked::Done { self.often } else { self.soon }, is_news: false };
        };
        let is_news = self.cause.failed(why.to_owned());
        Next { pause: self.backoff.pause(), is_news }
    }
}

/// A gate at which others wait for a limited time.
#[derive(Debug)]
pub struct Gate {
    limit: Duration,
    is_open: bool,
}

impl Gate {
    /// A gate that opens after `limit` in any case.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit, is_open: false }
    }

    /// Whether the gate is open; once open, it stays open. `is_done` says whether the awaited work is done, and
    /// `waited` is the time since the gate was created.
    pub fn opens(&mut self, is_done: bool, waited: Duration) -> bool {
        self.is_open |= is_done || waited >= self.limit;
        self.is_open
    }

    /// Time until the gate opens in any case; unlimited if the gate is open.
    #[must_use]
    pub fn left(&self, waited: Duration) -> Duration {
        if self.is_open { Duration::MAX } else { self.limit.saturating_sub(waited) }
    }
}
