//! Why a socket could not be bound, and what to do about it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use proxy_api::{Bind, FailureReason, SIDECAR_TUNNEL_PORT, SocketKey, Transport};

use crate::holder;

/// Most addresses in use whose holders are looked up at a time.
const MOST_HOLDERS: usize = 32;

/// A socket could not be bound.
#[derive(Clone, Debug, thiserror::Error)]
#[error("bind {address}/{transport}: {why}")]
pub struct BindError {
    address: SocketAddr,
    transport: Transport,
    why: String,
    /// Machine-readable reason.
    pub reason: FailureReason,
}

impl BindError {
    pub(super) fn new(address: SocketAddr, transport: Transport, error: &io::Error) -> Self {
        let (reason, why) = match error.kind() {
            io::ErrorKind::AddrInUse => {
                let of_agents = of_agents(address, transport);
                let why = format!("address in use: stop its holder or choose another port{of_agents}");
                (FailureReason::AddressInUse, why)
            }
            io::ErrorKind::PermissionDenied => (
                FailureReason::PermissionDenied,
                "permission denied: ports below net.ipv4.ip_unprivileged_port_start need privileges; choose a higher \
                 port or lower that setting"
                    .to_owned(),
            ),
            _ => (FailureReason::BindFailed, error.to_string()),
        };
        Self { address, transport, why, reason }
    }

    /// Names the holders of addresses that are in use, as far as they can be known.
    pub(crate) fn name_holders<'a>(errors: impl Iterator<Item = &'a mut Self>) {
        let mut in_use: Vec<&mut Self> = errors.filter(|error| error.reason == FailureReason::AddressInUse).collect();
        let wanted: Vec<(SocketAddr, Transport)> =
            in_use.iter().map(|error| (error.address, error.transport)).take(MOST_HOLDERS).collect();
        for (at, holder) in holder::find(&wanted) {
            if let Some(error) = in_use.get_mut(at) {
                let of_agents = of_agents(error.address, error.transport);
                error.why = format!("address in use by {holder}: stop it or choose another port{of_agents}");
            }
        }
    }

    /// The port of this key belongs to another program, which does not use it at present.
    #[must_use]
    pub fn yielded(key: SocketKey) -> Self {
        let ip = match key.bind {
            Bind::Loopback => Ipv4Addr::LOCALHOST,
            Bind::All => Ipv4Addr::UNSPECIFIED,
        };
        let why = "address in use by another program until a moment ago, which may be restarting; choose another port, or \
                   wait: the proxy binds this one once it stays free";
        Self {
            address: (ip, key.port).into(),
            transport: key.transport,
            why: why.to_owned(),
            reason: FailureReason::AddressInUse,
        }
    }
}

/// The addition about an address in use that the proxy of a sidecar may have itself.
fn of_agents(address: SocketAddr, transport: Transport) -> &'static str {
    let may_be = transport == Transport::Tcp && address.port() == SIDECAR_TUNNEL_PORT;
    if may_be { " (agents reach a sidecar on this port if its listeners use agents)" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_cannot_have_the_port_of_sidecars_hears_who_may_have_it() {
        let in_use = io::Error::from(io::ErrorKind::AddrInUse);
        let at = |transport, port: u16| BindError::new((Ipv4Addr::UNSPECIFIED, port).into(), transport, &in_use);
        let error = at(Transport::Tcp, SIDECAR_TUNNEL_PORT);
        assert_eq!(error.reason, FailureReason::AddressInUse);
        let is_told = |error: BindError| error.to_string().contains("use agents");
        assert!(is_told(error));
        assert!(!is_told(at(Transport::Tcp, 5432)) && !is_told(at(Transport::Udp, SIDECAR_TUNNEL_PORT)));
    }
}
