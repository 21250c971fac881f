//! The sockets that could not be opened, and whether a retry would succeed.

use std::collections::{BTreeMap, BTreeSet};

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

/// The sockets for which too few files were free at the last apply. All of them may still be too many for the files that
/// are free now, so they are tried again only once more are free than then.
#[derive(Debug, Default)]
pub struct Refused {
    sockets: BTreeSet<SocketKey>,
    /// Those of the apply before.
    before: BTreeSet<SocketKey>,
    /// Fewest files that were free at a refusal, with those that the apply has given back since.
    free: usize,
    /// Sockets that were refused so far; each counts once while it is lacking.
    total: u64,
}

impl Refused {
    /// Begins another apply, which tries all sockets.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.sockets);
        self.free = 0;
    }

    /// Adds a socket that was refused while this number of files was free.
    pub fn add(&mut self, socket: SocketKey, free: usize) {
        self.free = if self.sockets.is_empty() { free } else { self.free.min(free) };
        self.total += u64::from(!self.before.contains(&socket));
        self.sockets.insert(socket);
    }

    /// Counts files of sockets that were opened meanwhile and that no listener gets.
    pub fn given_back(&mut self, count: usize) {
        self.free = self.free.saturating_add(count);
    }

    /// Whether no socket was refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Whether this socket was refused.
    #[must_use]
    pub fn has(&self, socket: &SocketKey) -> bool {
        self.sockets.contains(socket)
    }

    /// Whether the configuration has to be applied again, with this number of files free.
    #[must_use]
    pub fn may_fit(&self, free: usize) -> bool {
        !self.is_empty() && free > self.free
    }

    /// How many sockets were refused so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proxy_api::{Bind, Transport};

    use super::*;

    fn socket(port: u16) -> SocketKey {
        SocketKey { transport: Transport::Tcp, bind: Bind::Loopback, port }
    }

    #[test]
    fn refused_sockets_are_tried_again_once_more_files_are_free_than_when_they_were_refused() {
        let mut refused = Refused::default();
        assert!(refused.is_empty() && !refused.may_fit(9), "nothing waits");
        refused.begin();
        refused.add(socket(1), 1);
        refused.add(socket(2), 0);
        assert!(refused.has(&socket(1)) && refused.has(&socket(2)) && !refused.has(&socket(3)));
        assert_eq!([0, 1].map(|free| refused.may_fit(free)), [false, true]);
        // The files of an incomplete range, which are free again without room for the rest of it.
        refused.given_back(8);
        assert_eq!([8, 9].map(|free| refused.may_fit(free)), [false, true]);
        refused.begin();
        assert!(refused.is_empty() && !refused.may_fit(9));
    }

    #[test]
    fn a_socket_counts_once_while_it_is_lacking() {
        let mut refused = Refused::default();
        let mut apply = |ports: &[u16]| {
            refused.begin();
            for port in ports {
                refused.add(socket(*port), 0);
            }
            refused.total()
        };
        assert_eq!((apply(&[1, 2]), apply(&[1, 2]), apply(&[2, 3])), (2, 2, 3));
        assert_eq!((apply(&[]), apply(&[1])), (3, 4), "refused once more");
    }
}
