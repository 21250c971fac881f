//! Looks up which process holds an address, as far as this process may know. Only Linux supports this.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    net::SocketAddr,
    path::Path,
};

use proxy_api::Transport;

use crate::core::ports::holder::{self, Inode};

/// Most bytes of a table of sockets: about 50,000 sockets.
const MOST_TABLE_BYTES: u64 = 8 << 20;
/// Most open files of all processes that are examined, so that the search takes no more than a fraction of a second.
const MOST_FILES: usize = 50_000;
/// Most bytes of the name of a process, which the kernel cuts to 15.
const MOST_NAME_BYTES: u64 = 64;

/// Describes the processes that hold these addresses, by the position of the address in `wanted`. A process that
/// belongs to another user or container is not found, nor is any if there is too much to search.
#[must_use]
pub(crate) fn find(wanted: &[(SocketAddr, Transport)]) -> BTreeMap<usize, String> {
    let mut holders = BTreeMap::new();
    if cfg!(not(target_os = "linux")) || wanted.is_empty() {
        return holders;
    }
    let mut sockets: BTreeMap<Inode, Vec<usize>> = BTreeMap::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        for table in tables(transport) {
            for (at, (address, _)) in wanted.iter().enumerate().filter(|(_, wanted)| wanted.1 == transport) {
                for inode in holder::sockets(&table, transport, *address) {
                    sockets.entry(inode).or_default().push(at);
                }
            }
        }
    }
    if sockets.is_empty() {
        return holders;
    }
    let mut left = MOST_FILES;
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // The files of another user's process cannot be listed.
        for file in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            left = left.saturating_sub(1);
            if left == 0 {
                return holders;
            }
            let link = fs::read_link(file.path()).ok();
            let inode = link.as_deref().and_then(Path::to_str).and_then(holder::socket_of);
            for at in inode.and_then(|inode| sockets.get(&inode)).into_iter().flatten() {
                holders.entry(*at).or_insert_with(|| words(pid, &process.path()));
            }
        }
    }
    holders
}

/// The tables of the sockets of a transport, for both families.
fn tables(transport: Transport) -> impl Iterator<Item = String> {
    let paths = match transport {
        Transport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Transport::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    paths.into_iter().filter_map(|path| read(Path::new(path), MOST_TABLE_BYTES))
}

fn words(pid: u32, process: &Path) -> String {
    holder::words(pid, &read(&process.join("comm"), MOST_NAME_BYTES).unwrap_or_default())
}

fn read(path: &Path, most_bytes: u64) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most_bytes).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn the_holder_of_a_port_is_this_test() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let wanted =
            [(tcp.local_addr().expect("bound"), Transport::Tcp), (udp.local_addr().expect("bound"), Transport::Udp)];
        let found = find(&wanted);
        let own = format!("pid {}", std::process::id());
        for at in [0, 1] {
            assert!(found.get(&at).is_some_and(|words| words.starts_with(&own)), "{at}: {found:?}");
        }
    }
}
