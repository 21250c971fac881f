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
    let message = format!(
        "{count} datagram(s) arrived for UDP ports without a socket in this network namespace, while UDP flows were \
         live: they are replies from a port other than the one that the request was sent to (as in TFTP), which are \
         dropped; replies after the end of their flow; or datagrams for other programs"
    );
    notice(Level::Info, "datagrams_without_port", "process", message)
}
