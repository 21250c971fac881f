//! The thread that owns a log. Its core decides: see [`durable_core::keeper`].

use std::mem::replace;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use durable_core::keeper::{self, Answer, KeeperSettings, TURN, World};
use durable_core::{Files, Now};
use proxy_api::partials::Partial;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::command::{Append, Call, Command};
use super::pause::Pause;
use super::{Fate, Figures, Incoming, Seen, StoreError, StoreSettings, Turn};
use crate::clock::unix_millis;

/// The folder and the clocks.
struct Disk {
    files: Box<dyn Files + Send>,
    started: Instant,
}

impl World for Disk {
    fn files(&mut self) -> &mut dyn Files {
        &mut *self.files
    }

    fn now(&self) -> Now {
        Now { steady: self.started.elapsed(), unix_millis: unix_millis() }
    }
}

/// Messages that wait for the log, and their room in the queue.
struct Waiting {
    messages: Vec<Incoming>,
    /// Room in the queue, which is free again when this is dropped.
    _room: OwnedSemaphorePermit,
    /// Memory of the process, which is free again then, too.
    _memory: Option<Partial>,
}

impl AsRef<[Incoming]> for Waiting {
    fn as_ref(&self) -> &[Incoming] {
        &self.messages
    }
}

/// The channel to a caller that waits until messages are synced.
type Reply = oneshot::Sender<Result<(), StoreError>>;

/// The state of the thread.
pub(super) struct Keeper {
    disk: Disk,
    core: keeper::Keeper<Waiting, Reply>,
    commands: Receiver<Command>,
    pause: Pause,
    /// Callers that wait until the sink has acknowledged all messages.
    drains: Vec<oneshot::Sender<()>>,
    /// Whether a caller has waited for that, so that the log stays unused for a while.
    is_left: bool,
    published: Arc<Mutex<Figures>>,
    turn: Turn,
    next: watch::Sender<u64>,
}

impl Keeper {
    /// Opens the log. Also returns the state that handles see.
    pub(super) fn open(
        files: Box<dyn Files + Send>,
        settings: StoreSettings,
        (commands, pause): (Receiver<Command>, Pause),
    ) -> Result<(Self, Seen), StoreError> {
        let mut disk = Disk { files, started: Instant::now() };
        let StoreSettings { prefix, log, blocks, dead_bytes, gather, .. } = settings;
        let core = keeper::Keeper::open(&mut disk, KeeperSettings { prefix, log, blocks, dead_bytes, gather })?;
        let (next, receiver) = watch::channel(core.next());
        let published = Arc::new(Mutex::new(Figures::default()));
        let (turn, drains, is_left) = (Turn::default(), Vec::new(), false);
        let seen = (receiver, published.clone(), turn.clone());
        let mut keeper = Self { disk, core, commands, pause, drains, is_left, published, turn, next };
        keeper.publish();
        Ok((keeper, seen))
    }

    /// Takes turns until the store is closed, or the last handle is gone.
    pub(super) fn run(mut self) {
        let closed = loop {
            self.turn.end();
            self.gather();
            let received = self.receive();
            self.turn.begin();
            match received {
                Ok(command) => {
                    self.pause.begin_turn();
                    if let Some(closed) = self.take_all(command) {
                        break Some(closed);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break None,
            }
            self.turn();
        };
        self.core.close(&mut self.disk);
        if self.is_left {
            self.core.release(&mut self.disk);
        }
        self.tell();
        // The folder is free before the caller is notified.
        drop(self);
        if let Some(closed) = closed {
            // The caller may have gone.
            let _ = closed.send(());
        }
    }

    /// Lets messages gather for a while.
    fn gather(&self) {
        if let Some(until) = self.core.pauses_until() {
            self.pause.take(until.saturating_sub(self.disk.now().steady));
        }
    }

    fn receive(&self) -> Result<Command, RecvTimeoutError> {
        match self.core.due() {
            Some(at) => self.commands.recv_timeout(at.saturating_sub(self.disk.now().steady)),
            None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Takes a command, and those that came meanwhile: they share the write and the sync. Returns the caller to notify
    /// when the store is closed.
    fn take_all(&mut self, mut command: Command) -> Option<oneshot::Sender<()>> {
        for _ in 1..TURN {
            if let Some(closed) = self.take_one(command) {
                return Some(closed);
            }
            command = self.commands.try_recv().ok()?;
        }
        self.take_one(command)
    }

    fn take_one(&mut self, command: Command) -> Option<oneshot::Sender<()>> {
        match command {
            Command::Append(Append { messages, bytes, sync, reply, room, memory }) => {
                let messages = Waiting { messages, _room: room, _memory: memory };
                self.core.append(keeper::Append { messages, bytes, sync, reply });
            }
            Command::Call { call: Call::Close(closed), .. } => return Some(closed),
            Command::Call { call, .. } => self.answer(call),
        }
        None
    }

    /// Answers a call. The caller may have gone.
    fn answer(&mut self, call: Call) {
        match call {
            Call::Read { from, bound, reply } => {
                let read = self.core.read(&mut self.disk, from, bound);
                let _ = reply.send(read.map_err(StoreError::from));
            }
            Call::Acknowledge { next, reply } => {
                self.core.acknowledge(&mut self.disk, next);
                let _ = reply.send(());
            }
            Call::Dead { number, why, reply } => {
                let put = self.core.put_aside(&mut self.disk, number, &why);
                let fate = put.map(|is_put| if is_put { Fate::PutAside } else { Fate::Dropped });
                let _ = reply.send(fate.map_err(StoreError::from));
            }
            Call::SkipSegment { from, reply } => {
                let _ = reply.send(self.core.skip_segment(&mut self.disk, from));
            }
            Call::Bound(max_bytes) => self.core.bound(max_bytes),
            Call::Drain(drained) => {
                self.is_left = true;
                self.drains.push(drained);
            }
            // The caller of this function has taken the call to close.
            Call::Close(_) => {}
        }
    }

    fn turn(&mut self) {
        self.core.write(&mut self.disk);
        self.tell();
        self.core.tend(&mut self.disk);
        self.tell();
        if self.core.is_drained() {
            for drained in self.drains.drain(..) {
                // The caller may not wait any more.
                let _ = drained.send(());
            }
        }
    }

    /// Notifies readers of new messages, and senders of the outcome of their appends.
    fn tell(&mut self) {
        // The figures are published first: whoever gets an answer finds its messages counted.
        self.publish();
        let next = self.core.next();
        self.next.send_if_modified(|known| replace(known, next) != next);
        for Answer { reply, outcome } in self.core.answers() {
            // The sender may not wait for the answer.
            let _ = reply.send(outcome.map_err(StoreError::from));
        }
    }

    fn publish(&mut self) {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).clone_from(self.core.figures());
    }
}
