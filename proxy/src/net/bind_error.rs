//! Why a socket could not be bound, and what to do about it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use proxy_api::{Bind, FailureReason, SIDECAR_TUNNEL_PORT, SocketKey, Transport};

use crate::{core::limits::open_files, holder};

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
            _ if is_lack_of_files(error) => (
                FailureReason::FileLimit,
                "too many open files: raise the limit of open files (ulimit -n), or remove listeners".to_owned(),
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
        let why = "address in use by another program until a moment ago, which may be restarting; choose another port, or \
                   wait: the proxy binds this one once it stays free";
        Self::of(key, why.to_owned(), FailureReason::AddressInUse)
    }

    /// Listeners may not take the files of this key's sockets; `limit` is that of the process, without the reserve.
    #[must_use]
    pub fn no_files(key: SocketKey, limit: usize) -> Self {
        Self::of(key, open_files::refusal(limit), FailureReason::FileLimit)
    }

    fn of(key: SocketKey, why: String, reason: FailureReason) -> Self {
        let ip = match key.bind {
            Bind::Loopback => Ipv4Addr::LOCALHOST,
            Bind::All => Ipv4Addr::UNSPECIFIED,
        };
        Self { address: (ip, key.port).into(), transport: key.transport, why, reason }
    }
}

/// Whether the process has all the files that it may have.
fn is_lack_of_files(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error())
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
    fn a_process_without_files_is_told_apart_from_other_failures() {
        let error = |errno: rustix::io::Errno| {
            BindError::new((Ipv4Addr::LOCALHOST, 80).into(), Transport::Tcp, &io::Error::from(errno))
        };
        let lacking = error(rustix::io::Errno::MFILE);
        assert_eq!(lacking.reason, FailureReason::FileLimit);
        assert!(lacking.to_string().contains("too many open files") && lacking.to_string().contains("ulimit -n"));
        assert_eq!(error(rustix::io::Errno::NOBUFS).reason, FailureReason::BindFailed);
        let key = SocketKey { transport: Transport::Udp, bind: Bind::All, port: 53 };
        let refused = BindError::no_files(key, 64);
        assert_eq!(refused.reason, FailureReason::FileLimit);
        assert!(
            refused.to_string().starts_with("bind 0.0.0.0:53/UDP: too many open files: the limit is 128"),
            "{refused}"
        );
    }

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
