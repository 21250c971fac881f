//! System calls that portable libraries lack: the only module with `unsafe` or platform-specific code.
//!
//! Every call has a fallback, so that the proxy builds and works on other systems.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
};

use tokio::io::{Interest, unix::AsyncFd};

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

/// Watches a shared socket for readability, on the runtime of this thread.
///
/// # Errors
/// As `epoll_ctl(2)`, `kevent(2)`.
#[allow(unsafe_code, reason = "the runtime needs a descriptor that stays open; see the invariant")]
pub fn watch<T: AsFd + AsRawFd>(socket: Arc<T>) -> io::Result<AsyncFd<Arc<T>>> {
    // SAFETY: the descriptor must stay open and the same while it is watched. It is owned by the socket in the `Arc`,
    // which the `AsyncFd` keeps, and standard sockets never change or close theirs before they are dropped.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(Into::into)
}

/// Bytes written to a TCP socket that its peer has not acknowledged.
#[must_use]
pub fn unacknowledged(socket: &impl AsFd) -> usize {
    imp::unacknowledged(socket)
}

/// Allows IP fragmentation of large datagrams; `quinn-udp` disables it for QUIC.
pub fn allow_fragments(socket: &impl AsFd) {
    imp::allow_fragments(socket);
}

pub use imp::{Pipe, splice_in, splice_out};

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "setsockopt and ioctl with a c_int; each call states its invariant")]
mod imp {
    use std::{
        io,
        os::fd::{AsFd, AsRawFd, OwnedFd},
    };

    use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

    pub(super) fn unacknowledged(socket: &impl AsFd) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open while `socket` is borrowed; SIOCOUTQ writes one c_int to a valid place.
        let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
    }

    pub(super) fn allow_fragments(socket: &impl AsFd) {
        set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT);
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT);
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0);
    }

    /// Sets an option; one for the other address family fails without effect.
    fn set(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
        let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
        // SAFETY: the descriptor is open while `socket` is borrowed; the value is one c_int of the stated length.
        let _ = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), length) };
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
mod imp {
    use std::{io, os::fd::AsFd};

    pub(super) fn unacknowledged(_socket: &impl AsFd) -> usize {
        0
    }

    pub(super) fn allow_fragments(_socket: &impl AsFd) {}

    /// Stand-in on systems without splice.
    #[derive(Debug)]
    pub struct Pipe {
        /// Capacity in bytes.
        pub size: usize,
    }

    impl Pipe {
        /// Always fails, so that bytes are copied instead.
        ///
        /// # Errors
        /// `Unsupported`.
        pub fn new(_size: usize) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Never called.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn splice_in(_socket: &impl AsFd, _pipe: &Pipe, _most: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never called.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn splice_out(_pipe: &Pipe, _socket: &impl AsFd, _length: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream, UdpSocket},
    };

    use super::*;

    #[allow(clippy::expect_used, reason = "a test helper")]
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        (client, accept(&listener).expect("accept").0)
    }

    #[test]
    fn unacknowledged_counts_what_the_peer_has_not_taken_and_falls_to_zero() {
        let (mut client, server) = pair();
        client.set_nonblocking(true).expect("nonblocking");
        let chunk = vec![7_u8; 65536];
        let mut written = 0;
        while let Ok(n) = client.write(&chunk) {
            written += n;
        }
        assert!(unacknowledged(&client) > 0);
        server.set_nonblocking(false).expect("blocking");
        let mut server = server;
        let mut sink = vec![0; 65536];
        let mut read = 0;
        while read < written {
            read += server.read(&mut sink).expect("read");
        }
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while unacknowledged(&client) > 0 {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    #[test]
    fn bytes_pass_through_a_pipe() {
        let (mut client, server) = pair();
        let (mut far, near) = pair();
        let pipe = Pipe::new(65536).expect("pipe");
        client.write_all(b"hello").expect("write");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let moved = loop {
            match splice_in(&server, &pipe, usize::MAX) {
                Ok(n) => break n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(std::time::Instant::now() < deadline);
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(moved, 5);
        assert_eq!(splice_out(&pipe, &near, 5).expect("out"), 5);
        let mut got = [0; 5];
        far.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"hello");
    }

    #[test]
    fn fragments_are_allowed_on_either_family() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            if let Ok(socket) = UdpSocket::bind(address) {
                allow_fragments(&socket);
            }
        }
    }
}
