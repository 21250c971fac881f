//! The refused endpoints that are already in the log. A DNS name may resolve to other addresses each time, for ever,
//! and must fill neither the log nor the memory. The metric counts the endpoints that are refused now.

use std::{collections::BTreeSet, net::SocketAddr};

/// Endpoints of one listener that are logged one by one.
pub const MOST: usize = 64;

/// The refused endpoints of one listener that are in the log.
#[derive(Debug, Default)]
pub struct LoggedRefusals {
    addresses: BTreeSet<SocketAddr>,
    /// Whether the log already says that there are more.
    is_full: bool,
}

/// What to log about a refused endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogAction {
    /// The endpoint.
    Endpoint,
    /// A line that there are more, which are not logged.
    More,
    /// Nothing: the endpoint is in the log already, or the log is full.
    Nothing,
}

impl LoggedRefusals {
    /// Decides what to log about a refused endpoint.
    pub fn record(&mut self, address: SocketAddr) -> LogAction {
        if self.addresses.contains(&address) {
            return LogAction::Nothing;
        }
        if self.addresses.len() < MOST {
            self.addresses.insert(address);
            return LogAction::Endpoint;
        }
        if std::mem::replace(&mut self.is_full, true) { LogAction::Nothing } else { LogAction::More }
    }
}
