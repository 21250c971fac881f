//! A configuration that is being assembled from the parts of an update.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Change, ChangeError, MOST_REPEATED, Named};
use crate::{
    Agent, Configuration, Digest, DigestSum, MAX_AGENTS, MAX_LISTENERS, MAX_PEERS, MAX_SIDECAR_AGENTS, MAX_SIDECARS,
    Sidecar, Tunnels,
};

/// A configuration that is being assembled.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) next: Configuration,
    pub(super) sum: DigestSum,
    /// The names in the parts so far.
    pub(super) named: Named,
    /// The parts so far; `None` if they are many, or do not contain every change.
    pub(super) parts: Option<Vec<Change>>,
}

/// Applies an earlier part to a configuration again.
pub(super) fn repeat(configuration: &mut Configuration, part: Change) {
    let Configuration { listeners, endpoints, agents, tunnels: Tunnels { peers, sidecars }, .. } = configuration;
    listeners.extend(part.upserts);
    endpoints.extend(part.endpoints);
    agents.extend(part.agents);
    peers.extend(part.peers);
    sidecars.extend(part.sidecars);
    for id in &part.removals {
        listeners.remove(id);
    }
    for name in &part.endpoint_removals {
        endpoints.remove(name);
    }
    for uid in &part.agent_removals {
        agents.remove(uid);
    }
    for id in &part.peer_removals {
        peers.remove(id);
    }
    for id in &part.sidecar_removals {
        sidecars.remove(id);
    }
}

impl Pending {
    /// Keeps a part that is about to be added, so that it can be repeated.
    pub(super) fn keep(&mut self, part: &Change) {
        let Some(mut parts) = self.parts.take() else { return };
        if parts.iter().chain([part]).map(|part| 1 + part.items()).sum::<usize>() <= MOST_REPEATED {
            parts.push(part.clone());
            self.parts = Some(parts);
        }
    }

    /// Adds the items of a part; returns the number of items hashed.
    pub(super) fn add(&mut self, part: Change) -> usize {
        self.named.tunnels |= part.names_tunnels();
        let mut hashed = self.add_agents(part.agents, &part.agent_removals);
        hashed += self.add_peers(part.peers, &part.peer_removals);
        hashed += self.add_sidecars(part.sidecars, &part.sidecar_removals);
        let Self { next: Configuration { listeners, endpoints, .. }, sum, named, .. } = self;
        named.listeners.extend(part.upserts.keys().chain(&part.removals).cloned());
        named.endpoints.extend(part.endpoints.keys().chain(&part.endpoint_removals).cloned());
        for (id, offer) in part.upserts {
            sum.add_listener(&id, offer.revision());
            hashed += 1;
            if let Some(before) = listeners.get(&id) {
                sum.remove_listener(&id, before.revision());
                hashed += 1;
            }
            listeners.insert(id, offer);
        }
        for id in &part.removals {
            if let Some(before) = listeners.remove(id) {
                sum.remove_listener(id, before.revision());
                hashed += 1;
            }
        }
        for (name, set) in part.endpoints {
            sum.add_endpoints(&name, &set);
            hashed += 1;
            if let Some(before) = endpoints.get(&name) {
                sum.remove_endpoints(&name, before);
                hashed += 1;
            }
            endpoints.insert(name, set);
        }
        for name in &part.endpoint_removals {
            if let Some(before) = endpoints.remove(name) {
                sum.remove_endpoints(name, &before);
                hashed += 1;
            }
        }
        hashed
    }

    /// Adds and removes agents; returns the number of items hashed.
    fn add_agents(&mut self, agents: BTreeMap<String, Agent>, removals: &BTreeSet<String>) -> usize {
        let mut hashed = 0;
        for (uid, agent) in agents {
            self.sum.add_agent(&uid, &agent);
            hashed += 1;
            if let Some(before) = self.next.agents.get(&uid) {
                self.sum.remove_agent(&uid, before);
                hashed += 1;
            }
            self.next.agents.insert(uid, agent);
        }
        for uid in removals {
            if let Some(before) = self.next.agents.remove(uid) {
                self.sum.remove_agent(uid, &before);
                hashed += 1;
            }
        }
        hashed
    }

    /// Adds and removes other proxies; returns the number of items hashed.
    fn add_peers(&mut self, peers: BTreeMap<String, IpAddr>, removals: &BTreeSet<String>) -> usize {
        let mut hashed = 0;
        for (id, address) in peers {
            self.sum.add_peer(&id, address);
            hashed += 1;
            if let Some(before) = self.next.tunnels.peers.get(&id) {
                self.sum.remove_peer(&id, *before);
                hashed += 1;
            }
            self.next.tunnels.peers.insert(id, address);
        }
        for id in removals {
            if let Some(before) = self.next.tunnels.peers.remove(id) {
                self.sum.remove_peer(id, before);
                hashed += 1;
            }
        }
        hashed
    }

    /// Adds and removes sidecars; returns the number of items hashed.
    fn add_sidecars(&mut self, sidecars: BTreeMap<String, Sidecar>, removals: &BTreeSet<String>) -> usize {
        let mut hashed = 0;
        for (id, sidecar) in sidecars {
            self.sum.add_sidecar(&id, &sidecar);
            hashed += 1;
            if let Some(before) = self.next.tunnels.sidecars.get(&id) {
                self.sum.remove_sidecar(&id, before);
                hashed += 1;
            }
            self.next.tunnels.sidecars.insert(id, sidecar);
        }
        for id in removals {
            if let Some(before) = self.next.tunnels.sidecars.remove(id) {
                self.sum.remove_sidecar(id, &before);
                hashed += 1;
            }
        }
        hashed
    }

    /// Refuses more items than a proxy runs. The agents of sidecars are only counted at the end: until then, some may
    /// still be those before the update.
    pub(super) fn within_bounds(&self, is_last: bool) -> Result<(), ChangeError> {
        let Configuration { listeners, agents, tunnels: Tunnels { peers, sidecars }, .. } = &self.next;
        let of_sidecars = || sidecars.values().map(|sidecar| sidecar.agents.len()).sum::<usize>();
        if listeners.len() > MAX_LISTENERS {
            Err(ChangeError::TooMany)
        } else if agents.len() > MAX_AGENTS {
            Err(ChangeError::TooManyAgents)
        } else if peers.len() > MAX_PEERS {
            Err(ChangeError::TooManyPeers)
        } else if sidecars.len() > MAX_SIDECARS || (is_last && of_sidecars() > MAX_SIDECAR_AGENTS) {
            Err(ChangeError::TooManySidecars)
        } else {
            Ok(())
        }
    }

    /// Drops all sidecars, or also all peers, or also all agents, if the writer's digest is that of the configuration
    /// without them. The writer is then an operator of a release that does not know them: it cannot remove them, so
    /// nobody could revoke an agent.
    pub(super) fn agree(&mut self, digest: Option<&Digest>) {
        let Some(digest) = digest.filter(|digest| **digest != self.sum.digest()) else { return };
        let mut without = self.sum;
        for (id, sidecar) in &self.next.tunnels.sidecars {
            without.remove_sidecar(id, sidecar);
        }
        if *digest == without.digest() {
            (self.parts, self.named.tunnels) = (None, true);
            self.next.tunnels.sidecars.clear();
            self.sum = without;
            return;
        }
        for (id, address) in &self.next.tunnels.peers {
            without.remove_peer(id, *address);
        }
        let is_without_peers = *digest == without.digest();
        if !is_without_peers {
            for (uid, agent) in &self.next.agents {
                without.remove_agent(uid, agent);
            }
        }
        if is_without_peers || *digest == without.digest() {
            (self.parts, self.named.tunnels) = (None, true);
            self.next.tunnels = Tunnels::default();
            if !is_without_peers {
                self.next.agents.clear();
            }
            self.sum = without;
        }
    }
}
