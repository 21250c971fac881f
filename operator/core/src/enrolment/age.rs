//! The lifetime of a root in memory after it was read.

use std::time::Duration;

use super::{LIFETIME, unused::RECENT};

/// How long a root is used before the Secret is read again.
const FRESH: Duration = Duration::from_secs(60);

/// The time since this replica looked up a root to sign with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootAge(pub Duration);

impl RootAge {
    /// Whether the root signs without another read of the Secret.
    #[must_use]
    pub fn is_fresh(self) -> bool {
        self.0 < FRESH
    }

    /// Whether the root is in use, so that it keeps signing while the Secret cannot be read. Beyond this age, another
    /// leader may be about to remove it.
    #[must_use]
    pub fn is_recent(self) -> bool {
        self.0 < RECENT
    }

    /// Whether certificates of the root may still be valid.
    #[must_use]
    pub fn may_count(self) -> bool {
        self.0 < Duration::from_secs(LIFETIME)
    }
}
