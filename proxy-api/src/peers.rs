//! The proxies of one gateway, as they know each other for tunnels.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::Revision;

/// Most other proxies that one proxy knows.
pub const MAX_PEERS: usize = 256;
/// Longest id of a proxy as an endpoint of tunnels, in bytes: a label of DNS.
pub const MAX_ENDPOINT_ID_BYTES: usize = 63;

/// What a proxy is told for tunnels, besides [agents](crate::Agent).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tunnels {
    /// The addresses of proxies of the same gateway, by their ids as endpoints of tunnels. They listen for agents on the
    /// same port as this one. A proxy ignores its own entry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::bounded::peers")]
    pub peers: BTreeMap<String, IpAddr>,
}

impl Tunnels {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}

/// What a proxy sends in place of the address of another one.
#[must_use]
pub fn peer_revision(address: IpAddr) -> Revision {
    Revision(address.to_string())
}
