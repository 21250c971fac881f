//! A log in `JetStream`: a work-queue stream of a NATS server, and the thread that speaks with it.
//!
//! All proxies of a listener share the stream. Each publishes its messages in batches, one after the other, of which
//! the server stores all messages or none, so that messages stay in the order in which they came, whatever breaks. One
//! proxy has the consumer, and gives the messages of all to the sink; the others wait until it ends. The consumer is
//! created again after each break: a new one begins with the oldest message, where an old one would give messages that
//! were on their way only after a while, behind later ones.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::jetstream::stream::Info;
use async_nats::jetstream::{Context, ContextBuilder};
use async_nats::{Client, Subject};
use bytes::Bytes;
use durable_core::WhenFull;
use durable_core::stream::{Failures, LongMessages, Patience, Way, Window};
use proxy_api::partials::Partials;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;
use tokio::{join, select};

pub use self::credentials::JetStreamCredentials;
use self::long::most_of;
use self::memory::Memory;
use self::server::{Link, connect, dead_letters, make, stores_batches, stream};
use super::command::{Append, Call, Command};
use super::{Figures, Seen, StoreError, Turn};

mod answer;
mod aside;
mod credentials;
mod lease;
mod long;
mod memory;
mod publish;
mod pull;
mod seen;
mod server;

/// The time within which the server must answer. After it, the request is made again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long waiting messages are published when the store is closed.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// How long acknowledgements are sent, and the consumer is given up, when the store is closed.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of a message beside its payload: its headers.
const HEADERS: usize = 2048;

/// The settings of a store in a stream.
#[derive(Clone)]
pub struct JetStreamSettings {
    /// The server: `nats://HOST:PORT`, or `tls://HOST:PORT`.
    pub url: String,
    /// The credentials; `None`: the server must not require any.
    pub credentials: Option<JetStreamCredentials>,
    /// A file with the certificates that may sign that of the server, which each connection reads again; `None`: the
    /// certificates of the system.
    pub ca: Option<PathBuf>,
    /// The name of the stream, which is also its subject.
    pub stream: String,
    /// Servers of a cluster that keep each message.
    pub replicas: usize,
    /// The most bytes of the stream.
    pub max_bytes: u64,
    /// The longest message.
    pub max_message_bytes: usize,
    /// Messages that are older are dropped.
    pub max_age: Option<Duration>,
    /// Which messages give way when `max_bytes` are used.
    pub when_full: WhenFull,
    /// Whether messages that the stream has no room for wait until there is some, rather than being dropped.
    pub blocks: bool,
    /// The most bytes of a second stream, for dead letters; 0: none are kept.
    pub dead_bytes: u64,
    /// The most bytes of messages that wait for the server.
    pub queue_bytes: u32,
    /// The memory of messages that wait for their sinks, of which the stream has a share once it is open.
    pub memory: Arc<Partials>,
    /// The namespace that the share belongs to.
    pub namespace: String,
}

/// The state of the thread.
struct Keeper {
    settings: JetStreamSettings,
    client: Client,
    context: Context,
    /// The id of this process among those that share the stream.
    id: String,
    /// Changes when the connection breaks or is restored, or when the server refuses to restore it.
    links: watch::Receiver<Link>,
    /// The messages for the sink. There are some only while this process has the consumer.
    window: RefCell<Window<Subject>>,
    /// The memory that the window holds.
    memory: Memory,
    /// Notified when the window let messages go.
    has_room: Notify,
    /// Whether nothing is read from the stream for want of room.
    is_stopped: Cell<bool>,
    /// The consumer of this process, if it is the one that gives messages to the sink.
    holds: RefCell<Option<String>>,
    /// Whether another process has the consumer, as far as is known.
    follows: Cell<bool>,
    /// The recent answers of the process that has the consumer.
    patience: RefCell<Patience>,
    /// Consumers that this process created.
    consumers: Cell<u64>,
    /// Messages of the stream that the window does not have yet.
    ahead: Cell<u64>,
    /// Messages that were published or given up.
    passed: Cell<u64>,
    /// Batches that were begun.
    batches: Cell<u64>,
    /// Messages that the server does not take, as they are too long.
    long: RefCell<LongMessages>,
    /// Bytes of a message and its headers that the stream takes, as far as is known.
    stream_takes: Cell<usize>,
    /// When the store was opened.
    opened: Instant,
    /// Appends that are not published.
    waiting: Cell<usize>,
    /// Whether messages that are not published by now are given up.
    gives_up: watch::Sender<bool>,
    /// Acknowledgements for the server.
    acks: RefCell<VecDeque<Subject>>,
    has_acks: Notify,
    /// The last acknowledgement that was sent.
    last_ack: RefCell<Option<Subject>>,
    /// Callers that wait until the sink has acknowledged all messages.
    drains: RefCell<Vec<oneshot::Sender<()>>>,
    has_drains: Notify,
    failures: RefCell<Failures>,
    figures: Arc<Mutex<Figures>>,
    /// The number after the last message of the window.
    next: watch::Sender<u64>,
}

/// Opens the stream, reports that, and serves the handles until the store is closed or the last one is gone.
pub(super) fn run(
    settings: JetStreamSettings,
    commands: UnboundedReceiver<Command>,
    opened: oneshot::Sender<Result<Seen, StoreError>>,
) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            // The caller may have gone.
            let _ = opened.send(Err(StoreError::Thread(error.to_string())));
            return;
        }
    };
    let closed = runtime.block_on(Box::pin(serve(settings, commands, opened)));
    // The connection is closed before the caller is notified.
    drop(runtime);
    if let Some(closed) = closed {
        // The caller may have gone.
        let _ = closed.send(());
    }
}

async fn serve(
    settings: JetStreamSettings,
    commands: UnboundedReceiver<Command>,
    opened: oneshot::Sender<Result<Seen, StoreError>>,
) -> Option<oneshot::Sender<()>> {
    match Box::pin(Keeper::open(settings)).await {
        Ok((keeper, seen)) => {
            // The caller may have gone: nobody else has a handle.
            opened.send(Ok(seen)).ok()?;
            Box::pin(keeper.run(commands)).await
        }
        Err(error) => {
            // The caller may have gone.
            let _ = opened.send(Err(error));
            None
        }
    }
}

/// A name that no other client has: the end of an inbox.
fn unique(client: &Client) -> String {
    client.new_inbox().rsplit('.').next().unwrap_or_default().to_owned()
}

impl Keeper {
    async fn open(settings: JetStreamSettings) -> Result<(Self, Seen), StoreError> {
        let (link, links) = watch::channel(Link::default());
        let client = connect(&settings, link).await?;
        let most = client.max_payload();
        if most < settings.max_message_bytes + HEADERS {
            return Err(StoreError::Server(format!(
                "{} accepts at most {most} bytes for a message and its headers, which may need {HEADERS} bytes: \
                 lower maxMessageBytes, or raise max_payload of the server",
                settings.url
            )));
        }
        let context = ContextBuilder::new().timeout(ANSWER_WITHIN).ack_timeout(ANSWER_WITHIN).build(client.clone());
        let info = make(&context, &settings, stream(&settings)).await?;
        if !stores_batches(&info) {
            return Err(StoreError::Server(format!(
                "{} does not store batches: upgrade it to NATS 2.12 or later",
                settings.url
            )));
        }
        if settings.dead_bytes > 0 {
            make(&context, &settings, dead_letters(&settings)).await?;
        }
        let (next, receiver) = watch::channel(0);
        let figures = Arc::new(Mutex::new(Figures::default()));
        let id = unique(&client);
        let memory = Memory::of(&settings.memory.share(&settings.namespace));
        let keeper = Self {
            settings,
            client,
            context,
            id,
            links,
            window: RefCell::default(),
            memory,
            has_room: Notify::new(),
            is_stopped: Cell::new(false),
            holds: RefCell::default(),
            follows: Cell::new(false),
            patience: RefCell::default(),
            consumers: Cell::new(0),
            ahead: Cell::new(0),
            passed: Cell::new(0),
            batches: Cell::new(0),
            long: RefCell::default(),
            stream_takes: Cell::new(most_of(&info.config)),
            opened: Instant::now(),
            waiting: Cell::new(0),
            gives_up: watch::Sender::new(false),
            acks: RefCell::default(),
            has_acks: Notify::new(),
            last_ack: RefCell::default(),
            drains: RefCell::default(),
            has_drains: Notify::new(),
            failures: RefCell::default(),
            figures: figures.clone(),
            next,
        };
        Ok((keeper, (receiver, figures, Turn::default())))
    }

    async fn run(self, commands: UnboundedReceiver<Command>) -> Option<oneshot::Sender<()>> {
        let (appends, queue) = unbounded_channel();
        let mut publishing = Box::pin(self.publish_all(queue));
        let mut answering = Box::pin(self.answer());
        let mut beside = Box::pin(async {
            join!(self.pull(), self.send_acks(), self.look());
        });
        let closed = select! {
            closed = self.take(commands, appends) => closed,
            () = &mut publishing => None,
            () = &mut answering => None,
            () = &mut beside => None,
        };
        let rest = async {
            select! {
                () = &mut publishing => {}
                () = &mut answering => {}
                () = &mut beside => {}
            }
        };
        if timeout(CLOSE_WITHIN, rest).await.is_err() {
            // Messages that are not published by then are counted, and their receipts say so. This waits for nothing.
            self.gives_up.send_replace(true);
            publishing.await;
        } else {
            drop(publishing);
        }
        drop(beside);
        // Another process that removes this consumer before it is given up sends more messages twice.
        let left = async {
            select! {
                () = self.leave() => {}
                () = answering => {}
            }
        };
        // Messages whose acknowledgement does not reach the server come again, to the next process with the consumer.
        let _ = timeout(LEAVE_WITHIN, Box::pin(left)).await;
        closed
    }

    /// Takes commands. Returns the caller to notify when the store is closed.
    async fn take(
        &self,
        mut commands: UnboundedReceiver<Command>,
        appends: UnboundedSender<Append>,
    ) -> Option<oneshot::Sender<()>> {
        let closed = loop {
            match commands.recv().await {
                None => break None,
                Some(Command::Append(append)) => {
                    self.waiting.set(self.waiting.get() + 1);
                    // The receiver ends after this.
                    let _ = appends.send(append);
                }
                Some(Command::Call { call: Call::Close(closed), .. }) => break Some(closed),
                Some(Command::Call { call, .. }) => self.take_call(call),
            }
        };
        drop(appends);
        closed
    }

    /// Answers a call, whose caller may have gone.
    fn take_call(&self, call: Call) {
        match call {
            Call::Read { from, bound, reply } => {
                let _ = reply.send(Ok(self.window.borrow().read(from, bound)));
            }
            Call::Acknowledge { next, reply } => {
                self.acknowledge(next);
                let _ = reply.send(());
            }
            Call::Dead { number, why, reply } => self.put_aside(number, &why, reply),
            // A stream has no segments.
            Call::SkipSegment { from, reply } => {
                let _ = reply.send(from);
            }
            // The server enforces the bound.
            Call::Bound(_) => {}
            Call::Drain(reply) => {
                self.drains.borrow_mut().push(reply);
                self.has_drains.notify_one();
            }
            Call::Close(closed) => {
                let _ = closed.send(());
            }
        }
    }

    fn acknowledge(&self, next: u64) {
        let ways = self.window.borrow_mut().acknowledge(next);
        self.acks.borrow_mut().extend(ways);
        self.has_acks.notify_one();
        self.has_room.notify_one();
        self.show();
    }

    /// Sends acknowledgements as they come.
    async fn send_acks(&self) {
        loop {
            self.has_acks.notified().await;
            self.send_waiting_acks().await;
        }
    }

    async fn send_waiting_acks(&self) {
        loop {
            let first = self.acks.borrow().front().cloned();
            let Some(way) = first else { return };
            if self.client.publish(way.clone(), Bytes::new()).await.is_err() {
                // The message comes again, and is acknowledged then.
                self.acks.borrow_mut().clear();
                return;
            }
            self.acks.borrow_mut().pop_front();
            *self.last_ack.borrow_mut() = Some(way);
        }
    }

    fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits until there is a connection: earlier requests would wait in memory. `links` changes with the next break.
    async fn connected(&self, way: Way, links: &mut watch::Receiver<Link>) -> Result<(), String> {
        loop {
            links.mark_unchanged();
            if self.is_connected() {
                return Ok(());
            }
            self.is_down(way, &links.borrow());
            links
                .changed()
                .await
                .map_err(|_| self.words("reach", &"the NATS client has stopped; restart this process"))?;
        }
    }

    async fn info(&self) -> Result<Info, String> {
        let stream = Box::pin(self.context.get_stream(self.settings.stream.as_str())).await;
        stream.map(|stream| stream.cached_info().clone()).map_err(|error| self.words("look up", &error))
    }
}
