//! A TCP connection as its worker watches it.
//!
//! It is what tokio's `TcpStream` is, and watched for urgent data as well, so that a read that was not filled tells
//! that the socket is empty. Without, each such read would have to ask the system for bytes behind urgent data.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    pin::pin,
    task::{Context, Poll, Waker},
};

use rustix::io::ioctl_fionread;
use tokio::io::{Interest, Ready, unix::AsyncFd};

/// What a connection is watched for.
#[cfg(target_os = "linux")]
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
#[cfg(not(target_os = "linux"))]
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// A connection that is watched on the runtime of a thread until it is dropped.
#[derive(Debug)]
pub struct Socket(AsyncFd<TcpStream>);

impl Socket {
    /// Watches a non-blocking connection on the runtime of this thread. A connection that cannot be watched is closed.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`, `kevent(2)`.
    #[allow(unsafe_code, reason = "the runtime needs a descriptor that stays open; see the invariant")]
    pub fn watch(stream: TcpStream) -> io::Result<Self> {
        // SAFETY: the descriptor must stay open and the same while it is watched. It is owned by the `TcpStream` that
        // the `AsyncFd` keeps, which never changes or closes it before it is dropped; and nobody can exchange that one,
        // because the `AsyncFd` is private and this module never borrows it mutably.
        unsafe { AsyncFd::register_with_interest(stream, INTEREST) }.map(Self).map_err(Into::into)
    }

    /// Ready once there may be bytes, or the end of data; otherwise registers the waker for reading.
    ///
    /// # Errors
    /// The runtime has ended.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(cx).map_ok(|_| ())
    }

    /// Ready once there may be room for bytes; otherwise registers the waker for writing.
    ///
    /// # Errors
    /// The runtime has ended.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write_ready(cx).map_ok(|_| ())
    }

    /// Waits for one of these states and returns those that there are.
    ///
    /// # Errors
    /// The runtime has ended.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        self.0.ready(interest).await.map(|guard| guard.ready())
    }

    /// Reads what has arrived. If bytes are left, or the end of data has arrived, the connection stays ready for it.
    ///
    /// # Errors
    /// As `recv(2)`; `WouldBlock` without a system call if no event has reported bytes.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut last = 0;
        let result = self.0.try_io(Interest::READABLE, |mut stream| {
            let read = stream.read(into)?;
            if 0 < read && read < into.len() && self.is_emptied() {
                last = read;
                // Makes the runtime forget the event that led here, and no later one.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(read)
        });
        if last > 0 { Ok(last) } else { result }
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// As `send(2)`; `WouldBlock` without a system call if no event has reported room.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_io(Interest::WRITABLE, |mut stream| stream.write(bytes))
    }

    /// Runs a system call on the connection if an event has reported that it is ready for that. `WouldBlock` of the
    /// call makes the runtime wait for the next event.
    ///
    /// # Errors
    /// Those of the call, and `WouldBlock` without the call.
    pub fn try_io<T>(&self, interest: Interest, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.0.try_io(interest, |_| call())
    }

    /// Waits for bytes, or the end of data, and reads them without taking them.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub async fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        self.0.async_io(Interest::READABLE, |stream| stream.peek(into)).await
    }

    /// Waits until an attempt to connect has ended.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub async fn connected(&self) -> io::Result<()> {
        let ready = self.ready(Interest::WRITABLE).await?;
        // An attempt that fails closes the socket, and Linux reports that in the same event as room for bytes.
        if cfg!(target_os = "linux") && ready.is_writable() && !ready.is_write_closed() {
            return Ok(());
        }
        self.0.get_ref().take_error()?.map_or(Ok(()), Err)
    }

    /// Address of this end.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    /// Address of the peer.
    ///
    /// # Errors
    /// As `getpeername(2)`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().peer_addr()
    }

    /// Whether urgent data may end a read or a splice although bytes follow. False only if no event so far has reported
    /// urgent data, nor of the end of data, which the runtime does not tell apart from it; no system call.
    #[must_use]
    pub fn may_be_urgent(&self) -> bool {
        may_be_urgent(&self.0)
    }

    /// Whether a read that was not filled may end here. What arrives after the read brings an event of its own, and once
    /// the end of data has arrived, the connection stays ready for reading.
    fn is_emptied(&self) -> bool {
        !self.may_be_urgent() || self.has_end() || ioctl_fionread(self).is_ok_and(|bytes| bytes == 0)
    }

    /// Whether an event has reported the end of data. Nothing takes that readiness.
    fn has_end(&self) -> bool {
        let ready = pin!(self.0.ready(Interest::READABLE)).poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(guard)) if guard.ready().is_read_closed())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

/// Once reported, urgent data stays reported, because nothing takes that readiness.
#[cfg(target_os = "linux")]
fn may_be_urgent(watched: &AsyncFd<TcpStream>) -> bool {
    watched.try_io(Interest::PRIORITY, |_| Ok(())).is_ok()
}

/// Other systems tell nothing.
#[cfg(not(target_os = "linux"))]
fn may_be_urgent(_watched: &AsyncFd<TcpStream>) -> bool {
    true
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        net::{Shutdown, TcpListener},
        thread,
        time::{Duration, Instant},
    };

    use socket2::SockRef;
    use tokio::time::timeout;

    use super::*;

    /// Longest time for what a test waits for.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A connection of which one end is outside.
    #[allow(clippy::expect_used, reason = "a test helper")]
    fn connection() -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let outside = TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
        let (inside, _) = crate::sys::accept(&listener).expect("a connection");
        crate::net::set_stream_options(&SockRef::from(&inside));
        (outside, Socket::watch(inside).expect("a runtime"))
    }

    /// Waits until so many bytes have arrived. The runtime does not look at events meanwhile.
    #[allow(clippy::expect_used, reason = "a test helper")]
    fn arrived(socket: &Socket, bytes: u64) {
        let began = Instant::now();
        while ioctl_fionread(socket).expect("a socket") < bytes {
            assert!(began.elapsed() < PATIENCE, "the bytes arrive");
            thread::yield_now();
        }
    }

    /// Waits for an event that tells of bytes.
    #[allow(clippy::expect_used, reason = "a test helper")]
    async fn event(socket: &Socket) {
        timeout(PATIENCE, socket.ready(Interest::READABLE)).await.expect("in time").expect("a runtime");
    }

    fn is_ready(socket: &Socket) -> bool {
        socket.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[allow(clippy::expect_used, reason = "a test helper")]
    fn read(socket: &Socket) -> Vec<u8> {
        let mut into = [0; 64];
        let read = socket.try_read(&mut into).expect("bytes");
        into[..read].to_vec()
    }

    #[tokio::test]
    async fn a_read_that_is_not_filled_waits_for_the_next_event_and_asks_nothing() {
        let (mut outside, socket) = connection();
        for bytes in [&b"one"[..], b"two"] {
            outside.write_all(bytes).expect("room");
            event(&socket).await;
            assert_eq!(read(&socket), bytes);
            assert!(!is_ready(&socket), "without a read that finds nothing");
            assert!(!socket.may_be_urgent(), "so that the system is not asked for more");
        }
    }

    #[tokio::test]
    async fn a_read_that_is_filled_leaves_the_socket_ready() {
        let (mut outside, socket) = connection();
        outside.write_all(b"both").expect("room");
        arrived(&socket, 4);
        event(&socket).await;
        assert_eq!(socket.try_read(&mut [0; 2]).expect("bytes"), 2);
        assert!(is_ready(&socket));
        assert_eq!(read(&socket), b"th");
    }

    #[tokio::test]
    async fn what_follows_urgent_data_is_read_without_another_event() {
        let (mut outside, socket) = connection();
        outside.write_all(b"before").expect("room");
        SockRef::from(&outside).send_out_of_band(b"!").expect("urgent");
        outside.write_all(b"after").expect("room");
        arrived(&socket, 12);
        event(&socket).await;
        assert_eq!(read(&socket), b"before", "up to the urgent byte");
        assert!(is_ready(&socket));
        assert_eq!(read(&socket), b"!after");
        assert!(!is_ready(&socket) && socket.may_be_urgent());
    }

    #[tokio::test]
    async fn urgent_data_that_arrives_before_the_read_and_after_its_event_brings_another() {
        let (mut outside, socket) = connection();
        outside.write_all(b"before").expect("room");
        event(&socket).await;
        SockRef::from(&outside).send_out_of_band(b"!").expect("urgent");
        outside.write_all(b"after").expect("room");
        arrived(&socket, 12);
        assert!(!socket.may_be_urgent());
        assert_eq!(read(&socket), b"before");
        assert!(!is_ready(&socket), "the runtime has not looked since");
        event(&socket).await;
        assert!(socket.may_be_urgent());
        assert_eq!(read(&socket), b"!after");
    }

    #[tokio::test]
    async fn the_end_of_data_is_read_after_the_last_bytes() {
        let (mut outside, socket) = connection();
        outside.write_all(b"last").expect("room");
        outside.shutdown(Shutdown::Write).expect("connected");
        event(&socket).await;
        assert_eq!(read(&socket), b"last");
        event(&socket).await;
        assert_eq!(read(&socket), b"");
    }

    /// Waits until an event has reported the end of data.
    #[allow(clippy::expect_used, reason = "a test helper")]
    async fn end_reported(socket: &Socket) {
        let reported = async {
            while !socket.ready(Interest::READABLE).await.expect("a runtime").is_read_closed() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, reported).await.expect("in time");
        assert!(socket.has_end());
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_is_behind_urgent_data_before_an_end_that_was_reported_is_read() {
        let (mut outside, socket) = connection();
        outside.write_all(b"before").expect("room");
        SockRef::from(&outside).send_out_of_band(b"!").expect("urgent");
        outside.write_all(b"after").expect("room");
        outside.shutdown(Shutdown::Write).expect("connected");
        end_reported(&socket).await;
        assert_eq!(read(&socket), b"before");
        assert!(is_ready(&socket), "no event follows");
        assert_eq!(read(&socket), b"!after");
        assert_eq!(read(&socket), b"");
    }

    #[tokio::test]
    async fn a_connection_stays_ready_for_what_is_left_before_an_end_that_was_reported() {
        let (mut outside, socket) = connection();
        outside.write_all(b"last").expect("room");
        outside.shutdown(Shutdown::Write).expect("connected");
        end_reported(&socket).await;
        assert_eq!(socket.try_read(&mut [0; 3]).expect("bytes"), 3);
        assert_eq!(read(&socket), b"t", "not filled");
        assert!(is_ready(&socket));
        assert_eq!(read(&socket), b"");
    }

    #[tokio::test]
    async fn a_reset_is_an_error() {
        let (outside, socket) = connection();
        SockRef::from(&outside).set_linger(Some(Duration::ZERO)).expect("an option");
        drop(outside);
        let ready = timeout(PATIENCE, socket.ready(Interest::ERROR)).await.expect("in time").expect("a runtime");
        assert!(ready.is_error());
        assert_eq!(socket.try_read(&mut [0]).expect_err("reset").kind(), io::ErrorKind::ConnectionReset);
    }
}
