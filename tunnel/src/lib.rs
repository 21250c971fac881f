//! Tunnels between agents and proxies, on sockets and files. [`tunnel_core`] decides.

pub mod agent;
pub mod endpoint;
pub mod handshake;
pub mod identity;
pub mod proxy_connect;
