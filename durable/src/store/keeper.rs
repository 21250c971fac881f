//! The thread that owns a log.

use std::collections::VecDeque;
use std::mem::take;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use durable_core::{DeadLetters, Error, Files, Log, Message, Now, Outside, Reader, Told};
use tokio::sync::{oneshot, watch};

use super::command::{Append, Call, Command};
use super::{Figures, Incoming, StoreError, StoreSettings};
use crate::clock::unix_millis;

/// Commands that share one write and one sync at most.
const TURN: usize = 256;
/// The pause after the disk failed, or was full.
const RETRY: Duration = Duration::from_secs(1);
/// The cursor is saved no more often than this, as that costs two syncs.
const COMMIT_AFTER: Duration = Duration::from_millis(100);
/// How often the age of the oldest message is looked up, and old segments are.
const TICK: Duration = Duration::from_secs(1);

/// The folder, the clocks, and what the log tells.
pub(super) struct World {
    pub(super) files: Box<dyn Files + Send>,
    pub(super) started: Instant,
    pub(super) told: Vec<Told>,
}

impl World {
    pub(super) fn now(&self) -> Now {
        Now { steady: self.started.elapsed(), unix_millis: unix_millis() }
    }

    pub(super) fn outside(&mut self) -> Outside<'_> {
        let now = self.now();
        Outside { files: &mut *self.files, now, told: &mut self.told }
    }

    /// As [`Self::outside`], with another list for what is told.
    pub(super) fn outside_with<'a>(&'a mut self, told: &'a mut Vec<Told>) -> Outside<'a> {
        let now = self.now();
        Outside { files: &mut *self.files, now, told }
    }
}

/// Messages that wait for their sync.
pub(super) struct Pending {
    /// The number after the last of them.
    pub(super) end: u64,
    pub(super) reply: oneshot::Sender<Result<(), StoreError>>,
}

/// What the thread has.
pub(super) struct Keeper {
    pub(super) world: World,
    pub(super) log: Log,
    pub(super) dead: DeadLetters,
    /// What is told of dead letters.
    pub(super) letters: Vec<Told>,
    /// Where the sink reads.
    pub(super) reader: Reader,
    /// Where single messages are read.
    pub(super) aside: Reader,
    pub(super) settings: StoreSettings,
    commands: Receiver<Command>,
    waiting: VecDeque<Append>,
    /// In order of their numbers.
    pub(super) pending: VecDeque<Pending>,
    /// Whether a sender waits for the sync.
    sync: bool,
    /// No append is tried before.
    pub(super) retry_at: Option<Duration>,
    /// When the cursor is saved.
    pub(super) commit_at: Option<Duration>,
    /// Who waits until the sink has acknowledged all messages.
    pub(super) drains: Vec<oneshot::Sender<()>>,
    ticked: Option<Duration>,
    /// The number that `oldest_received_millis` of the figures belongs to.
    pub(super) oldest: Option<u64>,
    /// The message that cannot be read, and since when.
    pub(super) unread: Option<(u64, Duration)>,
    /// What is lost before this message was counted.
    pub(super) lost_before: u64,
    pub(super) figures: Figures,
    published: Arc<Mutex<Figures>>,
    next: watch::Sender<u64>,
}

/// A keeper, and what handles look at: the number of the next message, and the figures.
type Opened = (Keeper, watch::Receiver<u64>, Arc<Mutex<Figures>>);

impl Keeper {
    /// Opens the log.
    pub(super) fn open(
        files: Box<dyn Files + Send>,
        settings: StoreSettings,
        commands: Receiver<Command>,
    ) -> Result<Opened, StoreError> {
        let mut world = World { files, started: Instant::now(), told: Vec::new() };
        let log = Log::open(&mut world.outside(), &settings.prefix, settings.log.clone())?;
        let prefix = format!("{}dead-", settings.prefix);
        let mut letters = Vec::new();
        let mut outside = world.outside_with(&mut letters);
        let dead = DeadLetters::open(&mut outside, &prefix, settings.dead_bytes, settings.log.max_message_bytes)?;
        let (reader, aside) = (log.reader(), log.reader());
        let (next, receiver) = watch::channel(log.next());
        let published = Arc::new(Mutex::new(Figures::default()));
        let mut keeper = Self {
            world,
            log,
            dead,
            letters,
            reader,
            aside,
            settings,
            commands,
            waiting: VecDeque::new(),
            pending: VecDeque::new(),
            sync: false,
            retry_at: None,
            commit_at: None,
            drains: Vec::new(),
            ticked: None,
            oldest: None,
            unread: None,
            lost_before: 0,
            figures: Figures::default(),
            published: published.clone(),
            next,
        };
        keeper.hear();
        keeper.hear_letters();
        keeper.publish();
        Ok((keeper, receiver, published))
    }

    /// Takes turns until the store is closed, or the last handle is gone.
    pub(super) fn run(mut self) {
        let closed = loop {
            match self.receive() {
                Ok(command) => {
                    if let Some(closed) = self.take_all(command) {
                        break Some(closed);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break None,
            }
            self.turn();
        };
        self.end();
        // The folder is free before the caller hears of it.
        drop(self);
        if let Some(closed) = closed {
            // The caller may have gone.
            let _ = closed.send(());
        }
    }

    fn receive(&self) -> Result<Command, RecvTimeoutError> {
        match self.due() {
            Some(at) => self.commands.recv_timeout(at.saturating_sub(self.world.now().steady)),
            None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// When the next turn is due.
    fn due(&self) -> Option<Duration> {
        let tick = (self.log.backlog() > 0).then(|| self.ticked.map_or(Duration::ZERO, |ticked| ticked + TICK));
        [self.log.sync_at(), self.commit_at, self.retry_at, tick].into_iter().flatten().min()
    }

    /// Takes a command, and those that came meanwhile: they share the write and the sync. Returns whom to tell when the
    /// store is closed.
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
            Command::Append(append) => self.waiting.push_back(append),
            Command::Call { call: Call::Close(closed), .. } => return Some(closed),
            Command::Call { call, .. } => self.answer(call),
        }
        None
    }

    fn turn(&mut self) {
        let now = self.world.now().steady;
        if self.commit_at.is_some_and(|at| at <= now) {
            self.commit();
        }
        if self.retry_at.is_none_or(|at| at <= now) {
            self.append_waiting();
        }
        self.tend();
        if self.log.backlog() == 0 {
            (self.oldest, self.figures.oldest_received_millis) = (None, None);
        } else if self.ticked.is_none_or(|ticked| ticked + TICK <= now) {
            self.ticked = Some(now);
            self.find_oldest();
        }
        self.publish();
        if self.waiting.is_empty() && self.log.backlog() == 0 {
            for drained in self.drains.drain(..) {
                // The caller may not wait any more.
                let _ = drained.send(());
            }
        }
    }

    fn append_waiting(&mut self) {
        self.retry_at = None;
        while !self.waiting.is_empty() {
            let count = self.joined();
            let Err(error) = self.append_first(count) else {
                continue;
            };
            let is_full = matches!(error, Error::Full { .. }) || error.is_no_space();
            if !is_full {
                self.fails(&error);
            }
            let may_go_away = is_full || matches!(error, Error::File { .. });
            if self.settings.blocks && may_go_away {
                self.retry_at = Some(self.world.now().steady + RETRY);
                return;
            }
            self.refuse_first(count, is_full, &error);
        }
    }

    /// How many of the commands that wait share one write. Half a segment leaves room in it for each batch.
    fn joined(&self) -> usize {
        let most = self.settings.log.segment_bytes() / 2;
        let mut bytes: u64 = 0;
        let fits = |append: &&Append| {
            bytes = bytes.saturating_add(append.bytes);
            bytes <= most
        };
        self.waiting.iter().take_while(fits).count().max(1)
    }

    fn append_first(&mut self, count: usize) -> Result<(), Error> {
        let first = self.waiting.iter().take(count).flat_map(|append| &append.messages);
        let messages: Vec<Message<'_>> = first.map(Incoming::message).collect();
        let appended = self.log.append(&mut self.world.outside(), &messages);
        drop(messages);
        // Earlier messages, whose segment has ended.
        self.hear();
        let mut end = appended?.start;
        for append in self.waiting.drain(..count) {
            let messages = append.messages.len() as u64;
            end += messages;
            self.figures.appended += messages;
            self.sync |= append.sync;
            if messages == 0 {
                // The sender may not wait for it.
                let _ = append.reply.send(Ok(()));
            } else {
                self.pending.push_back(Pending { end, reply: append.reply });
            }
        }
        self.next.send_replace(end);
        Ok(())
    }

    fn refuse_first(&mut self, count: usize, is_full: bool, error: &Error) {
        for append in self.waiting.drain(..count) {
            let Figures { dropped, refused, .. } = &mut self.figures;
            let counted = match (append.sync, is_full) {
                // Its sender hears so, and sends them again.
                (true, _) => refused,
                (false, true) => &mut dropped.full,
                (false, false) => &mut dropped.failed,
            };
            *counted += append.messages.len() as u64;
            // The sender may not wait for it.
            let _ = append.reply.send(Err(StoreError::Log(error.clone())));
        }
    }

    /// Syncs if a sender waits for it or it is due, and drops what is too old.
    fn tend(&mut self) {
        let started = Instant::now();
        if take(&mut self.sync) {
            // A failure is told.
            let _ = self.log.sync(&mut self.world.outside());
        }
        let tended = self.log.tend(&mut self.world.outside());
        let is_sync = |told: &Told| matches!(told, Told::Synced { .. } | Told::SyncFailed { .. });
        if self.world.told.iter().any(is_sync) {
            self.figures.syncs += 1;
            self.figures.sync_time += started.elapsed();
        }
        self.hear();
        if let Err(error) = tended {
            self.fails(&error);
        }
    }

    /// Saves the cursor, and removes what it has passed.
    fn commit(&mut self) {
        let committed = self.log.commit(&mut self.world.outside());
        self.hear();
        match committed {
            // There may be room now.
            Ok(()) => (self.commit_at, self.retry_at) = (None, None),
            Err(error) => {
                self.commit_at = Some(self.world.now().steady + RETRY);
                self.fails(&error);
            }
        }
    }

    /// When a cursor that moves now is saved: a crash costs as much of what was acknowledged as of what came.
    pub(super) fn commit_due(&self) -> Duration {
        self.world.now().steady + self.settings.log.sync_after.max(COMMIT_AFTER)
    }

    fn end(&mut self) {
        self.append_waiting();
        // A failure is told.
        let _ = self.log.sync(&mut self.world.outside());
        self.hear();
        self.commit();
        self.publish();
    }

    fn publish(&mut self) {
        let figures = &mut self.figures;
        (figures.next, figures.cursor) = (self.log.next(), self.log.cursor());
        (figures.bytes, figures.dead_bytes) = (self.log.bytes(), self.dead.bytes());
        self.published.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.figures);
    }
}
