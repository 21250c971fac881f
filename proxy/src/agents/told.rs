//! The part of a configuration that the tunnels get.

use std::{collections::BTreeMap, net::IpAddr};

use proxy_api::{Agent, Configuration, Sidecar, Tunnels};

/// The part of a configuration that the tunnels get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForTunnels {
    /// The agents that may dial, by uid.
    pub agents: BTreeMap<String, Agent>,
    /// The proxies of the same gateway, by their ids as endpoints.
    pub peers: BTreeMap<String, IpAddr>,
    /// The sidecars to which connections are handed over, by their ids as endpoints.
    pub sidecars: BTreeMap<String, Sidecar>,
}

impl ForTunnels {
    /// Extracts the part from a configuration.
    #[must_use]
    pub fn of(configuration: &Configuration) -> Self {
        let Tunnels { peers, sidecars } = configuration.tunnels.clone();
        Self { agents: configuration.agents.clone(), peers, sidecars }
    }

    /// Whether both configurations have the same part for tunnels.
    #[must_use]
    pub fn is_same(one: &Configuration, other: &Configuration) -> bool {
        one.agents == other.agents && one.tunnels == other.tunnels
    }
}
