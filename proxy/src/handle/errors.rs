//! Why a proxy does not start, or has ended.

use std::{io, net::SocketAddr, path::PathBuf};

/// The proxy failed to start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A health or admin address is taken or not permitted.
    #[error("cannot listen on the {role} address {address}{}", remedy(.holder.as_deref()))]
    Address {
        /// `health`, `admin` or `tunnel`.
        role: &'static str,
        /// The address.
        address: SocketAddr,
        /// The process that has the address, as far as it can be known.
        holder: Option<String>,
        /// Bind error.
        #[source]
        source: io::Error,
    },
    /// The admin address is the health address of the proxy itself.
    #[error("the health address {health} and the admin address {admin} have the same port: choose another port")]
    SamePort {
        /// Health address.
        health: SocketAddr,
        /// Admin address.
        admin: SocketAddr,
    },
    /// The unix socket cannot be created.
    #[error("cannot listen on the unix socket {}", path.display())]
    Socket {
        /// Path of the socket.
        path: PathBuf,
        /// Bind error.
        #[source]
        source: io::Error,
    },
    /// The admin address is reachable from other machines.
    #[error("the admin address {0} must be on loopback, because it has no access control")]
    AdminNotLoopback(SocketAddr),
    /// A thread or runtime cannot be created.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
    /// The folder of the tunnels cannot be used, or an address is invalid.
    #[cfg(feature = "tunnels")]
    #[error("cannot serve agents")]
    Tunnels(#[source] crate::tunnels::TunnelsError),
}

fn remedy(holder: Option<&str>) -> String {
    match holder {
        Some(holder) => format!(", which is in use by {holder}: stop it or choose another address"),
        None => "; choose another one".to_owned(),
    }
}

/// The proxy has ended and accepts no more requests.
#[derive(Debug, thiserror::Error)]
#[error("the proxy has ended")]
pub struct Ended;

/// Threads or tasks of the proxy have panicked, which ended the proxy.
#[derive(Debug, thiserror::Error)]
#[error("{} ended unexpectedly, so the proxy had to end: please report the text on standard error", .0.join(", "))]
pub struct Died(pub(super) Vec<String>);
