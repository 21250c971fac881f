//! Reads how many datagrams have reached a UDP port without a socket, and logs it.

use std::fs;

use super::notices::notice;
use crate::{
    core::ports::no_ports,
    log::{Level, Notice},
};

/// The number of such datagrams in the network namespace of the proxy; `None` if the system does not report it.
pub(super) fn read() -> Option<u64> {
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    no_ports::count(&text("/proc/net/snmp"), &text("/proc/net/snmp6"))
}

/// A notice of this many datagrams.
pub(super) fn about(count: u64) -> Notice {
    let datagrams = proxy_api::count(count, "datagram");
    let message = format!(
        "{datagrams} arrived for UDP ports without a socket in this network namespace, while UDP flows were \
         live: nothing listens on the port of a backend in the network namespace of the proxy, such as a `local` one, \
         and each datagram to it counts; a server answers from a port other than the one that the request was sent \
         to, as TFTP does, or after the flow has ended; or the datagrams were for other programs"
    );
    notice(Level::Info, "datagrams_without_port", "process", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_does_not_listen_is_named_before_the_rarer_causes() {
        let message = about(200).message;
        let place = |words: &str| message.find(words).unwrap_or_else(|| panic!("{words} is not in {message}"));
        assert!(place("200 datagrams arrived") < place("nothing listens on the port of a backend"), "{message}");
        assert!(place("each datagram to it counts") < place("as TFTP does"), "{message}");
        assert!(place("after the flow has ended") < place("for other programs"), "{message}");
    }
}
