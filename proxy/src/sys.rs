//! System calls that portable libraries lack: the only module with `unsafe` or platform-specific code.
//!
//! Every call has a fallback, so that the proxy builds and works on other systems.

mod pool;
#[cfg(target_os = "linux")]
mod receive;
mod socket;
#[cfg(target_os = "linux")]
mod write_back;

use std::{
    fs::File,
    io::{self, IoSliceMut},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
};

use quinn_udp::UdpSocketState;
use tokio::io::{Interest, unix::AsyncFd};

pub use self::{pool::Pool, socket::Socket};
use crate::core::udp::batch::Received;

/// Accepts a connection as a non-blocking socket, in one system call.
///
/// # Errors
/// As `accept(2)`.
#[cfg(target_os = "linux")]
pub fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    use rustix::net::{SocketFlags, acceptfrom_with};
    let (socket, peer) = acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((TcpStream::from(socket), peer.ok_or(io::ErrorKind::ConnectionAborted)?))
}

/// Accepts a connection as a non-blocking socket.
///
/// # Errors
/// As `accept(2)`.
#[cfg(not(target_os = "linux"))]
pub fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = listener.accept()?;
    socket.set_nonblocking(true)?;
    Ok((socket, peer))
}

/// A socket whose descriptor stays open and the same until it is dropped. Nothing else can claim that of itself.
pub trait Steady: AsRawFd + sealed::Sealed {}

impl Steady for TcpListener {}
impl Steady for UdpSocket {}

mod sealed {
    /// Keeps others from implementing a trait.
    pub trait Sealed {}

    impl Sealed for std::net::TcpListener {}
    impl Sealed for std::net::UdpSocket {}
}

/// Watches a shared socket for readability, on the runtime of this thread.
///
/// # Errors
/// As `epoll_ctl(2)`, `kevent(2)`.
#[allow(unsafe_code, reason = "the runtime needs a descriptor that stays open; see the invariant")]
pub fn watch<T: Steady>(socket: Arc<T>) -> io::Result<AsyncFd<Arc<T>>> {
    // SAFETY: the descriptor must stay open and the same while it is watched. It is owned by the socket in the `Arc`,
    // which the `AsyncFd` keeps, and sockets that are `Steady` never change or close theirs before they are dropped.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(Into::into)
}

/// Bytes written to a TCP socket that its peer has not acknowledged.
#[must_use]
pub fn unacknowledged(socket: &impl AsFd) -> usize {
    imp::unacknowledged(socket)
}

/// Whether urgent data begins at the next byte of a TCP socket. A splice does not pass that place (`tcp(7)`).
#[must_use]
pub fn is_at_mark(socket: &impl AsFd) -> bool {
    imp::is_at_mark(socket)
}

/// State for batches of datagrams on this socket. The socket tells the local address and the hop limit of each datagram and
/// joins trains of datagrams; large datagrams may be fragmented, which `quinn-udp` disables for QUIC.
///
/// # Errors
/// As `socket(2)` and `setsockopt(2)`.
pub fn datagrams(socket: &UdpSocket) -> io::Result<UdpSocketState> {
    imp::datagrams(socket)
}

/// Receives what waits at a socket, an entry for each slice. Returns the number of entries. Systems other than Linux tell no
/// hop limit.
///
/// # Errors
/// As `recvmmsg(2)`.
pub fn receive<const SLOTS: usize>(
    state: &UdpSocketState,
    socket: &impl AsFd,
    slices: &mut [IoSliceMut<'_>; SLOTS],
    received: &mut [Received; SLOTS],
) -> io::Result<usize> {
    imp::receive(state, socket, slices, received)
}

/// Whether a batch of datagrams that is shorter than it could be has found the socket empty. Other systems return one
/// datagram at a time.
pub const SHORT_BATCH_IS_LAST: bool = cfg!(target_os = "linux");

/// Lets the system give datagrams one by one again, after a forwarder had it join them.
pub fn split_datagrams(socket: &impl AsFd) {
    imp::split_datagrams(socket);
}

/// Datagrams that the system has dropped at this socket, as a rule because its receive buffer was full. Wraps around.
/// `None` if the kernel does not report it; 0 would look like new losses later.
#[must_use]
pub fn dropped(socket: &impl AsFd) -> Option<u32> {
    imp::dropped(socket)
}

/// Bytes in the buffers of a socket, with what the system needs around them: as they count towards the memory of a
/// control group. 0 if the system does not tell.
#[must_use]
pub fn buffered(socket: &impl AsFd) -> u64 {
    imp::buffered(socket)
}

/// Makes a connected UDP socket report every ICMP error. Without, the system reports none of a host or network that is
/// unreachable. Each error then also waits in a queue of the socket, until [`drop_errors`].
pub fn report_errors(socket: &impl AsFd) {
    imp::report_errors(socket);
}

/// Empties the queue of ICMP errors, which takes room of the receive buffer and keeps the socket in an error state. To be
/// called after a read, because the system forgets an unread error with the last of the queue.
pub fn drop_errors(socket: &impl AsFd) {
    imp::drop_errors(socket);
}

/// Joins received datagrams of one sender and one size to trains, where the system can. Sizes of datagrams are then known
/// only to those who receive batches with their metadata.
pub fn join_datagrams(socket: &impl AsFd) {
    imp::join_datagrams(socket);
}

/// Sends a train on a connected socket, in datagrams of `segment` bytes of which the last may be shorter. A kernel without
/// trains would send one large datagram: ask [`UdpSocketState::max_gso_segments`] first.
///
/// # Errors
/// As `sendmsg(2)`. `EINVAL`, `EMSGSIZE` or `EIO` mean that this train cannot be sent; the datagrams may be sent alone.
pub fn send_train(socket: &impl AsFd, bytes: &[u8], segment: u16) -> io::Result<()> {
    imp::send_train(socket, bytes, segment)
}

/// Makes a socket refuse datagrams that are larger than the path takes, instead of sending them in fragments. Returns
/// false, without effect, on a socket that marks no datagram (`net.ipv4.ip_no_pmtu_disc`).
///
/// The system marks a datagram as not to be fragmented on its way if it fits into one packet. It takes the size of a
/// train for that of a datagram, unless fragments are forbidden.
pub fn forbid_fragments(socket: &impl AsFd) -> bool {
    imp::forbid_fragments(socket)
}

/// Undoes [`forbid_fragments`].
pub fn allow_fragments(socket: &impl AsFd) {
    imp::allow_fragments(socket);
}

/// Has the system begin to write the first `count` bytes of a file to its disk, without waiting for them.
///
/// # Errors
/// As `sync_file_range(2)`: bytes may be lost, as after a failed sync. `Unsupported` on systems other than Linux.
pub fn begin_write_back(file: &File, count: u64) -> io::Result<()> {
    imp::begin_write_back(file, count)
}

pub use imp::{Pipe, splice_in, splice_out};

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "setsockopt and ioctl with a c_int; each call states its invariant")]
mod imp {
    use std::{
        io::{self, IoSlice},
        net::UdpSocket,
        os::fd::{AsFd, AsRawFd, OwnedFd},
    };

    use quinn_udp::{UdpSockRef, UdpSocketState};
    use rustix::{
        net::{RecvFlags, recv},
        pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
    };
    use socket2::{Domain, MsgHdr, Protocol, SockRef, Socket, Type};

    use super::receive::CONTROL_HEADER;
    pub(super) use super::receive::receive;
    pub(super) use super::write_back::begin_write_back;

    /// Option of `linux/socket.h` that reads the memory counters of a socket, which libc lacks on some targets.
    const SO_MEMINFO: libc::c_int = 55;
    /// Number of the counters, and their positions (`linux/sock_diag.h`): memory of what is received, of what is on its way
    /// to a device or to the receiver, of what is to be sent or acknowledged; and drops.
    const COUNTERS: usize = 9;
    const RECEIVED: usize = 0;
    const ON_ITS_WAY: usize = 2;
    const TO_SEND: usize = 5;
    const DROPS: usize = 8;
    /// Errors that are taken from the queue of a socket at a time. The system reports those that remain again.
    const ERRORS_AT_ONCE: usize = 64;

    /// Bytes of a control message with a value of two bytes, aligned.
    const CONTROL_BYTES: usize = CONTROL_HEADER + size_of::<usize>();

    pub(super) fn unacknowledged(socket: &impl AsFd) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open while `socket` is borrowed; SIOCOUTQ writes one c_int to a valid place.
        let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
    }

    /// `libc` does not have it for every target; `asm-generic/sockios.h` does, for all architectures of the images.
    const SIOCATMARK: libc::Ioctl = 0x8905;

    pub(super) fn is_at_mark(socket: &impl AsFd) -> bool {
        let mut is_at_mark: libc::c_int = 0;
        // SAFETY: the descriptor is open while `socket` is borrowed; SIOCATMARK writes one c_int to a valid place.
        let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCATMARK, &raw mut is_at_mark) };
        result == 0 && is_at_mark != 0
    }

    pub(super) fn datagrams(socket: &UdpSocket) -> io::Result<UdpSocketState> {
        let address = socket.local_addr()?;
        // `quinn-udp` turns timestamps on, which then costs every packet of the node and cannot be undone before the
        // socket is closed. So it gets a socket of its own, and this one only the options that a forwarder uses.
        let other = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        let state = UdpSocketState::new(UdpSockRef::from(&other))?;
        if address.is_ipv4() {
            set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        } else {
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        }
        join_datagrams(socket);
        // An option of the other address family fails without effect. A socket of IPv6 may get datagrams of IPv4, too.
        let _ = set(socket, libc::IPPROTO_IP, libc::IP_RECVTTL, 1);
        let _ = set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1);
        let _ = set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT);
        let _ = set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT);
        Ok(state)
    }

    pub(super) fn dropped(socket: &impl AsFd) -> Option<u32> {
        counters(socket).map(|counters| counters[DROPS])
    }

    pub(super) fn buffered(socket: &impl AsFd) -> u64 {
        let Some(counters) = counters(socket) else { return 0 };
        // What TCP has on its way shares the memory of what it keeps until that is acknowledged.
        u64::from(counters[RECEIVED]) + u64::from(counters[ON_ITS_WAY].max(counters[TO_SEND]))
    }

    /// The memory counters of a socket. `None` if the system does not have them all.
    fn counters(socket: &impl AsFd) -> Option<[u32; COUNTERS]> {
        let mut counters = [0_u32; COUNTERS];
        let mut length = libc::socklen_t::try_from(size_of_val(&counters)).unwrap_or(0);
        // SAFETY: the descriptor is open while `socket` is borrowed; the system writes at most `length` bytes.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                SO_MEMINFO,
                (&raw mut counters).cast(),
                &raw mut length,
            )
        };
        // An old system has fewer counters.
        let is_told = result == 0 && usize::try_from(length).is_ok_and(|length| length == size_of_val(&counters));
        is_told.then_some(counters)
    }

    pub(super) fn report_errors(socket: &impl AsFd) {
        // An option of the other address family fails without effect.
        let _ = set(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1);
        let _ = set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1);
    }

    pub(super) fn drop_errors(socket: &impl AsFd) {
        let mut start = [0_u8; 1];
        for _ in 0..ERRORS_AT_ONCE {
            if recv(socket, &mut start, RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT).is_err() {
                return;
            }
        }
    }

    pub(super) fn join_datagrams(socket: &impl AsFd) {
        // Old systems join no datagrams.
        let _ = set(socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    }

    pub(super) fn split_datagrams(socket: &impl AsFd) {
        // Old systems join no datagrams.
        let _ = set(socket, libc::SOL_UDP, libc::UDP_GRO, 0);
    }

    pub(super) fn send_train(socket: &impl AsFd, bytes: &[u8], segment: u16) -> io::Result<()> {
        let mut control = [0; CONTROL_BYTES];
        let length = (CONTROL_HEADER + size_of::<u16>()).to_ne_bytes();
        let kind = libc::SOL_UDP.to_ne_bytes().into_iter().chain(libc::UDP_SEGMENT.to_ne_bytes());
        let message = length.into_iter().chain(kind).chain(segment.to_ne_bytes());
        for (to, byte) in control.iter_mut().zip(message) {
            *to = byte;
        }
        let parts = [IoSlice::new(bytes)];
        let message = MsgHdr::new().with_buffers(&parts).with_control(&control);
        SockRef::from(socket).sendmsg(&message, 0)?;
        Ok(())
    }

    pub(super) fn forbid_fragments(socket: &impl AsFd) -> bool {
        let is_default = get(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER) == Some(libc::IP_PMTUDISC_WANT);
        is_default && set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO).is_ok()
    }

    pub(super) fn allow_fragments(socket: &impl AsFd) {
        // A socket that knows the option takes the value that it had before.
        let _ = set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT);
    }

    /// Reads an option.
    fn get(socket: &impl AsFd, level: libc::c_int, name: libc::c_int) -> Option<libc::c_int> {
        let mut value: libc::c_int = 0;
        let mut length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: the descriptor is open while `socket` is borrowed; the system writes at most `length` bytes, one c_int.
        let result = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length) };
        (result == 0).then_some(value)
    }

    /// Sets an option.
    fn set(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: the descriptor is open while `socket` is borrowed; the value is one c_int of the stated length.
        let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// A kernel pipe that passes bytes without a copy through user space.
    #[derive(Debug)]
    pub struct Pipe {
        read: OwnedFd,
        write: OwnedFd,
        /// Capacity in bytes.
        pub size: usize,
    }

    impl Pipe {
        /// A pipe of `size` bytes; fails if the user's pipe budget allows only a smaller one.
        ///
        /// # Errors
        /// As `pipe2(2)` and `F_SETPIPE_SZ`.
        pub fn new(size: usize) -> io::Result<Self> {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            let size = fcntl_setpipe_size(&write, size)?;
            Ok(Self { read, write, size })
        }
    }

    const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

    /// Moves at most `most` bytes from a socket into an empty pipe.
    ///
    /// # Errors
    /// As `splice(2)`; `InvalidInput` means that this socket cannot be spliced.
    pub fn splice_in(socket: &impl AsFd, pipe: &Pipe, most: usize) -> io::Result<usize> {
        Ok(splice(socket, None, &pipe.write, None, pipe.size.min(most), FLAGS)?)
    }

    /// Moves `length` bytes from a pipe to a socket.
    ///
    /// # Errors
    /// As `splice(2)`.
    pub fn splice_out(pipe: &Pipe, socket: &impl AsFd, length: usize) -> io::Result<usize> {
        Ok(splice(&pipe.read, None, socket, None, length, FLAGS)?)
    }
}

#[cfg(not(target_os = "linux"))]
#[path = "sys/portable.rs"]
mod imp;

#[cfg(all(test, target_os = "linux"))]
mod tests;
