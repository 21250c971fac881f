//! The reach of a gateway's fleet, and the nodes on which it runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxy_api::Transport;
use serde::{Deserialize, Serialize};

/// The addresses of a fleet, which its forwards must not lead back to, and of its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reach {
    /// Addresses of the pods.
    #[serde(default)]
    pub pods: BTreeSet<IpAddr>,
    /// Addresses of the nodes that the pods run on.
    #[serde(default)]
    pub nodes: BTreeSet<IpAddr>,
    /// The Services in front of the pods, by name. They are in the namespace of the gateway.
    #[serde(default)]
    pub fronts: BTreeMap<String, Front>,
}

/// The addresses at which a Service listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Front {
    /// Cluster IPs, external IPs, and IPs of the load balancer.
    #[serde(default)]
    pub addresses: BTreeSet<IpAddr>,
    /// Host names of the load balancer, in lower case.
    #[serde(default)]
    pub hosts: BTreeSet<String>,
    /// Ports that lead to another port of the pods: transport, port of the Service, port of the pods.
    #[serde(default)]
    pub moved: BTreeSet<(Transport, u16, u16)>,
}

impl Front {
    /// The pod port to which a port of the Service leads. Ports that the Service lacks lead nowhere; they count as the
    /// same port, so that a Service whose ports follow the listeners does not change with them.
    #[must_use]
    pub fn target(&self, transport: Transport, port: u16) -> u16 {
        let mut moved = self.moved.range((transport, port, 0)..=(transport, port, u16::MAX));
        moved.next().map_or(port, |(_, _, target)| *target)
    }
}
