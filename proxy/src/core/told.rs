//! The refused endpoints that the log already shows. A DNS name may resolve to other addresses each time, for ever, and
//! must fill neither the log nor the memory. The metric counts the endpoints that are refused now.

use std::{collections::BTreeSet, net::SocketAddr};

/// Endpoints of one listener that are logged one by one.
pub const MOST: usize = 64;

/// The refused endpoints of one listener that are in the log.
#[derive(Debug, Default)]
pub struct Told {
    addresses: BTreeSet<SocketAddr>,
    /// The log mentions that there are more.
    is_full: bool,
}

/// What to log about a refused endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// The endpoint.
    Endpoint,
    /// There are more, which are not logged.
    More,
    /// Nothing: the log has it, or is full.
    Nothing,
}

impl Told {
    /// Decides what to log about a refused endpoint.
    pub fn tell(&mut self, address: SocketAddr) -> Tell {
        if self.addresses.contains(&address) {
            return Tell::Nothing;
        }
        if self.addresses.len() < MOST {
            self.addresses.insert(address);
            return Tell::Endpoint;
        }
        if std::mem::replace(&mut self.is_full, true) { Tell::Nothing } else { Tell::More }
    }
}
