//! Settings of the thread that speaks to agents.

use std::{net::SocketAddr, path::PathBuf};

use tunnel_core::identity::EndpointId;

/// Where agents connect, and what is kept of them.
#[derive(Clone, Debug)]
pub struct TunnelSettings {
    /// The address that agents dial; port 0 is any free port.
    pub address: SocketAddr,
    /// Where agents reach that address, as HOST:PORT, for their join strings. None: the address itself.
    pub advertise: Vec<String>,
    /// The folder for keys, tokens and join strings, which only this process uses.
    pub folder: PathBuf,
    /// Which endpoint of a cluster this is, where the operator signs certificates. None: this process signs them.
    pub endpoint: Option<EndpointId>,
    /// Instances of all agents at once, at most [`crate::tunnels::MAX_AGENTS`].
    pub max_agents: usize,
    /// The port of sidecars to which connections are handed over.
    pub sidecar_port: u16,
}

/// Where agents of a sidecar connect, by way of their gateways.
#[derive(Clone, Debug)]
pub struct SidecarSettings {
    /// The address that pods of gateways dial.
    pub address: SocketAddr,
    /// The folder for keys, which only this process uses.
    pub folder: PathBuf,
}
