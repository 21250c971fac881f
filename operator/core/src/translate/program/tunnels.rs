//! What a group hears for tunnels.

use std::{collections::BTreeMap, net::IpAddr};

use proxy_api::Agent;

use super::Program;

impl Program {
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
}
