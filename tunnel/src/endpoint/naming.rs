//! The endpoints and sidecars that an endpoint names to agents and hands connections over to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tunnel_core::hello::{MAX_PEERS, Named};
use tunnel_core::identity::EndpointId;
use tunnel_core::places::MAX_SIDECARS;

use super::Endpoint;
use crate::Tunnel;

/// A sidecar that agents reach through this endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// The address at which this endpoint reaches the sidecar.
    pub address: SocketAddr,
    /// Uids of the agents that its sessions may reach; the sidecar is named to no other agent. Connections for a
    /// sidecar without agents are still handed over, because its existing sessions continue.
    pub agents: BTreeSet<String>,
}

impl Endpoint {
    /// The id of this endpoint.
    pub fn id(&self) -> &EndpointId {
        &self.settings.id
    }

    /// Sets the other endpoints and their addresses as seen from here. Agents learn of them, and connections meant
    /// for them are handed over. An entry for this endpoint itself is ignored.
    pub fn set_peers(&self, mut peers: BTreeMap<EndpointId, SocketAddr>) {
        peers.remove(&self.settings.id);
        if self.handing.set_peers(peers) {
            self.name_again(|_| true);
        }
    }

    /// Sets the sidecars, by their ids. Connections meant for them are handed over, and each agent learns of its own.
    pub fn set_sidecars(&self, sidecars: &BTreeMap<EndpointId, Sidecar>) {
        let touched = self.handing.set_sidecars(sidecars);
        self.name_again(|uid| touched.contains(uid));
    }

    /// The other endpoints and sidecars that an agent may dial.
    pub(super) fn named(&self, uid: &str) -> Named {
        Named { peers: self.handing.peers(MAX_PEERS), sidecars: self.handing.sidecars_of(uid, MAX_SIDECARS) }
    }

    /// How many instances of an agent may be connected at once.
    pub(super) fn instances_at_most(&self, uid: &str) -> usize {
        (self.rules)(uid).map_or(0, |rules| rules.policy.max_instances)
    }

    fn name_again(&self, concerns: impl Fn(&str) -> bool) {
        let sessions = self.sessions.borrow();
        let concerned = sessions.iter().filter(|(key, _)| concerns(&key.uid));
        let concerned: Vec<(String, Tunnel)> =
            concerned.map(|(key, held)| (key.uid.clone(), held.tunnel.clone())).collect();
        drop(sessions);
        for (uid, tunnel) in concerned {
            tunnel.name_peers(self.named(&uid));
        }
    }
}
