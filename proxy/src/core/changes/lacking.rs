//! The sockets that could not be opened, and whether a retry would succeed.

use std::collections::BTreeMap;

use proxy_api::{FailureReason, SocketKey};

/// Why a socket cannot be opened.
pub type Why = (FailureReason, String);

/// The sockets that could not be opened at the last apply. All other failures repeat until the configuration changes,
/// or until one of these sockets can be opened.
#[derive(Debug, Default)]
pub struct Lacking(BTreeMap<SocketKey, Why>);

impl FromIterator<(SocketKey, Why)> for Lacking {
    fn from_iter<I: IntoIterator<Item = (SocketKey, Why)>>(sockets: I) -> Self {
        Self(sockets.into_iter().collect())
    }
}

impl Lacking {
    /// Whether every socket could be opened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tries to open each of these sockets; `attempt` returns why a socket cannot be opened. Returns whether the
    /// configuration has to be applied again: a socket can be opened now, or fails for another reason.
    pub fn has_news(&self, mut attempt: impl FnMut(SocketKey) -> Option<Why>) -> bool {
        let mut news = false;
        for (socket, why) in &self.0 {
            news |= attempt(*socket).as_ref() != Some(why);
        }
        news
    }
}
