//! Moves bytes between a stream and a socket.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tunnel_core::{End, MAX_PAYLOAD};

use crate::tunnel::{Readable, Stream};

/// After a reset, an end that takes no bytes for this long is given up.
const NOT_READING: Duration = Duration::from_secs(2);
/// The size of one read from a socket: full frames, each of which is one TLS record.
const SCRATCH: usize = 4 * MAX_PAYLOAD;
/// Reads of a direction before other tasks get their turn.
const TURNS: usize = 16;

thread_local! {
    /// Shared by all relays: each reads only what its stream takes at once, so no relay keeps bytes here.
    static BYTES: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// A connection that [`relay()`] joins with a stream.
pub trait Socket {
    /// Ready once there may be bytes, or the end of data; otherwise registers the waker for reads.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready once there may be room for bytes; otherwise registers the waker for writes.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads available bytes, or fails with [`io::ErrorKind::WouldBlock`].
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize>;

    /// Writes as many bytes as there is room for, or fails with [`io::ErrorKind::WouldBlock`].
    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends the writing half.
    fn finish(&self) -> io::Result<()>;

    /// Whether the end of data was in fact a reset, for sockets whose reads do not fail on one.
    fn is_reset(&self) -> bool;

    /// Waits until the connection is gone, even if nobody reads from it.
    fn gone(&self) -> impl Future<Output = ()>;

    /// Makes the connection end with a reset.
    fn reset(&self);

    /// Called when the relay has ended, before the connection is dropped.
    fn ended(&self, _relayed: &Relayed) {}
}

impl Socket for TcpStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TcpStream::poll_read_ready(self, cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TcpStream::poll_write_ready(self, cx)
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        TcpStream::try_read(self, into)
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write_vectored(pieces)
    }

    fn finish(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }

    fn is_reset(&self) -> bool {
        false
    }

    async fn gone(&self) {
        // An error means that the runtime has ended.
        let _ = self.ready(Interest::ERROR).await;
    }

    fn reset(&self) {
        // Fails if the connection is already gone.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

/// How a relay has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayEnd {
    /// Both directions have finished.
    Finished,
    /// The stream was reset, and so is the socket.
    StreamReset,
    /// The socket was reset, and so is the stream.
    SocketReset,
}

/// The result of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes from the stream to the socket.
    pub to_socket: u64,
    /// Bytes from the socket to the stream.
    pub from_socket: u64,
    /// How the relay has ended.
    pub end: RelayEnd,
}

/// Relays both directions between `stream` and `socket`. When one direction ends, the other continues. A reset on one
/// side becomes a reset on the other, after the bytes before it. Dropping the future resets both. An idle relay holds
/// no buffer.
///
/// `unacknowledged` returns how many bytes written to a socket its peer has not acknowledged: a reset would discard
/// them, so the relay waits. Return 0 where no system call tells.
pub fn relay<S: Socket>(
    stream: Stream,
    socket: S,
    unacknowledged: impl Fn(&S) -> usize,
) -> impl Future<Output = Relayed> {
    // Outside of the async block, so that a future that was never polled resets both, too.
    let mut joined = Joined { pair: Pair::new(stream), socket };
    // A block instead of an async function, which would have room for its arguments twice.
    async move {
        let end = {
            let (pair, socket) = (&mut joined.pair, &joined.socket);
            let mut watch = None;
            // The state of the closure needs no room beside it.
            poll_fn(move |cx| pair.poll(cx, socket, &mut watch, S::gone)).await
        };
        if end == RelayEnd::StreamReset {
            // Boxed: few relays get here, and every relay would have room for it.
            Box::pin(deliver(&joined.socket, unacknowledged)).await;
        }
        joined.pair.end = Some(end);
        let relayed = Relayed { to_socket: joined.pair.to_socket, from_socket: joined.pair.from_socket, end };
        joined.socket.ended(&relayed);
        relayed
    }
}

/// A stream and a socket, which is reset when it is dropped, unless both directions have finished.
struct Joined<S: Socket> {
    // Dropped first, as a stream that is given up is reset before its socket is closed.
    pair: Pair,
    socket: S,
}

impl<S: Socket> Drop for Joined<S> {
    fn drop(&mut self) {
        if self.pair.end != Some(RelayEnd::Finished) {
            self.socket.reset();
        }
    }
}

/// The wait until a socket is gone, which few relays need.
type Watch<F> = Option<Pin<Box<F>>>;

/// A stream and the progress of its relay. Most streams are idle, and keep this for their lifetime: each word counts.
struct Pair {
    stream: Stream,
    to_socket: u64,
    from_socket: u64,
    /// Whether reading from the socket has ended.
    is_read: bool,
    /// Whether writing to the socket has ended.
    is_written: bool,
    /// Whether a write to the socket has failed. Bytes that the socket received before may still be unread.
    is_broken: bool,
    /// How the relay has ended.
    end: Option<RelayEnd>,
    stall: Option<Pin<Box<Sleep>>>,
}

/// The result of one direction. A direction that has ended is pending, too.
type Step = Poll<Option<RelayEnd>>;

impl Pair {
    const fn new(stream: Stream) -> Self {
        Self {
            stream,
            to_socket: 0,
            from_socket: 0,
            is_read: false,
            is_written: false,
            is_broken: false,
            end: None,
            stall: None,
        }
    }

    /// Polls both directions. `gone` returns the future that `watch` waits for.
    fn poll<'a, S: Socket, F: Future<Output = ()>>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &'a S,
        watch: &mut Watch<F>,
        gone: impl FnOnce(&'a S) -> F,
    ) -> Poll<RelayEnd> {
        let before = (self.to_socket, self.from_socket);
        // A failure in the first direction affects the second.
        for step in [self.poll_to_socket(cx, socket), self.poll_from_socket(cx, socket)] {
            match step {
                Poll::Ready(Some(end)) => return Poll::Ready(end),
                Poll::Ready(None) => cx.waker().wake_by_ref(),
                Poll::Pending => {}
            }
        }
        if self.is_read && self.is_written {
            return Poll::Ready(if self.is_broken { RelayEnd::SocketReset } else { RelayEnd::Finished });
        }
        // After the end of its data, nothing else reports that a socket is gone.
        if self.is_read {
            let gone = watch.get_or_insert_with(|| Box::pin(gone(socket)));
            if gone.as_mut().poll(cx).is_ready() {
                return Poll::Ready(RelayEnd::SocketReset);
            }
        }
        let has_progress = before != (self.to_socket, self.from_socket);
        self.poll_stall(cx, has_progress)
    }

    fn poll_to_socket(&mut self, cx: &mut Context<'_>, socket: &impl Socket) -> Step {
        for _ in 0..TURNS {
            if self.is_written {
                ready!(self.stream.poll_reset(cx));
                let is_broken = self.is_broken;
                return Poll::Ready(Some(if is_broken { RelayEnd::SocketReset } else { RelayEnd::StreamReset }));
            }
            match ready!(self.stream.poll_readable(cx)) {
                Readable::Bytes => match self.stream.peek_all(|pieces| socket.try_write(pieces)) {
                    Ok(count) => {
                        self.stream.consume(count);
                        self.to_socket += count as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let _ = ready!(socket.poll_write_ready(cx));
                    }
                    Err(_) => self.written(false),
                },
                Readable::End(End::Finished) => {
                    self.written(socket.finish().is_ok());
                }
                Readable::End(End::Reset) => return Poll::Ready(Some(RelayEnd::StreamReset)),
            }
        }
        Poll::Ready(None)
    }

    fn written(&mut self, is_finished: bool) {
        self.is_written = true;
        self.is_broken = !is_finished;
    }

    fn poll_from_socket(&mut self, cx: &mut Context<'_>, socket: &impl Socket) -> Step {
        for _ in 0..TURNS {
            if self.is_read {
                return Poll::Pending;
            }
            let room = match ready!(self.stream.poll_room(cx)) {
                Ok(room) => room,
                Err(_) if self.is_written => return Poll::Ready(Some(RelayEnd::StreamReset)),
                // The other direction delivers the bytes that arrived before, and then finds the reset.
                Err(_) => return Poll::Pending,
            };
            match self.read(socket, room) {
                Ok(0) if self.is_broken || socket.is_reset() => return Poll::Ready(Some(RelayEnd::SocketReset)),
                Ok(0) => {
                    self.stream.finish();
                    self.is_read = true;
                }
                Ok(count) => self.from_socket += count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let _ = ready!(socket.poll_read_ready(cx));
                }
                Err(_) => return Poll::Ready(Some(RelayEnd::SocketReset)),
            }
        }
        Poll::Ready(None)
    }

    /// Reads no more bytes than the stream takes.
    fn read(&mut self, socket: &impl Socket, room: usize) -> io::Result<usize> {
        BYTES.with_borrow_mut(|bytes| {
            let most = room.min(bytes.len());
            let count = socket.try_read(&mut bytes[..most])?;
            let taken = self.stream.write_now(&bytes[..count]);
            debug_assert_eq!(taken, count, "the room that was reported is there");
            Ok(count)
        })
    }

    /// After a reset on one side, the other side must still take the bytes before it.
    fn poll_stall(&mut self, cx: &mut Context<'_>, has_progress: bool) -> Poll<RelayEnd> {
        if !self.is_broken && !self.stream.is_reset() {
            return Poll::Pending;
        }
        let timer = self.stall.get_or_insert_with(|| Box::pin(sleep(NOT_READING)));
        if has_progress {
            timer.as_mut().reset(Instant::now() + NOT_READING);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(if self.is_broken { RelayEnd::SocketReset } else { RelayEnd::StreamReset })
    }
}

/// Waits until the peer has acknowledged all bytes, so that the following reset discards nothing.
async fn deliver<S: Socket>(socket: &S, unacknowledged: impl Fn(&S) -> usize) {
    let mut left = unacknowledged(socket);
    let mut progress = Instant::now();
    let mut pause = Duration::from_millis(1);
    while left > 0 && progress.elapsed() < NOT_READING {
        tokio::select! {
            () = socket.gone() => return,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_millis(100));
        let now = unacknowledged(socket);
        if now < left {
            progress = Instant::now();
        }
        left = now;
    }
}
