//! How long a root counts that was read.

use std::time::Duration;

use super::{LIFETIME, unused::RECENT};

/// How long a root is used before it is read again.
const FRESH: Duration = Duration::from_secs(60);

/// Time since this replica looked up a root to sign with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootAge(pub Duration);

impl RootAge {
    /// Whether the root signs without being read again.
    #[must_use]
    pub fn is_fresh(self) -> bool {
        self.0 < FRESH
    }

    /// Whether the root is in use, and signs on while the Secret cannot be read. Another leader may be about to remove one
    /// that was not used for longer.
    #[must_use]
    pub fn is_recent(self) -> bool {
        self.0 < RECENT
    }

    /// Whether what the root signed may still count.
    #[must_use]
    pub fn may_count(self) -> bool {
        self.0 < Duration::from_secs(LIFETIME)
    }
}
