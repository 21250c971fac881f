//! A sender to a sink on loopback, and the events that it reports.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use durable::{Dial, Kept, Sender, SenderEvent, Sink, Store};
use tokio::io::AsyncReadExt;
use tokio::join;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::world::within;

/// Where the sink is.
pub(crate) struct Loopback {
    address: SocketAddr,
    /// So many of the next attempts to reach it fail.
    pub(crate) refusals: Cell<u32>,
    /// Bytes that its system never acknowledges. `None`: what Linux says.
    pub(crate) unacknowledged: Cell<Option<u64>>,
}

impl Loopback {
    pub(crate) const fn new(address: SocketAddr) -> Self {
        Self { address, refusals: Cell::new(0), unacknowledged: Cell::new(Some(0)) }
    }

    /// A port for connections, and where it is.
    pub(crate) async fn listens() -> (TcpListener, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        (listener, Self::new(address))
    }

    fn reach(&self) -> io::Result<SocketAddr> {
        let refusals = self.refusals.get();
        if refusals > 0 {
            self.refusals.set(refusals - 1);
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(self.address)
    }
}

impl Dial for &Loopback {
    async fn tcp(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.reach()?).await
    }

    async fn udp(&self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.connect(self.reach()?).await?;
        Ok(socket)
    }

    fn host(&self) -> String {
        "sink.example:8080".to_owned()
    }

    fn unacknowledged(&self, stream: &TcpStream) -> io::Result<u64> {
        self.unacknowledged.get().map_or_else(|| ask(stream), Ok)
    }
}

/// The number that `SIOCOUTQ` gives, from the table of connections over IPv4.
fn ask(stream: &TcpStream) -> io::Result<u64> {
    let own = format!(":{:04X}", stream.local_addr()?.port());
    let other = format!(":{:04X}", stream.peer_addr()?.port());
    let table = fs::read_to_string("/proc/self/net/tcp")?;
    let row = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1)?.ends_with(&own) && fields.get(2)?.ends_with(&other);
        if is_it { fields.get(4).copied() } else { None }
    });
    let bytes = row.and_then(|queues| u64::from_str_radix(queues.split(':').next()?, 16).ok());
    bytes.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// What a sender reported.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    pub(crate) delivered: u64,
    pub(crate) resent: u64,
    /// The reasons of dead letters, and of messages that were dropped instead.
    pub(crate) dead: Vec<String>,
    pub(crate) dropped: Vec<String>,
    pub(crate) errors: Vec<String>,
    pub(crate) pauses: Vec<Duration>,
}

impl Reported {
    fn hear(&mut self, event: &SenderEvent) {
        match event.clone() {
            SenderEvent::Ended { error, pause } => {
                self.errors.push(error);
                self.pauses.push(pause);
            }
            SenderEvent::Delivered { messages } => self.delivered += messages,
            SenderEvent::Resent { messages } => self.resent += messages,
            SenderEvent::DeadLettered { messages, reason } => {
                assert_eq!(messages, 1, "{reason}");
                self.dead.push(reason);
            }
            SenderEvent::DroppedPoison { messages, reason } => {
                assert_eq!(messages, 1, "{reason}");
                self.dropped.push(reason);
            }
        }
    }
}

/// Sends while a test runs, and what then remains while the sink that it returns is there. The store is closed after it.
pub(crate) async fn send<T>(store: &Store, sink: Sink, dial: &Loopback, test: impl Future<Output = T>) -> Reported {
    send_for(store, sink, dial, test, Duration::from_secs(10)).await
}

/// As [`send`], with a time within which the rest is sent.
pub(crate) async fn send_for<T>(
    store: &Store,
    sink: Sink,
    dial: &Loopback,
    test: impl Future<Output = T>,
    drain: Duration,
) -> Reported {
    let reported = RefCell::new(Reported::default());
    let enrich = |kept: Kept| kept.payload;
    let sender = Sender { dial, enrich, chance: || 0.0, sink, store: store.clone() };
    let sending = sender.run(|event: &SenderEvent| reported.borrow_mut().hear(event));
    let test = async {
        let there = test.await;
        store.drain(drain).await.expect("it runs");
        drop(there);
    };
    within(Box::pin(async { join!(sending, test) })).await;
    reported.into_inner()
}

/// Reads so many lines.
pub(crate) async fn lines(stream: &mut TcpStream, count: usize) -> Vec<String> {
    let mut bytes = Vec::new();
    while String::from_utf8_lossy(&bytes).matches('\n').count() < count {
        let read = stream.read_buf(&mut bytes).await.expect("it is open");
        assert!(read > 0, "the sender ends the connection after {:?}", String::from_utf8_lossy(&bytes));
    }
    String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
}
