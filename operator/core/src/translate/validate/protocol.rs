//! Protocols of listeners.

use proxy_api::Transport;

/// Returns the transport of a protocol: TLS is passed through over TCP.
pub(crate) fn transport(protocol: crds::Protocol) -> Transport {
    match protocol {
        crds::Protocol::Tcp | crds::Protocol::Tls => Transport::Tcp,
        crds::Protocol::Udp => Transport::Udp,
    }
}
