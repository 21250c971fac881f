//! The parts of a group's program for tunnels.

use std::{collections::BTreeMap, net::IpAddr};

use proxy_api::{Agent, Offer, Sidecar, Target};

use super::{Program, backends};

/// The uids of the agents that a listener reaches, one for each backend.
fn agents(offer: &Offer) -> impl Iterator<Item = &String> {
    backends(offer).iter().filter_map(|backend| match &backend.target {
        Target::Tunnel { agent, .. } => Some(agent),
        Target::Endpoints(_) | Target::Address { .. } => None,
    })
}

impl Program {
    /// The uids of the agents that listeners reach.
    pub(crate) fn used_agents(&self) -> impl Iterator<Item = &String> {
        self.agent_uses.keys()
    }

    /// Counts the agents of a listener that is added.
    pub(super) fn use_agents(&mut self, offer: &Offer) {
        for uid in agents(offer) {
            *self.agent_uses.entry(uid.clone()).or_default() += 1;
        }
    }

    /// Removes the agents of a removed listener from the count.
    pub(super) fn disuse_agents(&mut self, offer: &Offer) {
        for uid in agents(offer) {
            let Some(uses) = self.agent_uses.get_mut(uid) else { continue };
            *uses -= 1;
            if *uses == 0 {
                self.agent_uses.remove(uid);
            }
        }
    }

    /// Sets the agents that may dial.
    pub(crate) fn set_agents(&mut self, agents: BTreeMap<String, Agent>) {
        let gone: Vec<String> = self.now.agents.keys().filter(|uid| !agents.contains_key(*uid)).cloned().collect();
        for uid in gone {
            if let Some(old) = self.now.agents.remove(&uid) {
                self.sum.remove_agent(&uid, &old);
                self.is_changed = true;
            }
        }
        for (uid, agent) in agents {
            let old = self.now.agents.get(&uid);
            if old == Some(&agent) {
                continue;
            }
            if let Some(old) = old {
                self.sum.remove_agent(&uid, old);
            }
            self.sum.add_agent(&uid, &agent);
            self.now.agents.insert(uid, agent);
            self.is_changed = true;
        }
    }

    /// Sets the proxies that hand connections over to each other.
    pub(crate) fn set_peers(&mut self, peers: BTreeMap<String, IpAddr>) {
        let gone: Vec<String> = self.now.peers.keys().filter(|id| !peers.contains_key(*id)).cloned().collect();
        for id in gone {
            if let Some(old) = self.now.peers.remove(&id) {
                self.sum.remove_peer(&id, old);
                self.is_changed = true;
            }
        }
        for (id, address) in peers {
            let old = self.now.peers.get(&id).copied();
            if old == Some(address) {
                continue;
            }
            if let Some(old) = old {
                self.sum.remove_peer(&id, old);
            }
            self.sum.add_peer(&id, address);
            self.now.peers.insert(id, address);
            self.is_changed = true;
        }
    }

    /// Sets the sidecars to which the proxies hand connections of agents over.
    pub(crate) fn set_sidecars(&mut self, sidecars: BTreeMap<String, Sidecar>) {
        let gone: Vec<String> = self.now.sidecars.keys().filter(|id| !sidecars.contains_key(*id)).cloned().collect();
        for id in gone {
            if let Some(old) = self.now.sidecars.remove(&id) {
                self.sum.remove_sidecar(&id, &old);
                self.is_changed = true;
            }
        }
        for (id, sidecar) in sidecars {
            let old = self.now.sidecars.get(&id);
            if old == Some(&sidecar) {
                continue;
            }
            if let Some(old) = old {
                self.sum.remove_sidecar(&id, old);
            }
            self.sum.add_sidecar(&id, &sidecar);
            self.now.sidecars.insert(id, sidecar);
            self.is_changed = true;
        }
    }
}
