//! The configuration that a group runs, at one point in time.

use std::{collections::BTreeSet, net::IpAddr};

use imbl::{OrdMap, ordmap::DiffItem};
use proxy_api::{
    Agent, Change, Configuration, Digest, DigestSum, EndpointSet, Held, ListenerId, Offer, PARTS, Sidecar, Tunnels,
    Version, peer_revision,
};

/// A published listener.
#[derive(Clone, Debug)]
pub struct Published {
    /// The listener as proxies receive it.
    pub offer: Offer,
    /// Number of the first version that has the listener in this revision.
    pub since: u64,
}

impl PartialEq for Published {
    fn eq(&self, other: &Self) -> bool {
        self.since == other.since && self.offer.revision() == other.offer.revision()
    }
}

/// The versioned configuration of one group. Cloning is cheap, and comparing two snapshots costs as much as they
/// differ.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Position in the order of configurations.
    pub version: Version,
    /// Listeners by identity.
    pub listeners: OrdMap<ListenerId, Published>,
    /// Endpoint sets by name.
    pub endpoints: OrdMap<String, EndpointSet>,
    /// Agents by uid.
    pub agents: OrdMap<String, Agent>,
    /// The addresses of the proxies, by their ids as endpoints of tunnels.
    pub peers: OrdMap<String, IpAddr>,
    /// The sidecars to which the proxies hand connections of agents over, by their ids as endpoints of tunnels.
    pub sidecars: OrdMap<String, Sidecar>,
    /// Digest of listeners, endpoint sets, agents, peers and sidecars.
    pub digest: Digest,
}

impl Snapshot {
    /// A snapshot without listeners.
    #[must_use]
    pub fn empty(version: Version) -> Self {
        Self { version, digest: DigestSum::default().digest(), ..Self::default() }
    }

    /// The snapshot as a document.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        Configuration {
            version: self.version.clone(),
            listeners: self.listeners.iter().map(|(id, published)| (id.clone(), published.offer.clone())).collect(),
            endpoints: self.endpoints.iter().map(|(name, set)| (name.clone(), set.clone())).collect(),
            agents: self.agents.iter().map(|(uid, agent)| (uid.clone(), agent.clone())).collect(),
            tunnels: Tunnels {
                peers: self.peers.iter().map(|(id, address)| (id.clone(), *address)).collect(),
                sidecars: self.sidecars.iter().map(|(id, sidecar)| (id.clone(), sidecar.clone())).collect(),
            },
            ..Configuration::default()
        }
    }

    /// Bytes that the revisions of a proxy that runs this snapshot take in memory, approximately.
    #[must_use]
    pub fn weight_of_revisions(&self) -> usize {
        let of_tunnels = self.agents.keys().chain(self.peers.keys()).chain(self.sidecars.keys());
        Held::weight_of(self.listeners.keys(), self.endpoints.keys(), of_tunnels)
    }

    /// The messages that update a proxy from `before` to this snapshot. Their number and the cost follow the
    /// difference.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        // Both sides contain only the differing entries, so that the comparison is as small as the difference.
        let mut held = Held::default();
        let mut next = Configuration { version: self.version.clone(), ..Configuration::default() };
        for (id, old, now) in differing(&before.listeners, &self.listeners) {
            held.listeners.extend(old.map(|old| (id.clone(), old.offer.revision().clone())));
            next.listeners.extend(now.map(|now| (id.clone(), now.offer.clone())));
        }
        for (name, old, now) in differing(&before.endpoints, &self.endpoints) {
            held.endpoints.extend(old.map(|old| (name.clone(), old.revision())));
            next.endpoints.extend(now.map(|now| (name.clone(), now.clone())));
        }
        for (uid, old, now) in differing(&before.agents, &self.agents) {
            held.agents.extend(old.map(|old| (uid.clone(), old.revision())));
            next.agents.extend(now.map(|now| (uid.clone(), now.clone())));
        }
        for (id, old, now) in differing(&before.peers, &self.peers) {
            held.peers.extend(old.map(|old| (id.clone(), peer_revision(*old))));
            next.tunnels.peers.extend(now.map(|now| (id.clone(), *now)));
        }
        for (id, old, now) in differing(&before.sidecars, &self.sidecars) {
            held.sidecars.extend(old.map(|old| (id.clone(), old.revision())));
            next.tunnels.sidecars.extend(now.map(|now| (id.clone(), now.clone())));
        }
        next.changes_from(&held, &BTreeSet::new(), PARTS)
    }
}

/// The key of an entry, with its earlier and its present value.
type Difference<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

/// Returns the entries that differ between two maps.
fn differing<'a, K: Ord, V: PartialEq>(
    before: &'a OrdMap<K, V>,
    now: &'a OrdMap<K, V>,
) -> impl Iterator<Item = Difference<'a, K, V>> {
    before.diff(now).map(|item| match item {
        DiffItem::Add(key, now) => (key, None, Some(now)),
        DiffItem::Update { old: (_, old), new: (key, now) } => (key, Some(old), Some(now)),
        DiffItem::Remove(key, old) => (key, Some(old), None),
    })
}
