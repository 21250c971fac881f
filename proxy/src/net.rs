//! Opening sockets, with the options that must be set before they are used.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

use proxy_api::{Bind, FailureReason, SocketKey, Transport};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections that the kernel completes before they are accepted; the system caps it (`somaxconn`).
const BACKLOG: i32 = 4096;
/// Bytes of a connection that may wait unsent in the kernel.
const UNSENT_BYTES: u32 = 128 * 1024;
/// Receive buffer asked for on UDP listeners, bytes.
const UDP_BUFFER: usize = 4 << 20;

/// One open socket of the operating system.
#[derive(Clone, Debug)]
pub enum OsSocket {
    /// A listening TCP socket.
    Tcp(Arc<TcpListener>),
    /// A bound UDP socket.
    Udp(Arc<UdpSocket>),
}

/// A socket that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("bind {address}/{transport}: {why}")]
pub struct BindError {
    address: SocketAddr,
    transport: Transport,
    why: String,
    /// One word for reports.
    pub reason: FailureReason,
}

impl BindError {
    fn new(address: SocketAddr, transport: Transport, error: &io::Error) -> Self {
        let (reason, why) = match error.kind() {
            io::ErrorKind::AddrInUse => {
                (FailureReason::AddressInUse, "address in use: stop what holds it, or choose another port".to_owned())
            }
            io::ErrorKind::PermissionDenied => (
                FailureReason::PermissionDenied,
                "permission denied: ports below net.ipv4.ip_unprivileged_port_start need a privilege; choose a higher \
                 port or lower that setting"
                    .to_owned(),
            ),
            _ => (FailureReason::BindFailed, error.to_string()),
        };
        Self { address, transport, why, reason }
    }
}

/// Opens the sockets that a key stands for: one or two, all or none.
///
/// The first bind is exclusive: two processes of one user that share a port by `SO_REUSEPORT` would silently share its
/// connections. `beside` are sockets of ours on other addresses of the same port; they and the new ones share it for
/// the moment of the bind.
///
/// # Errors
/// The first address that could not be bound.
pub fn open(key: SocketKey, beside: &[OsSocket]) -> Result<Vec<OsSocket>, BindError> {
    open_as(key, beside, Purpose::Serve)
}

/// Takes the addresses of a key without letting anybody in: [`listen`] does. A UDP socket receives from now on, as the system
/// knows nothing between.
///
/// # Errors
/// The first address that could not be bound.
pub fn reserve(key: SocketKey, beside: &[OsSocket]) -> Result<Vec<OsSocket>, BindError> {
    open_as(key, beside, Purpose::Reserve)
}

/// Lets connections in on sockets that were reserved.
///
/// # Errors
/// Somebody else listens there by now.
pub fn listen(key: SocketKey, sockets: &[OsSocket], beside: &[OsSocket]) -> Result<(), BindError> {
    // The system looks once more at who has the port.
    let before: Vec<bool> = beside.iter().map(|socket| share(socket, true)).collect();
    let listen = |socket: &OsSocket| {
        let OsSocket::Tcp(listener) = socket else { return Ok(()) };
        let own = share(socket, !beside.is_empty());
        let result = SockRef::from(&**listener).listen(BACKLOG);
        share(socket, own);
        let address = listener.local_addr().unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, key.port)));
        result.map_err(|error| BindError::new(address, key.transport, &error))
    };
    let result = sockets.iter().try_for_each(listen);
    for (socket, before) in beside.iter().zip(before) {
        share(socket, before);
    }
    result
}

/// What a socket is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Serve,
    /// To have it, whether or not it will be served.
    Reserve,
}

fn open_as(key: SocketKey, beside: &[OsSocket], purpose: Purpose) -> Result<Vec<OsSocket>, BindError> {
    let before: Vec<bool> = beside.iter().map(|socket| share(socket, true)).collect();
    let bind = |address| bind(key.transport, address, !beside.is_empty(), purpose);
    let opened = match key.bind {
        Bind::Loopback => open_loopback(key, bind),
        Bind::All => open_all(key, bind),
    };
    for (socket, before) in beside.iter().zip(before) {
        share(socket, before);
    }
    for socket in opened.iter().flatten() {
        share(socket, false);
    }
    opened
}

/// A further socket on the address of one of ours, so that another worker accepts from a queue of its own. From now on
/// both share the port: the kernel spreads connections over sockets only while they say so.
///
/// # Errors
/// As `bind(2)`.
pub fn open_shard(socket: &TcpListener) -> io::Result<OsSocket> {
    let address = socket.local_addr()?;
    SockRef::from(socket).set_reuse_port(true)?;
    bind(Transport::Tcp, address, true, Purpose::Serve)
}

/// 127.0.0.1, and `::1` where the machine has it.
fn open_loopback(
    key: SocketKey,
    bind: impl Fn(SocketAddr) -> io::Result<OsSocket>,
) -> Result<Vec<OsSocket>, BindError> {
    let fail = |address, error: io::Error| BindError::new(address, key.transport, &error);
    let four = SocketAddr::from((Ipv4Addr::LOCALHOST, key.port));
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, key.port));
    let mut opened = vec![bind(four).map_err(|error| fail(four, error))?];
    match bind(six) {
        Ok(socket) => opened.push(socket),
        Err(error) if is_absent(&error) => {}
        Err(error) => return Err(fail(six, error)),
    }
    Ok(opened)
}

/// `[::]` for both families, or 0.0.0.0 where there is no IPv6.
fn open_all(key: SocketKey, bind: impl Fn(SocketAddr) -> io::Result<OsSocket>) -> Result<Vec<OsSocket>, BindError> {
    let six = SocketAddr::from((Ipv6Addr::UNSPECIFIED, key.port));
    let four = SocketAddr::from((Ipv4Addr::UNSPECIFIED, key.port));
    let (address, result) = match bind(six) {
        Err(error) if is_absent(&error) => (four, bind(four)),
        result => (six, result),
    };
    result.map(|socket| vec![socket]).map_err(|error| BindError::new(address, key.transport, &error))
}

/// Whether the machine does not have this address or family at all.
fn is_absent(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let absent = [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT, Errno::PROTONOSUPPORT];
    error.raw_os_error().is_some_and(|code| absent.iter().any(|errno| errno.raw_os_error() == code))
}

/// Lets others of ours bind beside this socket, or not; returns how it was.
fn share(socket: &OsSocket, on: bool) -> bool {
    let socket = match socket {
        OsSocket::Tcp(socket) => SockRef::from(&**socket),
        OsSocket::Udp(socket) => SockRef::from(&**socket),
    };
    let before = socket.reuse_port().unwrap_or(false);
    // Fails only on a closed socket, which the bind that follows would tell.
    let _ = socket.set_reuse_port(on);
    before
}

fn bind(transport: Transport, address: SocketAddr, shared: bool, purpose: Purpose) -> io::Result<OsSocket> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    match transport {
        Transport::Tcp => {
            socket.set_reuse_address(true)?;
            // Accepted sockets inherit these, which saves their calls on every connection.
            socket.set_tcp_nodelay(true)?;
            set_stream_options(&SockRef::from(&socket));
            socket.bind(&address.into())?;
            if purpose == Purpose::Serve {
                socket.listen(BACKLOG)?;
            }
            Ok(OsSocket::Tcp(Arc::new(socket.into())))
        }
        Transport::Udp => {
            // The system may give less; it never refuses.
            let _ = socket.set_recv_buffer_size(UDP_BUFFER);
            socket.bind(&address.into())?;
            Ok(OsSocket::Udp(Arc::new(socket.into())))
        }
    }
}

/// Options of both ends of a session; without one of them a session still works.
pub fn set_stream_options(socket: &SockRef<'_>) {
    // What follows urgent data is not held back by it.
    let _ = socket.set_out_of_band_inline(true);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
    #[cfg(not(target_os = "linux"))]
    let _ = UNSENT_BYTES;
}

/// Finds dead peers: probes after `seconds` of quiet, then every 15 seconds, four in all.
pub fn set_keepalive(socket: &SockRef<'_>, seconds: u32) {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(seconds.into()))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// A socket for one connection to an endpoint.
///
/// `SO_REUSEADDR` lets a listener that starts later take the port that the system picks for this connection.
///
/// # Errors
/// The system has no socket to give.
pub fn upstream_tcp(to: SocketAddr, keepalive_seconds: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    let options = SockRef::from(&socket);
    set_stream_options(&options);
    set_keepalive(&options, keepalive_seconds);
    Ok(socket)
}

/// A connected socket for one UDP flow.
///
/// # Errors
/// As `socket(2)` and `connect(2)`.
pub fn upstream_udp(to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// An address so many ports further on; one that would lead beyond 65535 is refused when the listener is compiled.
#[must_use]
pub fn shifted(address: SocketAddr, offset: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port().saturating_add(offset))
}

/// Whether an address is one of this machine's own, as the routing table has it. No packet is sent.
#[must_use]
pub fn is_own_address(ip: IpAddr) -> bool {
    if ip.is_loopback() || ip.is_unspecified() {
        return true;
    }
    let any: SocketAddr =
        if ip.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let local = UdpSocket::bind(any).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    local.is_ok_and(|local| local.ip() == ip)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

    use super::*;

    /// Sockets on loopback, on a port that outgoing connections of others are not given.
    fn opened(transport: Transport) -> (SocketKey, Vec<OsSocket>) {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let start = u16::try_from(std::process::id() % 4000).expect("small");
        (0..1000)
            .map(|_| 5000 + start + NEXT.fetch_add(1, Relaxed) % 1000)
            .map(|port| SocketKey { transport, bind: Bind::Loopback, port })
            .find_map(|key| open(key, &[]).ok().map(|sockets| (key, sockets)))
            .expect("a free port")
    }

    #[test]
    fn a_taken_port_says_in_use_also_among_sockets_of_one_user() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let (key, first) = opened(transport);
            let error = open(key, &[]).expect_err("taken");
            assert_eq!(error.reason, FailureReason::AddressInUse, "{error}");
            drop(first);
            open(key, &[]).expect("free again");
        }
    }

    #[test]
    fn all_opens_beside_loopback_of_our_own_and_not_beside_a_stranger() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let (narrow, ours) = opened(transport);
            let wide = SocketKey { bind: Bind::All, ..narrow };
            open(wide, &[]).expect_err("as a stranger");
            drop(open(wide, &ours).expect("as ours"));
            let reserved = reserve(wide, &ours).expect("as ours");
            listen(wide, &reserved, &ours).expect("as ours");
        }
    }

    #[test]
    fn own_addresses_are_known() {
        assert!(is_own_address(Ipv4Addr::LOCALHOST.into()));
        assert!(is_own_address(Ipv4Addr::new(127, 3, 2, 1).into()));
        assert!(!is_own_address(Ipv4Addr::new(192, 0, 2, 77).into()));
    }
}
