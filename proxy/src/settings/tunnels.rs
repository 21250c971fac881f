//! Settings of the thread that speaks to agents.

use std::{net::SocketAddr, path::PathBuf};

use tunnel_core::identity::EndpointId;

/// The port for agents, and the folder for their files.
#[derive(Clone, Debug)]
pub struct TunnelSettings {
    /// The address that agents dial; port 0 is any free port.
    pub address: SocketAddr,
    /// Addresses at which agents reach that port, as HOST:PORT, for their join strings. Empty: the address itself.
    pub advertise: Vec<String>,
    /// The folder for keys, tokens and join strings, which only this process uses.
    pub folder: PathBuf,
    /// The id of this endpoint in a cluster, whose operator signs certificates. `None`: this process signs them.
    pub endpoint: Option<EndpointId>,
    /// Most instances of all agents at the same time, at most [`crate::tunnels::MAX_AGENTS`].
    pub max_agents: usize,
    /// The port of sidecars to which connections are handed over.
    pub sidecar_port: u16,
}

/// The port for agents of a sidecar, which connect by way of their gateways.
#[derive(Clone, Debug)]
pub struct SidecarSettings {
    /// The address that pods of gateways dial.
    pub address: SocketAddr,
    /// The folder for keys, which only this process uses.
    pub folder: PathBuf,
}
