//! The proxies of one gateway, as they know each other for tunnels, and the sidecars that its agents reach.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Revision, hash::short};

/// Most agents of all sidecars together that one proxy knows.
pub const MAX_SIDECAR_AGENTS: usize = 4096;
/// The port on which a sidecar listens for agents, whose connections the proxies of their gateway hand over.
pub const SIDECAR_TUNNEL_PORT: u16 = 9182;

/// The configuration of a proxy for tunnels, besides [agents](crate::Agent).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tunnels {
    /// The addresses of proxies of the same gateway, by their ids as endpoints of tunnels. They listen for agents on
    /// the same port as this proxy. A proxy ignores its own entry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::bounded::peers")]
    pub peers: BTreeMap<String, IpAddr>,
    /// The sidecars to which the proxy hands over connections of agents, by their ids as endpoints of tunnels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::bounded::sidecars")]
    pub sidecars: BTreeMap<String, Sidecar>,
}

impl Tunnels {
    /// Whether there are no peers and no sidecars.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.sidecars.is_empty()
    }
}

/// A sidecar that agents of a gateway keep sessions with. It listens for them on [`SIDECAR_TUNNEL_PORT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// Address of its pod.
    pub address: IpAddr,
    /// Uids of the agents to which the sidecar is named. Empty: its pod is being deleted; existing sessions continue.
    #[serde(deserialize_with = "crate::bounded::uids")]
    pub agents: BTreeSet<String>,
}

impl Sidecar {
    /// Hash of all fields, which a proxy sends instead of the fields.
    ///
    /// The hash is the first 16 hex digits of SHA-256 over the JSON form in declaration order. It is stable across
    /// platforms and releases as long as the type is.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(short(&Sha256::digest(serde_json::to_vec(self).unwrap_or_default())).into())
    }
}

/// The hash that a proxy sends instead of the address of another one.
#[must_use]
pub fn peer_revision(address: IpAddr) -> Revision {
    Revision(address.to_string().into())
}
