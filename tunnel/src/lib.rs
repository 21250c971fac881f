//! Tunnels between agents and proxies, on sockets and files. [`tunnel_core`] decides.

pub mod identity;
