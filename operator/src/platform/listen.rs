//! Addresses of the operator: listening for both IP families and at a unix socket, and names in `HOST:PORT`.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::FileTypeExt as _,
    path::Path,
};

use tokio::net::{TcpListener, UnixListener};

/// Listens on an address. `[::]` accepts IPv4 too (`net.ipv6.bindv6only` is 0 in every new network namespace), and
/// becomes 0.0.0.0 on a host without IPv6.
///
/// # Errors
/// The address cannot be bound.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    let instead = bound.as_ref().err().and_then(|error| instead(address, error.kind()));
    match instead {
        Some(address) => TcpListener::bind(address).await,
        None => bound,
    }
}

/// Listens on a unix socket; replaces the socket of an earlier process, and no other file.
///
/// # Errors
/// The socket cannot be replaced or bound, or another file has the path.
pub fn listen_at(path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// The address to bind after binding another one failed. A port that is taken or forbidden fails for IPv4 too; every
/// other failure to bind `[::]` means that the host lacks IPv6.
fn instead(address: SocketAddr, error: io::ErrorKind) -> Option<SocketAddr> {
    let lacks_ipv6 = !matches!(error, io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied);
    let is_every_address = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    (is_every_address && lacks_ipv6).then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
}

/// The host in `HOST:PORT`: a name, or an IP address without brackets.
#[must_use]
pub fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_socket_replaces_the_one_of_an_earlier_process_and_no_other_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        drop(listen_at(&path).expect("listens"));
        listen_at(&path).expect("listens again");
        let file = folder.path().join("file");
        fs::write(&file, "precious").expect("a file");
        listen_at(&file).expect_err("a file has the path");
        assert_eq!(fs::read_to_string(&file).expect("the file"), "precious");
    }

    #[tokio::test]
    async fn the_address_of_both_families_accepts_ipv4() {
        let listener = listen("[::]:0".parse().expect("an address")).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connected = tokio::join!(listener.accept(), TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
        connected.0.expect("accepted");
        connected.1.expect("connected");
    }

    #[test]
    fn without_ipv6_the_address_of_both_families_is_that_of_ipv4() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let absent = [io::ErrorKind::AddrNotAvailable, io::ErrorKind::Unsupported, io::ErrorKind::Other];
        for error in absent {
            assert_eq!(instead(address("[::]:9443"), error), Some(address("0.0.0.0:9443")), "{error:?}");
        }
        for error in [io::ErrorKind::AddrInUse, io::ErrorKind::PermissionDenied] {
            assert_eq!(instead(address("[::]:9443"), error), None, "{error:?}");
        }
        for named in ["[::1]:9443", "0.0.0.0:9443", "127.0.0.1:9443"] {
            assert_eq!(instead(address(named), io::ErrorKind::AddrNotAvailable), None, "{named}");
        }
    }

    #[test]
    fn the_host_of_an_address_has_neither_port_nor_brackets() {
        assert_eq!(host("portlane-operator.portlane.svc:9443"), "portlane-operator.portlane.svc");
        assert_eq!(host("192.0.2.7:9443"), "192.0.2.7");
        assert_eq!(host("[2001:db8::7]:9443"), "2001:db8::7");
        assert_eq!(host("operator"), "operator");
    }
}
