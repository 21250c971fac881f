//! Which ports are open, without a connection to them.

use std::{collections::BTreeSet, fs};

/// The state of a socket that listens, in the table of the system.
const LISTEN: &str = "0A";

/// Ports on which something listens, on IPv4.
pub(super) fn listening() -> BTreeSet<u16> {
    ports(&fs::read_to_string("/proc/net/tcp").expect("the table of sockets"))
}

/// Local ports of the sockets that listen.
fn ports(table: &str) -> BTreeSet<u16> {
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next()?, words.nth(1)?);
        let (_, port) = local.rsplit_once(':')?;
        if state == LISTEN { u16::from_str_radix(port, 16).ok() } else { None }
    };
    table.lines().filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_that_listen_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n   \
                     0: 0100007F:1B59 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n   \
                     1: 0100007F:1B5A 0100007F:4E20 01 00000000:00000000 00:00000000 00000000     0\n";
        assert_eq!(ports(table), BTreeSet::from([7001]));
    }
}
