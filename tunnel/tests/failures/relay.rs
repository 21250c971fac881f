//! A network that delays, limits, freezes, thaws, cuts and resets connections.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, sleep_until};

/// Parts in transit in one direction.
const WAY: usize = 4096;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Impairment {
    /// In each direction.
    pub(crate) delay: Duration,
    /// Bytes per millisecond, in each direction.
    pub(crate) speed: u64,
    /// Bytes that are read at a time.
    pub(crate) part: usize,
}

/// A network without faults.
pub(crate) const QUICK: Impairment = Impairment { delay: Duration::ZERO, speed: u64::MAX, part: 64 * 1024 };

/// One connection through the network.
pub(crate) struct Relay {
    /// From near to far, and back.
    frozen: [watch::Sender<bool>; 2],
    task: AbortHandle,
}

impl Relay {
    pub(crate) fn start(
        near: impl AsyncRead + AsyncWrite + 'static,
        far: impl AsyncRead + AsyncWrite + 'static,
        impairment: Impairment,
    ) -> Self {
        let frozen = [watch::Sender::new(false), watch::Sender::new(false)];
        let [out, back] = frozen.each_ref().map(watch::Sender::subscribe);
        let ((near_reader, near_writer), (far_reader, far_writer)) = (split(near), split(far));
        let task = spawn_local(async move {
            tokio::join!(
                forward(near_reader, far_writer, impairment, out),
                forward(far_reader, near_writer, impairment, back),
            );
        });
        Self { frozen, task: task.abort_handle() }
    }

    /// Freezes a direction, 0 from near to far, or lets the waiting bytes arrive.
    pub(crate) fn freeze(&self, direction: usize, is_frozen: bool) {
        self.frozen[direction].send_replace(is_frozen);
    }

    /// Both ends lose the connection, with the bytes in transit.
    pub(crate) fn cut(&self) {
        self.task.abort();
    }
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    impairment: Impairment,
    mut frozen: watch::Receiver<bool>,
) {
    let (sender, mut receiver) = mpsc::channel(WAY);
    let read = async move {
        let mut free = Instant::now();
        loop {
            let mut bytes = vec![0; impairment.part];
            let Ok(count) = from.read(&mut bytes).await else { return };
            if count == 0 {
                return;
            }
            bytes.truncate(count);
            free = free.max(Instant::now()) + Duration::from_micros(count as u64 * 1000 / impairment.speed);
            wait_until(free).await;
            if sender.send((free + impairment.delay, bytes)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        loop {
            let next = receiver.recv().await;
            if let Some((at, _)) = &next {
                wait_until(*at).await;
            }
            if frozen.wait_for(|is_frozen| !*is_frozen).await.is_err() {
                return;
            }
            let Some((_, bytes)) = next else { break };
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // Fails if the other end is gone.
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

async fn wait_until(at: Instant) {
    if at > Instant::now() {
        sleep_until(at).await;
    }
}

/// A network between clients and a server on loopback.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    /// Connections so far.
    pub(crate) accepted: Rc<Cell<usize>>,
    /// What the server sees as the address of a new connection.
    source: Rc<Cell<Ipv4Addr>>,
    /// Each with another handle to the connection at the server.
    relays: Rc<RefCell<Vec<(Relay, Socket)>>>,
}

impl Gate {
    pub(crate) async fn start(to: SocketAddr, impairment: Impairment) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (accepted, relays) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
        let source = Rc::new(Cell::new(Ipv4Addr::LOCALHOST));
        let gate = Self { address, accepted: accepted.clone(), source: source.clone(), relays: relays.clone() };
        spawn_local(async move {
            loop {
                let (near, _) = listener.accept().await.expect("a connection");
                let far = connect_from(source.get(), to).await;
                for tcp in [&near, &far] {
                    tcp.set_nodelay(true).expect("an option");
                    tcp.set_zero_linger().expect("an option");
                }
                let handle = SockRef::from(&far).try_clone().expect("a handle");
                relays.borrow_mut().push((Relay::start(near, far, impairment), handle));
                accepted.set(accepted.get() + 1);
            }
        });
        gate
    }

    pub(crate) fn freeze(&self, is_frozen: bool) {
        for (relay, _) in self.relays.borrow().iter() {
            relay.freeze(0, is_frozen);
            relay.freeze(1, is_frozen);
        }
    }

    /// Resets each connection at both ends.
    pub(crate) fn reset(&self) {
        for (relay, _) in self.relays.borrow_mut().drain(..) {
            relay.cut();
        }
    }

    /// The address of the clients changes: their connections are reset, and the next ones come from `source`. The server
    /// is not told: what it has of the old ones stays open and silent while the result is kept.
    #[must_use]
    pub(crate) fn move_clients(&self, source: Ipv4Addr) -> Vec<Socket> {
        self.source.set(source);
        let relays = self.relays.take().into_iter();
        let old = relays.map(|(relay, handle)| {
            relay.cut();
            handle
        });
        old.collect()
    }
}

async fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(IpAddr::V4(source), 0)).expect("an address of loopback");
    socket.connect(to).await.expect("a connection")
}
