//! The revisions that a proxy holds, which it sends so that it gets only differences.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Configuration, ListenerId, Revision, peer_revision, weight::ITEM};

/// Bytes of a revision that has not been read yet. Hashes have 16 or 32 digits.
const REVISION: usize = 32;

/// Revisions that a proxy holds, in parts. Sent only if the proxy's digest differs from the operator's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Revisions by listener.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::bounded::map")]
    pub listeners: BTreeMap<ListenerId, Revision>,
    /// Revisions of endpoint sets by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::bounded::named")]
    pub endpoints: BTreeMap<String, Revision>,
    /// Revisions of agents by uid.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::bounded::named")]
    pub agents: BTreeMap<String, Revision>,
    /// Revisions of other proxies by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::bounded::named")]
    pub peers: BTreeMap<String, Revision>,
    /// Revisions of sidecars by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::bounded::named")]
    pub sidecars: BTreeMap<String, Revision>,
    /// Whether this is the last part.
    #[serde(default)]
    pub commit: bool,
}

impl Held {
    /// Bytes that these revisions take in memory, approximately.
    #[must_use]
    pub fn weight(&self) -> usize {
        let listeners = self.listeners.iter().map(|(id, revision)| id.weight() + revision.0.len());
        let named = self.endpoints.iter().chain(&self.agents).chain(&self.peers).chain(&self.sidecars);
        let named = named.map(|(name, revision)| name.len() + revision.0.len());
        listeners.chain(named).map(|texts| ITEM + texts).sum()
    }

    /// Bytes that the revisions of these listeners, endpoint sets, agents, peers and sidecars would take in memory,
    /// approximately.
    #[must_use]
    pub fn weight_of<'a>(
        listeners: impl Iterator<Item = &'a ListenerId>,
        endpoints: impl Iterator<Item = &'a String>,
        agents: impl Iterator<Item = &'a String>,
    ) -> usize {
        let named = endpoints.chain(agents).map(String::len);
        listeners.map(ListenerId::weight).chain(named).map(|texts| ITEM + REVISION + texts).sum()
    }

    /// Splits into parts of at most `per_part` entries; the last part has `commit`.
    #[must_use]
    pub fn into_parts(self, per_part: usize) -> Vec<Self> {
        let per_part = per_part.max(1);
        let mut parts = vec![Self::default()];
        let mut items = 0;
        let mut last = |parts: &mut Vec<Self>| {
            if items == per_part {
                parts.push(Self::default());
                items = 0;
            }
            items += 1;
            parts.len() - 1
        };
        for (id, revision) in self.listeners {
            let at = last(&mut parts);
            parts[at].listeners.insert(id, revision);
        }
        for (name, revision) in self.endpoints {
            let at = last(&mut parts);
            parts[at].endpoints.insert(name, revision);
        }
        for (uid, revision) in self.agents {
            let at = last(&mut parts);
            parts[at].agents.insert(uid, revision);
        }
        for (id, revision) in self.peers {
            let at = last(&mut parts);
            parts[at].peers.insert(id, revision);
        }
        for (id, revision) in self.sidecars {
            let at = last(&mut parts);
            parts[at].sidecars.insert(id, revision);
        }
        if let Some(part) = parts.last_mut() {
            part.commit = true;
        }
        parts
    }
}

impl Configuration {
    /// The revisions of this configuration, which a proxy sends so that the operator replies with changes only.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            listeners: self.listeners.iter().map(|(id, offer)| (id.clone(), offer.revision().clone())).collect(),
            endpoints: self.endpoints.iter().map(|(name, set)| (name.clone(), set.revision())).collect(),
            agents: self.agents.iter().map(|(uid, agent)| (uid.clone(), agent.revision())).collect(),
            peers: self.tunnels.peers.iter().map(|(id, address)| (id.clone(), peer_revision(*address))).collect(),
            sidecars: self.tunnels.sidecars.iter().map(|(id, sidecar)| (id.clone(), sidecar.revision())).collect(),
            commit: true,
        }
    }
}
