//! Which process holds an address that is in use, from the texts in Linux's `/proc`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proxy_api::Transport;

/// State of a listening TCP socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// The inode of a socket that a process has open.
pub type Inode = u64;

/// The sockets in a table such as `/proc/net/tcp6` that block this address.
#[must_use]
pub fn sockets(table: &str, transport: Transport, wanted: SocketAddr) -> Vec<Inode> {
    table.lines().skip(1).filter_map(|line| socket(line, transport, wanted)).collect()
}

fn socket(line: &str, transport: Transport, wanted: SocketAddr) -> Option<Inode> {
    let mut columns = line.split_ascii_whitespace().skip(1);
    let (ip, port) = columns.next()?.split_once(':')?;
    // The address of the peer is of no interest.
    let state = columns.nth(1)?;
    let inode = columns.nth(5)?.parse().ok()?;
    let holds = match transport {
        Transport::Tcp => state == LISTENING,
        Transport::Udp => true,
    };
    let is_it = holds && u16::from_str_radix(port, 16).ok()? == wanted.port() && overlap(address(ip)?, wanted.ip());
    is_it.then_some(inode)
}

/// Whether a socket on one address blocks the same port of the other address.
fn overlap(held: IpAddr, wanted: IpAddr) -> bool {
    let (held, wanted) = (held.to_canonical(), wanted.to_canonical());
    let takes_all = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    held == wanted || takes_all(held, wanted) || takes_all(wanted, held)
}

/// An address as the kernel prints it: words of four bytes, each in the order of the machine.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut bytes = [0; 16];
            for (byte, value) in bytes.iter_mut().zip(words.iter().flatten()) {
                *byte = *value;
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// The socket that a link in `/proc/PID/fd` leads to.
#[must_use]
pub fn socket_of(link: &str) -> Option<Inode> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Describes a process. It chooses its name, which may have any bytes.
#[must_use]
pub fn words(pid: u32, name: &str) -> String {
    match name.trim_end_matches('\n').escape_debug().to_string() {
        name if name.is_empty() => format!("pid {pid}"),
        name => format!("pid {pid} ({name})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1 0000000000000000 100 0
   1: 00000000:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0000000000000000 100 0
   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 333 1 0000000000000000 20 4
   broken
";
    const TCP6: &str = "  sl  local_address remote_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 444 1 0 100 0
   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 555 1 0 100 0
";

    /// The kernel prints words in the order of the machine; these tables are from a little-endian one.
    fn found(table: &str, wanted: &str) -> Vec<Inode> {
        sockets(table, Transport::Tcp, wanted.parse().expect("an address"))
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_listening_socket_holds_its_address_and_a_wildcard_all_of_them() {
        for (table, wanted, holders) in [
            (TCP, "127.0.0.1:8080", vec![111]),
            (TCP, "0.0.0.0:8080", vec![111]),
            (TCP, "127.0.0.2:8080", vec![]),
            (TCP, "127.0.0.1:53", vec![222]),
            (TCP, "[::1]:53", vec![]),
            (TCP, "127.0.0.1:54", vec![]),
            (TCP6, "127.0.0.1:22", vec![444]),
            (TCP6, "[::1]:8080", vec![555]),
            (TCP6, "[::]:8080", vec![555]),
        ] {
            assert_eq!(found(table, wanted), holders, "{wanted}");
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn every_socket_of_a_udp_port_holds_it() {
        let wanted = "127.0.0.1:8080".parse().expect("an address");
        assert_eq!(sockets(TCP, Transport::Udp, wanted), [111, 333]);
    }

    #[test]
    fn links_that_are_no_socket_are_passed_over() {
        assert_eq!(socket_of("socket:[17]"), Some(17));
        for link in ["/dev/null", "pipe:[17]", "socket:[x]", "socket:[1"] {
            assert_eq!(socket_of(link), None, "{link}");
        }
    }

    #[test]
    fn a_name_cannot_write_to_the_terminal() {
        assert_eq!(words(7, "nginx\n"), "pid 7 (nginx)");
        assert_eq!(words(7, "\u{1b}[2J\n"), "pid 7 (\\u{1b}[2J)");
        assert_eq!(words(7, ""), "pid 7");
    }
}
