//! Two tunnels, and carriers between them that a test can cut and freeze.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};
use tunnel::{CarryEnd, Stream, Tunnel};
use tunnel_core::{Limits, Loss, Open, Pool, Protocol, Session, Side, Target};

/// A carrier reads at most this much at a time.
const CHUNK: usize = 4096;

/// Runs a test. A paused clock advances only while no task can make progress.
pub(crate) async fn within<T>(seconds: u64, test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(timeout(Duration::from_secs(seconds), test)).await.expect("the test ends in time")
}

/// Lets every task progress as far as it can, under a paused clock.
pub(crate) async fn settle() {
    sleep(Duration::from_millis(500)).await;
}

pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("not within ten seconds: {what}");
}

pub(crate) fn request(protocol: Protocol, port: u16) -> Open {
    Open { target: Target { protocol, host: "db".to_owned(), port }, source: None }
}

/// A stream at both ends.
pub(crate) async fn stream(from: &Tunnel, to: &Tunnel) -> (Stream, Stream) {
    let accepted = async { to.accept().await.expect("a request").accept() };
    let (opened, accepted) = tokio::join!(from.open(request(Protocol::Tcp, 5432)), accepted);
    (opened.expect("a stream"), accepted)
}

/// The network under one carrier.
#[derive(Debug)]
pub(crate) struct Link {
    /// Bytes that arrive, in both directions, before the link is cut.
    left: Cell<usize>,
    is_frozen: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Link {
    /// From now on, nothing arrives; written bytes wait.
    pub(crate) fn freeze(&self) {
        self.is_frozen.set(true);
    }

    pub(crate) fn thaw(&self) {
        self.is_frozen.set(false);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

struct Wire {
    io: DuplexStream,
    link: Rc<Link>,
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Wire { io, link } = self.get_mut();
        if link.is_frozen.get() {
            link.waiting.borrow_mut().push(cx.waker().clone());
            return Poll::Pending;
        }
        let left = link.left.get();
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut bytes = [0; CHUNK];
        let mut part = ReadBuf::new(&mut bytes[..CHUNK.min(left).min(buf.remaining())]);
        ready!(Pin::new(io).poll_read(cx, &mut part))?;
        link.left.set(left - part.filled().len());
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// A carrier, driven at both ends.
pub(crate) struct Carrier {
    pub(crate) link: Rc<Link>,
    task: JoinHandle<(CarryEnd, CarryEnd)>,
}

impl Carrier {
    /// The results at the dialler and at the listener.
    pub(crate) async fn ended(self) -> (CarryEnd, CarryEnd) {
        self.task.await.expect("no panic")
    }

    pub(crate) async fn cut(&mut self) {
        self.task.abort();
        let ended = (&mut self.task).await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "the carrier was there until now");
    }
}

pub(crate) struct Pair {
    pub(crate) dialler: Tunnel,
    pub(crate) listener: Tunnel,
    pub(crate) runs: [JoinHandle<Loss>; 2],
    epoch: Cell<u64>,
}

impl Pair {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self::of([Side::Dialler, Side::Listener].map(|side| Tunnel::new(side, limits.clone())))
    }

    /// Two ends that share the memory of `pool`, also with those of other pairs.
    pub(crate) fn sharing(pool: &Rc<Pool>) -> Self {
        Self::of([Side::Dialler, Side::Listener].map(|side| Tunnel::within(side, Limits::default(), pool)))
    }

    fn of([dialler, listener]: [Tunnel; 2]) -> Self {
        let runs = [&dialler, &listener].map(|tunnel| {
            let tunnel = tunnel.clone();
            spawn_local(async move { tunnel.run().await })
        });
        Self { dialler, listener, runs, epoch: Cell::new(0) }
    }

    /// Replaces the carrier.
    pub(crate) fn connect(&self) -> Carrier {
        self.connect_for(usize::MAX)
    }

    /// Like [`Pair::connect`]; the carrier is cut after this many bytes have arrived.
    pub(crate) fn connect_for(&self, bytes: usize) -> Carrier {
        let epoch = self.epoch.get() + 1;
        self.epoch.set(epoch);
        let link = Rc::new(Link { left: Cell::new(bytes), is_frozen: Cell::new(false), waiting: RefCell::default() });
        let (near, far) = duplex(64 * 1024);
        let [near, far] = [near, far].map(|io| Wire { io, link: Rc::clone(&link) });
        let (dialler, listener) = (self.dialler.clone(), self.listener.clone());
        let task = spawn_local(async move { tokio::join!(dialler.carry(epoch, near), listener.carry(epoch, far)) });
        Carrier { link, task }
    }

    /// Waits until neither end knows of any stream.
    pub(crate) async fn drained(&self) {
        until("both sessions are empty", || {
            [&self.dialler, &self.listener].iter().all(|tunnel| tunnel.look(Session::is_empty))
        })
        .await;
        for tunnel in [&self.dialler, &self.listener] {
            assert_eq!(tunnel.look(Session::memory), (0, 0), "no memory is held for streams that are gone");
        }
    }
}
