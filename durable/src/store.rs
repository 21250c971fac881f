//! The store of one listener: a handle to the thread that owns its log, on disk or in `JetStream`. A handle sends a
//! `Command` to either.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use std::{io, thread};

use durable_core::intake::Limits;
pub use durable_core::keeper::{Drops, Figures, Incoming, Kept, ReadBound, ReadMessages, StoreEvent, StoreEvents};
use durable_core::{Error, Files, MAX_SOURCE_BYTES};
use proxy_api::partials::Partial;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot, watch};
use tokio::time::timeout;

mod command;
mod error;
#[cfg(feature = "jetstream")]
mod jetstream;
mod keeper;
mod pause;
mod settings;
mod turn;

use self::command::{Append, Call, Command, Commands};
pub use self::error::StoreError;
#[cfg(feature = "jetstream")]
pub use self::jetstream::{JetStreamCredentials, JetStreamSettings};
use self::keeper::Keeper;
use self::pause::Pause;
pub use self::settings::{GATHER, QUEUE_BYTES, StoreSettings};
use self::turn::Turn;

/// Calls that wait for an answer, beside appended messages.
const CALLS: usize = 16;

/// Whether appended messages are synced.
#[derive(Debug)]
#[must_use]
pub struct Receipt(oneshot::Receiver<Result<(), StoreError>>);

impl Receipt {
    /// Waits until every message of the call is synced. Only then may their sender get an answer.
    pub async fn synced(self) -> Result<(), StoreError> {
        self.0.await.unwrap_or(Err(StoreError::Stopped))
    }
}

/// The fate of a message that the sink will never take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The message is among the dead letters.
    PutAside,
    /// The message is dropped.
    Dropped,
    /// The message is still in the stream: this process let go of it, and the process that gets it next sends it.
    LetGo,
}

/// A handle to a store, which ends with its last handle: waiting messages are then appended and synced.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: Commands,
    /// A permit for each byte that may wait for the log.
    room: Arc<Semaphore>,
    /// All permits of `room`.
    queue_bytes: usize,
    calls: Arc<Semaphore>,
    /// The number of the next message.
    next: watch::Receiver<u64>,
    figures: Arc<Mutex<Figures>>,
    turn: Turn,
    /// Messages that found no room in the queue.
    dropped: AtomicU64,
    max_message_bytes: usize,
    /// The most bytes that one call appends, as messages count in the queue.
    batch_bytes: usize,
}

/// The state of a store's thread that handles see: the number after the last message that can be read, the figures, and
/// its turn.
type Seen = (watch::Receiver<u64>, Arc<Mutex<Figures>>, Turn);

/// The bounds of a store.
struct Bounds {
    queue_bytes: u32,
    max_message_bytes: usize,
    batch_bytes: u64,
}

impl Store {
    /// Opens the log of a folder, which blocks while its last segment is read, and starts the thread.
    pub fn open(files: impl Files + Send + 'static, settings: StoreSettings) -> Result<Self, StoreError> {
        let (commands, receiver) = mpsc::channel();
        let bounds = Bounds {
            queue_bytes: settings.queue_bytes,
            max_message_bytes: settings.log.max_message_bytes,
            batch_bytes: settings.log.segment_bytes() / 2,
        };
        let pause = Pause::default();
        let (keeper, seen) = Keeper::open(Box::new(files), settings, (receiver, pause.clone()))?;
        start(move || keeper.run())?;
        Ok(Self::new(Commands::Disk(commands, pause), seen, &bounds))
    }

    /// Opens a stream of a NATS server, which is created if it is not there, and starts the thread. Processes that open
    /// the same stream share it: one of them reads messages, those of all.
    #[cfg(feature = "jetstream")]
    pub async fn open_stream(settings: JetStreamSettings) -> Result<Self, StoreError> {
        let (commands, receiver) = tokio::sync::mpsc::unbounded_channel();
        let bounds = Bounds {
            queue_bytes: settings.queue_bytes,
            max_message_bytes: settings.max_message_bytes,
            batch_bytes: settings.queue_bytes.into(),
        };
        let (opened, seen) = oneshot::channel();
        start(move || jetstream::run(settings, receiver, opened))?;
        let seen = seen.await.map_err(|_| StoreError::Stopped)??;
        Ok(Self::new(Commands::Stream(commands), seen, &bounds))
    }

    fn new(commands: Commands, (next, figures, turn): Seen, bounds: &Bounds) -> Self {
        let queue_bytes = usize::try_from(bounds.queue_bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let shared = Shared {
            commands,
            room: Arc::new(Semaphore::new(queue_bytes)),
            queue_bytes,
            calls: Arc::new(Semaphore::new(CALLS)),
            next,
            figures,
            turn,
            dropped: AtomicU64::new(0),
            max_message_bytes: bounds.max_message_bytes,
            batch_bytes: usize::try_from(bounds.batch_bytes).unwrap_or(usize::MAX).min(queue_bytes),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Appends messages, all or none, once there is room for them in the queue. They are written and synced with others
    /// when the settings say so. A call that is given up before it returns appends nothing.
    pub async fn append(&self, messages: Vec<Incoming>) -> Result<Receipt, StoreError> {
        self.append_with(messages, false, None).await
    }

    /// Like [`Store::append`], for a sender that waits for the receipt: the messages are synced at once.
    pub async fn append_and_sync(&self, messages: Vec<Incoming>) -> Result<Receipt, StoreError> {
        self.append_with(messages, true, None).await
    }

    /// Like [`Store::append`] or [`Store::append_and_sync`]. `memory` is free again once the log has the messages.
    pub(crate) async fn append_with(
        &self,
        messages: Vec<Incoming>,
        sync: bool,
        memory: Option<Partial>,
    ) -> Result<Receipt, StoreError> {
        self.check(&messages)?;
        let permits = self.permits(&messages);
        self.hurry_unless_room(permits as usize);
        let room = self.shared.room.clone().acquire_many_owned(permits);
        let room = room.await.map_err(|_| StoreError::Stopped)?;
        self.enqueue(messages, sync, room, memory)
    }

    /// Like [`Store::append`], for a sender that cannot wait: without room the messages are dropped, and counted.
    pub fn try_append(&self, messages: Vec<Incoming>) -> Result<Receipt, StoreError> {
        self.try_append_within(messages, None, None)
    }

    /// Like [`Store::try_append`]. If `memory` has no room for the messages, they are only taken into an empty queue.
    /// Their room in the queue is taken from `held` if that suffices, and otherwise from the free room.
    pub(crate) fn try_append_within(
        &self,
        messages: Vec<Incoming>,
        mut memory: Option<Partial>,
        held: Option<&mut OwnedSemaphorePermit>,
    ) -> Result<Receipt, StoreError> {
        self.check(&messages)?;
        let cost: usize = messages.iter().map(Incoming::cost).sum();
        let free = self.shared.room.available_permits() + held.as_deref().map_or(0, OwnedSemaphorePermit::num_permits);
        let has_memory = memory.as_mut().is_none_or(|memory| memory.takes(cost)) || free == self.shared.queue_bytes;
        let of_held = held.filter(|_| self.takes()).and_then(|held| held.split(cost.min(self.shared.queue_bytes)));
        let others = || self.shared.room.clone().try_acquire_many_owned(self.permits(&messages));
        let room = of_held.map_or_else(others, Ok);
        match room.and_then(|room| if has_memory { Ok(room) } else { Err(TryAcquireError::NoPermits) }) {
            Ok(room) => self.enqueue(messages, false, room, memory),
            Err(TryAcquireError::Closed) => Err(StoreError::Stopped),
            Err(TryAcquireError::NoPermits) => {
                self.hurry();
                self.shared.dropped.fetch_add(messages.len() as u64, Ordering::Relaxed);
                Err(StoreError::QueueFull)
            }
        }
    }

    /// Whether the queue has room for this many bytes of messages, or is empty.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.shared.room.available_permits() >= bytes.min(self.shared.queue_bytes)
    }

    /// Waits until the queue has room for this many bytes of messages, or is empty: then the log has all that came
    /// before. The caller holds the room, as free room would go to others who wait.
    pub(crate) async fn until_room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, StoreError> {
        self.hurry_unless_room(bytes);
        let bytes = u32::try_from(bytes.min(self.shared.queue_bytes)).unwrap_or(u32::MAX);
        self.shared.room.clone().acquire_many_owned(bytes).await.map_err(|_| StoreError::Stopped)
    }

    /// Cuts messages into batches, each for one call: a longer one may not fit into a segment, or waits until the queue
    /// is empty. A message that is longer by itself is a batch, too.
    pub(crate) fn batches(&self, messages: Vec<Incoming>) -> Vec<Vec<Incoming>> {
        let all: usize = messages.iter().map(Incoming::cost).sum();
        if all <= self.shared.batch_bytes && !messages.is_empty() {
            // In the usual case, no message is moved.
            return vec![messages];
        }
        let mut batches: Vec<Vec<Incoming>> = Vec::new();
        let mut bytes = 0;
        for message in messages {
            let cost = message.cost();
            bytes += cost;
            if let Some(batch) = batches.last_mut().filter(|_| bytes <= self.shared.batch_bytes) {
                batch.push(message);
            } else {
                bytes = cost;
                batches.push(vec![message]);
            }
        }
        batches
    }

    /// Waits until there is a message of this number, or a later one.
    pub async fn wait_for(&self, number: u64) -> Result<(), StoreError> {
        let mut next = self.shared.next.clone();
        next.wait_for(|next| *next > number).await.map(drop).map_err(|_| StoreError::Stopped)
    }

    /// Whether there is a message of this number, or a later one.
    pub(crate) fn has(&self, number: u64) -> bool {
        *self.shared.next.borrow() > number
    }

    /// Reads messages from this number on; none if there are none yet. An error of the disk may be temporary. If it
    /// lasts for a minute and the disk takes the cursor, the segment is given up: then no message is returned, and the
    /// next number is the one behind it. [`Store::skip_segment`] gives it up at once.
    pub async fn read(&self, from: u64, bound: ReadBound) -> Result<ReadMessages, StoreError> {
        self.call(|reply| Call::Read { from, bound, reply }).await?
    }

    /// Moves the cursor to `next`, as the sink has acknowledged every message before it. When this returns, a log on
    /// disk has written it: a caller that waits for that before it sends more resends, after a kill, only messages that
    /// had no answer. It is synced when messages are, so a power failure may undo later acknowledgements.
    pub async fn acknowledge(&self, next: u64) -> Result<(), StoreError> {
        self.call(|reply| Call::Acknowledge { next, reply }).await
    }

    /// Puts a message aside that the sink will never take, if dead letters are kept. After this it may be acknowledged.
    /// A message that a log on disk does not have is [`Fate::Dropped`] here, and is reported as dropped or lost.
    pub async fn dead(&self, number: u64, why: String) -> Result<Fate, StoreError> {
        self.call(|reply| Call::Dead { number, why, reply }).await?
    }

    /// Gives up the rest of the segment that has this message. Returns the number to read next.
    pub async fn skip_segment(&self, from: u64) -> Result<u64, StoreError> {
        self.call(|reply| Call::SkipSegment { from, reply }).await
    }

    /// Changes the bound of the log on disk to `max_bytes`, unless that is too small for its messages. This waits for
    /// nothing: while too many other calls wait, it has no effect.
    pub fn bound(&self, max_bytes: u64) {
        if let Ok(place) = self.shared.calls.clone().try_acquire_owned() {
            // A store that has ended has no bound.
            let _ = self.send(Command::Call { call: Call::Bound(max_bytes), _place: place });
        }
    }

    /// Takes no messages any more, appends and syncs those that wait, saves the cursor, and gives the folder back.
    /// Messages that a full log still refuses are not appended, and their receipts say so.
    pub async fn close(&self) -> Result<(), StoreError> {
        // Messages that came after the call would be taken and lost.
        self.shared.room.close();
        self.call(Call::Close).await
    }

    /// Takes no messages any more, waits up to `within` until the sink has acknowledged all of them, and closes the
    /// store. Messages that the sink has not acknowledged are sent after the next start. A log on disk frees its space
    /// if the sink has all messages.
    pub async fn drain(&self, within: Duration) -> Result<(), StoreError> {
        self.shared.room.close();
        // Whether all are acknowledged is in the figures.
        let _ = timeout(within, self.call(Call::Drain)).await;
        self.close().await
    }

    /// Takes no messages any more. Messages that were taken stay, and can be read.
    pub fn stop(&self) {
        self.shared.room.close();
    }

    /// Whether messages are taken. If not, readers of sockets leave unread messages there.
    pub(crate) fn takes(&self) -> bool {
        !self.shared.room.is_closed()
    }

    /// Whether the store is closed, or its thread has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.shared.next.has_changed().is_err()
    }

    /// Waits until the store is closed.
    pub(crate) async fn closed(&self) {
        let mut next = self.shared.next.clone();
        while next.changed().await.is_ok() {}
    }

    /// The figures as of the thread's last turn. A disk that hangs does not delay this: it is a failure in them.
    pub fn figures(&self) -> Figures {
        let mut figures = self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        figures.dropped.queue = self.shared.dropped.load(Ordering::Relaxed);
        figures.take_turn(self.turn());
        figures
    }

    /// Bytes of this machine's disk that the log and its dead letters take. Those of a stream are on a server.
    pub fn disk_bytes(&self) -> u64 {
        let Figures { bytes, dead_bytes, .. } = self.figures();
        match self.shared.commands {
            Commands::Disk(..) => bytes.saturating_add(dead_bytes),
            #[cfg(feature = "jetstream")]
            Commands::Stream(_) => 0,
        }
    }

    /// The bounds on messages, or lower ones if the server that keeps them has lowered its own.
    pub(crate) fn limits(&self, limits: Limits) -> Limits {
        limits.within(self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner).longest)
    }

    async fn call<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Result<T, StoreError> {
        let place = self.shared.calls.clone().acquire_owned().await.map_err(|_| StoreError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Call { call: call(reply), _place: place })?;
        self.hurry();
        answer.await.map_err(|_| StoreError::Stopped)
    }

    /// Refuses messages that the log would refuse, together with all that share their write.
    fn check(&self, messages: &[Incoming]) -> Result<(), StoreError> {
        let max = self.shared.max_message_bytes;
        let long = |message: &&Incoming| message.payload.len() > max || message.source.len() > MAX_SOURCE_BYTES;
        match messages.iter().find(long) {
            None => Ok(()),
            Some(long) => {
                let (bytes, source_bytes) = (long.payload.len(), long.source.len());
                Err(StoreError::Log(Error::TooLong { bytes, source_bytes, max }))
            }
        }
    }

    /// Permits for messages. Messages that need more than the queue has wait until it is empty.
    fn permits(&self, messages: &[Incoming]) -> u32 {
        let bytes = messages.iter().map(Incoming::cost).sum::<usize>().min(self.shared.queue_bytes);
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    fn enqueue(
        &self,
        messages: Vec<Incoming>,
        sync: bool,
        room: OwnedSemaphorePermit,
        memory: Option<Partial>,
    ) -> Result<Receipt, StoreError> {
        let (reply, receipt) = oneshot::channel();
        let bytes = messages.iter().map(Incoming::cost).sum::<usize>() as u64;
        self.send(Command::Append(Append { messages, bytes, sync, reply, room, memory }))?;
        if sync || self.has_gathered() {
            self.hurry();
        }
        Ok(Receipt(receipt))
    }

    fn send(&self, command: Command) -> Result<(), StoreError> {
        self.shared.commands.send(command)
    }
}

fn start(run: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let started = thread::Builder::new().name("store".to_owned()).spawn(run);
    started.map(drop).map_err(|error: io::Error| StoreError::Thread(error.to_string()))
}
