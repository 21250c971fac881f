//! The time limits of a connection: each event on the connection sets the next deadline.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use proxy_grpc::{Closed, Guest};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::Instant,
};

/// The time from the TLS handshake to the end of the first head, and from the first byte of each further head to its
/// end.
const HEAD: Duration = Duration::from_secs(5);
/// The time from the end of the head to the answer: the body, and the work on the request.
const REQUEST: Duration = Duration::from_secs(20);
/// The time from an answer to the next request. API servers keep connections for longer, and open a new one if this
/// limit closes theirs.
const IDLE: Duration = Duration::from_secs(60);

/// The deadline of one connection.
pub(super) struct Pace {
    guest: Guest,
    deadline: watch::Sender<Instant>,
    /// Whether the connection waits between two requests.
    is_idle: AtomicBool,
    /// Whether the connection has had a request.
    has_asked: AtomicBool,
}

impl Pace {
    /// The pace of a connection after its handshake, and its deadline.
    pub(super) fn new(guest: Guest) -> (Arc<Self>, watch::Receiver<Instant>) {
        let (deadline, receiver) = watch::channel(Instant::now() + HEAD);
        let (is_idle, has_asked) = (AtomicBool::new(false), AtomicBool::new(false));
        (Arc::new(Self { guest, deadline, is_idle, has_asked }), receiver)
    }

    fn within(&self, time: Duration) {
        self.deadline.send_replace(Instant::now() + time);
    }

    /// Records that bytes of the client arrived.
    fn received(&self) {
        if self.is_idle.swap(false, Relaxed) {
            self.within(HEAD);
        }
    }

    /// Records that the head of a request is complete.
    pub(super) fn asked(&self) {
        self.is_idle.store(false, Relaxed);
        self.has_asked.store(true, Relaxed);
        self.guest.asks();
        self.within(REQUEST);
    }

    /// Records that the answer is ready. Even a large answer should be read within a minute, so a client that does not
    /// read its answer counts as idle.
    pub(super) fn answered(&self) {
        self.guest.waits();
        self.is_idle.store(true, Relaxed);
        self.within(IDLE);
    }

    /// The reason why the connection ends at its deadline. Absent: the connection was only idle.
    pub(super) fn why(&self) -> Option<Closed> {
        if self.is_idle.load(Relaxed) {
            return None;
        }
        Some(if self.has_asked.load(Relaxed) { Closed::Late } else { Closed::Silent })
    }
}

/// A connection that reports to its pace when bytes arrive.
pub(super) struct Noted<S> {
    io: S,
    pace: Arc<Pace>,
}

impl<S> Noted<S> {
    pub(super) fn new(io: S, pace: Arc<Pace>) -> Self {
        Self { io, pace }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.pace.received();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proxy_api::doors::{Bounds, Evict};
    use proxy_grpc::Door;

    use super::*;

    #[tokio::test]
    async fn each_phase_has_its_own_deadline() {
        let bounds = Bounds { strangers: 1, per_source: 1, known: 0, evict: Evict::Any, rates: None };
        let taken = Door::new(bounds, |_| {}).admit(Ipv4Addr::LOCALHOST.into()).expect("a place");
        let start = Instant::now();
        let (pace, deadline) = Pace::new(taken.guest());
        let due = || deadline.borrow().duration_since(start).as_secs();
        assert_eq!((due(), pace.why()), (HEAD.as_secs(), Some(Closed::Silent)));
        pace.received();
        assert_eq!(due(), HEAD.as_secs(), "bytes of a head do not lengthen its time");
        pace.asked();
        assert_eq!((due(), pace.why()), (REQUEST.as_secs(), Some(Closed::Late)));
        pace.received();
        assert_eq!(due(), REQUEST.as_secs(), "nor bytes of a body");
        pace.answered();
        assert_eq!((due(), pace.why()), (IDLE.as_secs(), None));
        pace.received();
        assert_eq!((due(), pace.why()), (HEAD.as_secs(), Some(Closed::Late)), "the next head must end in time");
    }
}
