//! Which failures to sign are worth a line of the log.

use std::collections::BTreeSet;

/// Most gateways whose failures are remembered: as many as can have roots.
const GATEWAYS: usize = 512;

/// The gateways for which certificates cannot be signed now, by uid, and whose failure was said.
#[derive(Debug, Default)]
pub struct Failing {
    said: BTreeSet<String>,
}

impl Failing {
    /// Certificates of this gateway cannot be signed. Returns whether that is to be said: once until one is signed again.
    pub fn failed(&mut self, gateway_uid: &str) -> bool {
        if self.said.contains(gateway_uid) {
            return false;
        }
        // Gateways that were deleted while they failed are never signed for again.
        if self.said.len() >= GATEWAYS {
            self.said.clear();
        }
        self.said.insert(gateway_uid.to_owned())
    }

    /// A certificate of this gateway was signed. Returns whether that is to be said.
    pub fn signed(&mut self, gateway_uid: &str) -> bool {
        self.said.remove(gateway_uid)
    }
}
