//! Delivery of a store's messages to its sink.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use durable_core::intake::Framing;
use durable_core::send::{self, Backoff, Format, SendError, Silent, Tcp};
use tokio::net::{TcpStream, UdpSocket};
use tokio::select;
use tokio::time::{sleep, timeout};

use self::work::Work;
use crate::{Kept, Store, StoreError};

mod http;
mod relp;
mod tcp;
mod udp;
mod work;

/// The time within which a connection must be established.
const DIAL_WITHIN: Duration = Duration::from_secs(10);

/// The protocol of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// RELP.
    Relp {
        /// Messages without an answer, 1 to 1024.
        window: u16,
    },
    /// Framed messages over TCP, without answers.
    Tcp {
        /// How messages are delimited.
        framing: Framing,
        /// Bytes that are kept in memory, and sent again on the next connection.
        rewind_bytes: u32,
    },
    /// Datagrams, without answers.
    Udp,
    /// Requests of one or more messages.
    Http(HttpSettings),
}

/// How messages are posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// The path, with a query if there is one.
    pub path: String,
    /// The format of bodies.
    pub format: Format,
    /// The longest body, unless one message alone is longer.
    pub batch_bytes: usize,
    /// The most messages in a body.
    pub batch_messages: usize,
    /// How long a body that is not full waits for more messages.
    pub linger: Duration,
}

/// Opens connections to a sink. A sender keeps to one until it ends; drop [`Sender::run`] and start another sender to
/// have it dial again.
pub trait Dial {
    /// Opens a connection for RELP, framed messages or HTTP.
    fn tcp(&self) -> impl Future<Output = io::Result<TcpStream>>;

    /// Opens a socket that is connected to the sink.
    fn udp(&self) -> impl Future<Output = io::Result<UdpSocket>>;

    /// The header `Host` of requests over the connection that was opened last: a name or an address, with a port unless it
    /// is 80.
    fn host(&self) -> String;

    /// How many bytes the system has of this connection that the system of the sink has not acknowledged (`SIOCOUTQ` of
    /// Linux). A system that cannot tell must fail: 0 means that the sink has all.
    fn unacknowledged(&self, stream: &TcpStream) -> io::Result<u64>;
}

/// The events of a sender, for metrics and people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderEvent {
    /// The sink is away, broke off, or does not take messages now, though some wait. It is tried again.
    Ended {
        /// The reason, for people.
        error: String,
        /// The pause before the next attempt.
        pause: Duration,
    },
    /// The sink has these messages.
    Delivered {
        /// How many messages.
        messages: u64,
    },
    /// These messages are on their way once more, as the sink may not have them.
    Resent {
        /// How many messages.
        messages: u64,
    },
    /// The sink will never take these messages. They were put aside.
    DeadLettered {
        /// How many messages.
        messages: u64,
        /// The reason.
        reason: String,
    },
    /// The sink will never take these messages. They were dropped, as no dead letters are kept.
    DroppedPoison {
        /// How many messages.
        messages: u64,
        /// The reason.
        reason: String,
    },
}

/// Gives the messages of a store to a sink, in their order, and acknowledges those that the sink has.
#[derive(Debug)]
pub struct Sender<D, E, C> {
    /// Opens connections.
    pub dial: D,
    /// The bytes of a message for the sink.
    pub enrich: E,
    /// Random numbers from 0 up to, but not including, 1.
    pub chance: C,
    /// The protocol of the sink.
    pub sink: Sink,
    /// The messages.
    pub store: Store,
}

impl<D: Dial, E: FnMut(Kept) -> Vec<u8>, C: FnMut() -> f64> Sender<D, E, C> {
    /// Sends until the store is closed: [`Store::drain`] closes it once the sink has all messages.
    pub async fn run(self, reported: impl FnMut(&SenderEvent)) {
        let Self { dial, enrich, chance, sink, store } = self;
        let work = Work::new(store.clone(), enrich, reported);
        let mut sending = Sending { dial, chance, machine: Machine::from(sink), work };
        let sending = Box::pin(sending.run());
        select! {
            // Answers of the sink from before the store was closed are reported.
            biased;
            () = sending => {}
            () = store.closed() => {}
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    /// The connection cannot be opened, or broke.
    #[error("cannot reach the sink: {0}")]
    Io(#[from] io::Error),
    /// The sink owes an answer.
    #[error(transparent)]
    Silent(#[from] Silent),
    /// The sink violates the protocol, refuses, or closes the connection.
    #[error(transparent)]
    Sink(#[from] SendError),
    /// The sink does not answer a request.
    #[error("the sink aborted a request: {0}")]
    Http(#[from] hyper::Error),
    /// The request cannot be built.
    #[error("cannot make a request: {0}; correct send.http.path")]
    Request(#[from] hyper::http::Error),
    /// The store failed or was closed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The state that outlives a connection.
enum Machine {
    Relp { window: usize },
    Tcp(Tcp),
    Udp,
    Http(HttpSettings),
}

impl From<Sink> for Machine {
    fn from(sink: Sink) -> Self {
        match sink {
            Sink::Relp { window } => Self::Relp { window: usize::from(window) },
            Sink::Tcp { framing, rewind_bytes } => {
                Self::Tcp(Tcp::new(framing, usize::try_from(rewind_bytes).unwrap_or(usize::MAX)))
            }
            Sink::Udp => Self::Udp,
            Sink::Http(settings) => Self::Http(settings),
        }
    }
}

/// A sender that runs.
struct Sending<D, E, C, F> {
    dial: D,
    chance: C,
    machine: Machine,
    work: Work<E, F>,
}

impl<D, E, C, F> Sending<D, E, C, F>
where
    D: Dial,
    E: FnMut(Kept) -> Vec<u8>,
    C: FnMut() -> f64,
    F: FnMut(&SenderEvent),
{
    async fn run(&mut self) {
        let mut backoff = Backoff::default();
        // Without a message there is no need of a connection.
        while self.work.wait_from_cursor().await.is_ok() {
            let before = self.work.cursor();
            let Err(error) = self.session().await;
            if matches!(error, SessionError::Store(StoreError::Stopped)) {
                return;
            }
            let pause = backoff.ended(before, self.work.cursor(), (self.chance)());
            // A sink may close a connection that it has no use for.
            if self.work.is_behind() {
                self.work.tell(&SenderEvent::Ended { error: error.to_string(), pause });
            }
            sleep(pause).await;
        }
    }

    /// One connection, from the cursor on. Over HTTP: one after another, until the store fails.
    async fn session(&mut self) -> Result<Infallible, SessionError> {
        self.work.start_over();
        let work = &mut self.work;
        match &mut self.machine {
            Machine::Relp { window } => relp::session(&self.dial, *window, work).await,
            Machine::Tcp(tcp) => tcp::session(&self.dial, tcp, work).await,
            Machine::Udp => udp::session(&self.dial, work).await,
            Machine::Http(settings) => http::session(&self.dial, settings, &mut self.chance, work).await,
        }
    }
}

impl HttpSettings {
    /// The settings of the core's machine.
    fn batches(&self) -> send::HttpSettings {
        let Self { format, batch_bytes, batch_messages, linger, .. } = *self;
        send::HttpSettings { format, batch_bytes: batch_bytes.max(1), batch_messages: batch_messages.max(1), linger }
    }
}

/// Opens a connection.
async fn connect(dial: &impl Dial) -> Result<TcpStream, SessionError> {
    let dialled = timeout(DIAL_WITHIN, dial.tcp()).await;
    Ok(dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??)
}
