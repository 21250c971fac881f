//! Opens sockets and sets the options they need before use.

mod bind_error;
mod reachability;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use proxy_api::{Bind, SocketKey, Transport};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

pub use self::{bind_error::BindError, reachability::is_of_the_endpoint};
use crate::{core::limits::local_ports, sys};

/// Backlog of accepted connections; the system caps it (`somaxconn`).
const BACKLOG: i32 = 4096;
/// Bytes of a connection that may wait unsent in the kernel.
const UNSENT_BYTES: u32 = 128 * 1024;
/// Requested receive buffer of UDP listeners, in bytes; the system grants `net.core.rmem_max`.
pub const UDP_BUFFER: usize = 4 << 20;
/// Requested receive buffer of the socket of a UDP flow, in bytes: room for a burst of replies while the worker serves
/// others. The system grants `net.core.rmem_max`, and doubles it for its own bookkeeping, so a flow whose replies are not
/// read holds 512 KiB at most. The buffer takes memory only while replies wait. A larger `net.core.rmem_default` stays.
const FLOW_BUFFER: usize = 256 << 10;

/// An open socket.
#[derive(Clone, Debug)]
pub enum OsSocket {
    /// A listening TCP socket.
    Tcp(Arc<TcpListener>),
    /// A bound UDP socket.
    Udp(Arc<UdpSocket>),
}

impl OsSocket {
    /// Whether this is the only handle, so that the system closes the socket when it is dropped.
    #[must_use]
    pub fn is_last(&self) -> bool {
        match self {
            Self::Tcp(socket) => Arc::strong_count(socket) == 1,
            Self::Udp(socket) => Arc::strong_count(socket) == 1,
        }
    }
}

/// Opens the one or two sockets of a key, all or none.
///
/// The first bind is exclusive: if two processes of one user shared a port by `SO_REUSEPORT`, they would silently split
/// its connections. `beside` are our own sockets on other addresses of the same port; they share the port with the new
/// sockets during the bind.
///
/// # Errors
/// The first address that could not be bound.
pub fn open(key: SocketKey, beside: &[OsSocket]) -> Result<Vec<OsSocket>, BindError> {
    open_as(key, beside, Purpose::Serve)
}

/// Binds the addresses of a key but accepts no connections; [`listen`] does. A UDP socket receives as soon as it is
/// bound, because the system knows no state between.
///
/// # Errors
/// The first address that could not be bound.
pub fn reserve(key: SocketKey, beside: &[OsSocket]) -> Result<Vec<OsSocket>, BindError> {
    open_as(key, beside, Purpose::Reserve)
}

/// Accepts connections on reserved sockets.
///
/// # Errors
/// Another process has started to listen on the port.
pub fn listen(key: SocketKey, sockets: &[OsSocket], beside: &[OsSocket]) -> Result<(), BindError> {
    // `listen(2)` checks for conflicts again.
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

/// Purpose of a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Serve,
    /// Bound, but not listening yet.
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

/// Opens another socket on the address of one of ours, so that another worker serves its own queue. Both stay marked
/// `SO_REUSEPORT`: the kernel spreads connections and clients only over sockets with the option set.
///
/// # Errors
/// As `bind(2)`. The option is as before then, so that no other process can bind beside our socket.
pub fn open_shard(socket: &OsSocket) -> io::Result<OsSocket> {
    let (transport, address, options) = match socket {
        OsSocket::Tcp(socket) => (Transport::Tcp, socket.local_addr()?, SockRef::from(&**socket)),
        OsSocket::Udp(socket) => (Transport::Udp, socket.local_addr()?, SockRef::from(&**socket)),
    };
    beside(&options, || bind(transport, address, true, Purpose::Serve))
}

/// Opens a socket beside one of ours, which stays marked `SO_REUSEPORT` only if that succeeds.
fn beside<T>(ours: &SockRef<'_>, open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let before = ours.reuse_port()?;
    ours.set_reuse_port(true)?;
    open().inspect_err(|_| drop(ours.set_reuse_port(before)))
}

/// 127.0.0.1, and `::1` where present.
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

/// `[::]` for both families, or 0.0.0.0 without IPv6.
fn open_all(key: SocketKey, bind: impl Fn(SocketAddr) -> io::Result<OsSocket>) -> Result<Vec<OsSocket>, BindError> {
    let six = SocketAddr::from((Ipv6Addr::UNSPECIFIED, key.port));
    let four = SocketAddr::from((Ipv4Addr::UNSPECIFIED, key.port));
    let (address, result) = match bind(six) {
        Err(error) if is_absent(&error) => (four, bind(four)),
        result => (six, result),
    };
    result.map(|socket| vec![socket]).map_err(|error| BindError::new(address, key.transport, &error))
}

/// Whether the host lacks this address or family.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let absent = [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT, Errno::PROTONOSUPPORT];
    error.raw_os_error().is_some_and(|code| absent.iter().any(|errno| errno.raw_os_error() == code))
}

/// Sets whether our own sockets may bind beside this one; returns the previous setting.
pub fn share(socket: &OsSocket, on: bool) -> bool {
    let socket = match socket {
        OsSocket::Tcp(socket) => SockRef::from(&**socket),
        OsSocket::Udp(socket) => SockRef::from(&**socket),
    };
    let before = socket.reuse_port().unwrap_or(false);
    // Fails only on a closed socket, which the following bind would report.
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
            // Accepted sockets inherit these options, which saves system calls per connection.
            socket.set_tcp_nodelay(true)?;
            set_stream_options(&SockRef::from(&socket));
            socket.bind(&address.into())?;
            if purpose == Purpose::Serve {
                socket.listen(BACKLOG)?;
            }
            Ok(OsSocket::Tcp(Arc::new(socket.into())))
        }
        Transport::Udp => {
            // The system may grant less, but never refuses.
            let _ = socket.set_recv_buffer_size(UDP_BUFFER);
            socket.bind(&address.into())?;
            Ok(OsSocket::Udp(Arc::new(socket.into())))
        }
    }
}

/// Sets options of connections that may carry streams. They work without them.
pub fn set_stream_options(socket: &SockRef<'_>) {
    pass_urgent(socket);
    bound_unsent(socket);
}

/// Urgent data must not hold back the data after it.
fn pass_urgent(socket: &SockRef<'_>) {
    let _ = socket.set_out_of_band_inline(true);
}

/// Bounds the bytes of a connection that wait unsent in the kernel.
pub fn bound_unsent(socket: &SockRef<'_>) {
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, UNSENT_BYTES);
}

/// Enables keepalive to find dead peers: four probes, the first after `seconds` of silence, then every 15 seconds.
pub fn set_keepalive(socket: &SockRef<'_>, seconds: u32) {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(seconds.into()))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// A socket for one connection to an endpoint.
///
/// `SO_REUSEADDR` lets a later listener bind the ephemeral port of this connection. `TCP_NODELAY`, keepalive and
/// [`bound_unsent`] are for the caller: most connections end before they could matter.
///
/// # Errors
/// As `socket(2)`.
pub fn upstream_tcp(to: SocketAddr) -> io::Result<Socket> {
    let socket = nonblocking(to, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    pass_urgent(&SockRef::from(&socket));
    Ok(socket)
}

/// A socket that does not block, by one system call where there is one for it.
fn nonblocking(to: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    #[cfg(target_os = "linux")]
    let kind = kind.nonblocking();
    let socket = Socket::new(Domain::for_address(to), kind, Some(protocol))?;
    #[cfg(not(target_os = "linux"))]
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A connected socket for one UDP flow.
///
/// # Errors
/// As `socket(2)` and `connect(2)`.
pub fn upstream_udp(to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = nonblocking(to, Type::DGRAM, Protocol::UDP)?;
    sys::report_errors(&socket);
    if socket.recv_buffer_size().is_ok_and(|size| size < FLOW_BUFFER) {
        // The system may grant less, but never refuses.
        let _ = socket.set_recv_buffer_size(FLOW_BUFFER);
    }
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// Sets the hop limit of what a socket of [`upstream_udp`] sends to this address.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn set_hop_limit(socket: &impl AsFd, to: IpAddr, hops: u8) -> io::Result<()> {
    let socket = SockRef::from(socket);
    match to.to_canonical() {
        IpAddr::V4(_) => socket.set_ttl_v4(hops.into()),
        IpAddr::V6(_) => socket.set_unicast_hops_v6(hops.into()),
    }
}

/// How many local ports the system has for sockets that name none, such as those of [`upstream_udp`]; `None` where it
/// does not say. The range is that of IPv6 as well.
pub(crate) fn local_ports() -> Option<usize> {
    local_ports::count(&fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?)
}

/// Whether an address belongs to this host by the routing table. No packet is sent.
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

    use proxy_api::FailureReason;

    use super::*;

    /// Loopback sockets, on a port outside the ephemeral range.
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
            open(wide, &[]).expect_err("a foreign socket conflicts");
            drop(open(wide, &ours).expect("our own socket shares"));
            let reserved = reserve(wide, &ours).expect("our own socket shares");
            listen(wide, &reserved, &ours).expect("our own socket shares");
        }
    }

    #[test]
    fn shards_share_the_address_of_our_own_socket_and_a_stranger_does_not() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let (key, ours) = opened(transport);
            let _shards: Vec<OsSocket> = (0..3).map(|_| open_shard(&ours[0]).expect("our own socket shares")).collect();
            open(key, &[]).expect_err("taken");
        }
    }

    #[test]
    fn a_shard_that_cannot_be_opened_leaves_our_socket_exclusive() {
        let (_, sockets) = opened(Transport::Tcp);
        let OsSocket::Tcp(tcp) = &sockets[0] else { panic!("a TCP socket") };
        let ours = SockRef::from(&**tcp);
        let is_shared = || ours.reuse_port().expect("an option");
        beside(&ours, || Err::<(), _>(io::ErrorKind::OutOfMemory.into())).expect_err("no shard");
        assert!(!is_shared());
        let _shard = open_shard(&sockets[0]).expect("a shard");
        assert!(is_shared());
        beside(&ours, || Err::<(), _>(io::ErrorKind::OutOfMemory.into())).expect_err("no other shard");
        assert!(is_shared(), "for the shard that exists");
    }

    #[test]
    fn own_addresses_are_known() {
        assert!(is_own_address(Ipv4Addr::LOCALHOST.into()));
        assert!(is_own_address(Ipv4Addr::new(127, 3, 2, 1).into()));
        assert!(!is_own_address(Ipv4Addr::new(192, 0, 2, 77).into()));
    }
}
