//! The request of a listener to its gateway.

use proxy_api::{Listener, Transport};

use crate::translate::validate::ValidListener;

/// The request of a listener to its gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// Name of the listener.
    pub(crate) name: &'a str,
    pub(crate) transport: Transport,
    /// The port that the spec names; `None` if the gateway chooses.
    pub(crate) port: Option<u16>,
    /// The port that the gateway chose, if it did.
    pub(crate) allocated: Option<u16>,
    /// Number of ports after the first.
    pub(crate) further: u16,
    /// TLS server names.
    pub(crate) hostnames: &'a [String],
}

impl<'a> Asked<'a> {
    /// The request in the spec of a listener.
    pub(crate) fn by(listener: &'a ValidListener) -> Self {
        Self {
            name: &listener.name,
            transport: listener.transport,
            port: listener.port,
            allocated: listener.held.as_ref().map(|held| held.port),
            further: listener.further,
            hostnames: &listener.names,
        }
    }

    /// The request of a running listener. `is_allocated` says whether the gateway chose its port.
    pub(crate) fn by_running(name: &'a str, listener: &'a Listener, is_allocated: bool) -> Self {
        let port = Some(listener.socket.port);
        let (port, allocated) = if is_allocated { (None, port) } else { (port, None) };
        Self {
            name,
            transport: listener.socket.transport,
            port,
            allocated,
            further: listener.further_ports(),
            hostnames: &listener.hostnames,
        }
    }
}
