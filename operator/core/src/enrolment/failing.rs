//! Selects the failures to sign that are logged.

use std::collections::BTreeSet;

/// Most gateways whose failures are remembered: as many as can have roots.
const GATEWAYS: usize = 512;

/// The gateways, by uid, for which signing fails and the failure was logged.
#[derive(Debug, Default)]
pub struct Failing {
    said: BTreeSet<String>,
}

impl Failing {
    /// Records that signing for this gateway failed. Returns whether to log it: once, until signing succeeds again.
    pub fn failed(&mut self, gateway_uid: &str) -> bool {
        if self.said.contains(gateway_uid) {
            return false;
        }
        // A gateway that was deleted while signing failed never succeeds again.
        if self.said.len() >= GATEWAYS {
            self.said.clear();
        }
        self.said.insert(gateway_uid.to_owned())
    }

    /// Records that signing for this gateway succeeded. Returns whether to log it.
    pub fn signed(&mut self, gateway_uid: &str) -> bool {
        self.said.remove(gateway_uid)
    }
}
