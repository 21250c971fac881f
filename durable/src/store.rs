//! The store of one listener: a handle to the thread that owns its log, on disk or in `JetStream`. What a handle asks
//! of either is a `Command`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use std::{io, thread};

use durable_core::intake::Limits;
pub use durable_core::keeper::{Drops, Figures, Incoming, Kept, ReadBound, ReadMessages, StoreEvent, StoreEvents};
use durable_core::{Error, Files, MAX_SOURCE_BYTES, Settings};
use proxy_api::partials::Partial;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot, watch};
use tokio::time::timeout;

mod command;
mod error;
#[cfg(feature = "jetstream")]
mod jetstream;
mod keeper;
mod turn;

use self::command::{Append, Call, Command, Commands};
pub use self::error::StoreError;
#[cfg(feature = "jetstream")]
pub use self::jetstream::JetStreamSettings;
use self::keeper::Keeper;
use self::turn::Turn;

/// Bytes of messages that wait for the log of a listener.
pub const QUEUE_BYTES: u32 = 1 << 20;
/// Calls that wait for an answer, beside appended messages.
const CALLS: usize = 16;

/// What a store keeps, and how.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The names of its files start with this.
    pub prefix: String,
    /// The bounds of the log.
    pub log: Settings,
    /// Whether messages that the log or the disk has no room for wait until there is some, rather than being dropped.
    pub blocks: bool,
    /// Bytes of dead letters; 0: none are kept.
    pub dead_bytes: u64,
    /// Bytes of messages that wait for the log.
    pub queue_bytes: u32,
}

/// Whether appended messages are synced.
#[derive(Debug)]
#[must_use]
pub struct Receipt(oneshot::Receiver<Result<(), StoreError>>);

impl Receipt {
    /// Waits until a sync has named every message of the call. Only then may their sender get an answer.
    pub async fn synced(self) -> Result<(), StoreError> {
        self.0.await.unwrap_or(Err(StoreError::Stopped))
    }
}

/// What became of a message that the sink will never take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is among the dead letters.
    PutAside,
    /// It is dropped.
    Dropped,
    /// It is still in the stream: this process let go of it meanwhile, and whoever gets it next sends it.
    LetGo,
}

/// A handle to a store, which ends with its last handle: what waits is then appended and synced.
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
    /// What one call appends at most, as messages count in the queue.
    batch_bytes: usize,
}

/// What a store's thread lets handles look at: the number after the last message that can be read, the figures, and its
/// turn.
type Seen = (watch::Receiver<u64>, Arc<Mutex<Figures>>, Turn);

/// What a store takes.
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
        let (keeper, seen) = Keeper::open(Box::new(files), settings, receiver)?;
        start(move || keeper.run())?;
        Ok(Self::new(Commands::Disk(commands), seen, &bounds))
    }

    /// Opens a stream of a NATS server, which is made if it is not there, and starts the thread. Other processes that
    /// have the stream share it: one of them reads messages, those of all.
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

    /// Appends messages, all or none, once there is room for them in the queue. They are synced with others when the
    /// log's bounds say so. A call that is given up before it returns appends nothing.
    pub async fn append(&self, messages: Vec<Incoming>) -> Result<Receipt, StoreError> {
        self.append_with(messages, false, None).await
    }

    /// As [`Store::append`], for a sender that waits for the receipt: they are synced at once, with all that wait.
    pub async fn append_and_sync(&self, messages: Vec<Incoming>) -> Result<Receipt, StoreError> {
        self.append_with(messages, true, None).await
    }

    /// As [`Store::append`], or as [`Store::append_and_sync`]. `memory` is free again once the log has the messages.
    pub(crate) async fn append_with(
        &self,
        messages: Vec<Incoming>,
        sync: bool,
        memory: Option<Partial>,
    ) -> Result<Receipt, StoreError> {
        self.check(&messages)?;
        let room = self.shared.room.clone().acquire_many_owned(self.permits(&messages));
        let room = room.await.map_err(|_| StoreError::Stopped)?;
        self.enqueue(messages, sync, room, memory)
    }

    /// As [`Store::append`], for a sender that cannot wait: without room the messages are dropped, and counted.
    pub fn try_append(&self, messages: Vec<Incoming>) -> Result<Receipt, StoreError> {
        self.try_append_within(messages, None, None)
    }

    /// As [`Store::try_append`]. Messages for which `memory` has no room find some in an empty queue only. Where `held` has
    /// room for them, that is taken, and else what nobody holds.
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
                self.shared.dropped.fetch_add(messages.len() as u64, Ordering::Relaxed);
                Err(StoreError::QueueFull)
            }
        }
    }

    /// Whether the queue has room for so many bytes of messages, or is empty.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.shared.room.available_permits() >= bytes.min(self.shared.queue_bytes)
    }

    /// Waits until the queue has room for so many bytes of messages, or is empty: then the log has all that came before.
    /// The room is the caller's: what is let go is that of others who wait, before it is free.
    pub(crate) async fn until_room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, StoreError> {
        let bytes = u32::try_from(bytes.min(self.shared.queue_bytes)).unwrap_or(u32::MAX);
        self.shared.room.clone().acquire_many_owned(bytes).await.map_err(|_| StoreError::Stopped)
    }

    /// Cuts messages into batches, each for one call: a longer one may not fit into a segment, or waits until the queue
    /// is empty. A message that is longer by itself is a batch, too.
    pub(crate) fn batches(&self, messages: Vec<Incoming>) -> Vec<Vec<Incoming>> {
        let all: usize = messages.iter().map(Incoming::cost).sum();
        if all <= self.shared.batch_bytes && !messages.is_empty() {
            // As a rule: none of them is moved.
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

    /// Whether there is such a message, or a later one.
    pub(crate) fn has(&self, number: u64) -> bool {
        *self.shared.next.borrow() > number
    }

    /// Reads from this number on; nothing if there are no such messages yet. An error of the disk may go away;
    /// one that stays for a minute costs the segment, if the disk takes the cursor: then nothing is read, and the next
    /// number is the one behind it. [`Store::skip_segment`] does so at once.
    pub async fn read(&self, from: u64, bound: ReadBound) -> Result<ReadMessages, StoreError> {
        self.call(|reply| Call::Read { from, bound, reply }).await?
    }

    /// The sink has acknowledged every message before `next`. A log on disk has written that when this returns: a caller
    /// that waits for it before it sends more repeats, after a kill, no more than it had without an answer. It is synced
    /// when messages are, so a power failure may repeat what was acknowledged since.
    pub async fn acknowledge(&self, next: u64) -> Result<(), StoreError> {
        self.call(|reply| Call::Acknowledge { next, reply }).await
    }

    /// Puts a message aside that the sink will never take, if dead letters are kept. After this it may be acknowledged.
    /// One that a log on disk does not have counts as dropped here, and is reported as what became of it.
    pub async fn dead(&self, number: u64, why: String) -> Result<Fate, StoreError> {
        self.call(|reply| Call::Dead { number, why, reply }).await?
    }

    /// Gives up the rest of the segment that has this message. Returns the number to read next.
    pub async fn skip_segment(&self, from: u64) -> Result<u64, StoreError> {
        self.call(|reply| Call::SkipSegment { from, reply }).await
    }

    /// The log on disk may have so many bytes from now on, unless that is too few for its messages. This waits for nothing:
    /// where other calls wait, it has no effect.
    pub fn bound(&self, max_bytes: u64) {
        if let Ok(place) = self.shared.calls.clone().try_acquire_owned() {
            // A store that has ended has no bound.
            let _ = self.send(Command::Call { call: Call::Bound(max_bytes), _place: place });
        }
    }

    /// Takes no messages any more, appends and syncs what waits, saves the cursor, and gives the folder back. Messages
    /// that a full log still refuses are not appended, and their receipts say so.
    pub async fn close(&self) -> Result<(), StoreError> {
        // What came after the call would be taken and lost.
        self.shared.room.close();
        self.call(Call::Close).await
    }

    /// Takes no messages any more, waits until the sink has acknowledged all of them, or has not within this time, and
    /// closes the store. What the sink has not acknowledged is sent after the next start. A log on disk whose sink has all
    /// gives its space back.
    pub async fn drain(&self, within: Duration) -> Result<(), StoreError> {
        self.shared.room.close();
        // Whether all are acknowledged is in the figures.
        let _ = timeout(within, self.call(Call::Drain)).await;
        self.close().await
    }

    /// Takes no messages any more. What has been taken stays, and can be read.
    pub fn stop(&self) {
        self.shared.room.close();
    }

    /// Whether messages are taken. Who has not read them yet leaves them where they are if not.
    pub(crate) fn takes(&self) -> bool {
        !self.shared.room.is_closed()
    }

    /// Whether it is closed, or its thread has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.shared.next.has_changed().is_err()
    }

    /// Waits until the store is closed.
    pub(crate) async fn closed(&self) {
        let mut next = self.shared.next.clone();
        while next.changed().await.is_ok() {}
    }

    /// What was counted, as of the last turn of the thread. Does not wait for the disk: that it hangs is in there.
    pub fn figures(&self) -> Figures {
        let mut figures = self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        figures.dropped.queue = self.shared.dropped.load(Ordering::Relaxed);
        figures.take_turn(self.turn());
        figures
    }

    /// Bytes of this machine's disk that the log and its dead letters have. Those of a stream are on a server.
    pub fn disk_bytes(&self) -> u64 {
        let Figures { bytes, dead_bytes, .. } = self.figures();
        match self.shared.commands {
            Commands::Disk(_) => bytes.saturating_add(dead_bytes),
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
        answer.await.map_err(|_| StoreError::Stopped)
    }

    /// Refuses what the log would refuse, together with the messages that share its write.
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

    /// Permits for messages. More than the queue has wait until it is empty.
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
