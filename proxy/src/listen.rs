//! Listening sockets of the HTTP endpoints, for both IP families where the host has both.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::net::is_absent;

/// Connections that may wait to be accepted; the system caps the number (`somaxconn`).
const BACKLOG: i32 = 128;

/// Listens on an address. `[::]` accepts IPv4 too, and becomes 0.0.0.0 on a host without IPv6.
///
/// # Errors
/// The address cannot be bound.
pub fn open(address: SocketAddr) -> io::Result<TcpListener> {
    open_with(address, bind)
}

fn open_with<T>(address: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match bind(address) {
        Err(error) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && is_absent(&error) => {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        result => result,
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, net::TcpStream};

    use rustix::io::Errno;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_address_of_both_families_accepts_ipv4() {
        let listener = open(address("[::]:0")).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connected");
        let (_, peer) = listener.accept().expect("accepted");
        assert_eq!(peer.ip().to_canonical(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn without_ipv6_the_address_of_both_families_is_that_of_ipv4_and_no_other_error_is_hidden() {
        let tried = |at: &str, error: Errno| {
            let tried = RefCell::new(Vec::new());
            let bind = |address: SocketAddr| {
                tried.borrow_mut().push(address.to_string());
                if address.is_ipv6() { Err(io::Error::from(error)) } else { Ok(()) }
            };
            let is_open = open_with(address(at), bind).is_ok();
            (tried.into_inner(), is_open)
        };
        for error in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            assert_eq!(tried("[::]:9180", error), (vec!["[::]:9180".to_owned(), "0.0.0.0:9180".to_owned()], true));
        }
        assert_eq!(tried("[::]:9180", Errno::ADDRINUSE), (vec!["[::]:9180".to_owned()], false));
        assert_eq!(tried("[::1]:9180", Errno::ADDRNOTAVAIL), (vec!["[::1]:9180".to_owned()], false));
    }
}
