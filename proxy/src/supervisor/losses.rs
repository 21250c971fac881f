//! Notices about datagrams that the system drops before the proxy reads them.

use proxy_api::ListenerId;

use super::notices::notice;
use crate::{
    log::{Level, Notice},
    net::UDP_BUFFER,
};

/// A notice of this many lost datagrams of a listener.
pub(super) fn about((id, lost): (ListenerId, u64)) -> Notice {
    let datagrams = proxy_api::count(lost, "datagram");
    let message = format!(
        "the system dropped {datagrams} because the receive buffer of a socket was full (reasons ReceiveBufferFull \
         and ReplyBufferFull of portlane_datagrams_dropped_total): for datagrams of clients, raise net.core.rmem_max of \
         the node to {UDP_BUFFER}; for replies, raise net.core.rmem_default; or give the proxy more CPU"
    );
    notice(Level::Warn, "datagrams_lost", id, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::fixtures::id;

    #[test]
    fn a_notice_has_the_count_and_what_to_raise() {
        let message = about((id("a"), 600)).message;
        assert!(message.contains("dropped 600 datagrams because"), "{message}");
        assert!(message.contains("ReplyBufferFull") && message.contains("rmem_default"), "{message}");
    }
}
