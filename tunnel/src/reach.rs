//! Connects to an endpoint, through an HTTP proxy of the network if there is one.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tunnel_core::join::Address;

use crate::proxy_connect::{ConnectError, Proxy};

/// Why no address could be reached.
#[derive(Debug, Error)]
pub enum ReachError {
    /// There is no address.
    #[error("no address of an endpoint is known")]
    Nowhere,
    /// The address, or the proxy, does not answer.
    #[error("cannot connect to {address}: check the address and the way to it")]
    Unreachable {
        /// The address that was dialled.
        address: Address,
        /// The error.
        source: io::Error,
    },
    /// The proxy made no connection.
    #[error(transparent)]
    Proxy(ConnectError),
}

/// Connects to the first of the addresses that answers, and returns that address, too. Each gets an equal part of the
/// time.
pub(crate) async fn reach(
    addresses: &[Address],
    proxy: Option<&Proxy>,
    within: Duration,
) -> Result<(TcpStream, Address), ReachError> {
    let each = within / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut failure = ReachError::Nowhere;
    for address in addresses {
        match timeout(each, connect(address, proxy)).await {
            Ok(Ok(tcp)) => return Ok((tcp, address.clone())),
            Ok(Err(error)) => failure = error,
            Err(_) => {
                failure = ReachError::Unreachable { address: address.clone(), source: io::ErrorKind::TimedOut.into() };
            }
        }
    }
    Err(failure)
}

async fn connect(address: &Address, proxy: Option<&Proxy>) -> Result<TcpStream, ReachError> {
    let proxy = proxy.filter(|proxy| !proxy.leaves_out(address));
    let first = proxy.map_or(address, Proxy::address);
    let unreachable = |source| ReachError::Unreachable { address: first.clone(), source };
    let mut tcp = TcpStream::connect((first.host(), first.port())).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    if let Some(proxy) = proxy {
        proxy.connect(&mut tcp, address).await.map_err(ReachError::Proxy)?;
    }
    Ok(tcp)
}
