//! The owner of a log. It decides when messages are written, who waits and who is refused, when the cursor is saved and
//! what is given up, and it counts and reports all of that.
//!
//! A [`Keeper`] has a log, its dead letters and the messages that wait for them. Its shell has a thread, the queue to
//! it, and those who wait for answers. The shell hands over up to [`TURN`] commands, and takes a turn:
//! [`Keeper::write`] and then [`Keeper::tend`], with [`Keeper::answers`] after each, as a sync takes long. The next
//! turn is due at [`Keeper::due`], or when there are commands. Until [`Keeper::pauses_until`], only a command that
//! somebody waits for, or a queue that fills, needs one.

use std::collections::VecDeque;
use std::mem::take;
use std::time::Duration;
use std::vec::Drain;

use self::ledger::Ledger;
use crate::{DeadLetters, Error, FileError, Files, Log, Message, Now, Outside, Reader, Reported, Settings};

mod calls;
mod event;
mod figures;
mod ledger;
mod messages;

pub use event::{StoreEvent, StoreEvents};
pub use figures::{Drops, Figures};
pub use messages::{Incoming, Kept, ReadBound, ReadMessages};

/// The most commands that share one sync.
pub const TURN: usize = 256;
/// The most bytes of commands that share one write. The system reads the encoded records again: a batch of this size is
/// still in the caches of the processor then, and its memory is free for the next batch before that is encoded.
const WRITE_BYTES: u64 = 256 * 1024;
/// The pause after the disk failed, or was full.
const RETRY: Duration = Duration::from_secs(1);
/// The cursor is saved no more often than this, as a save costs two syncs. A note is written each time the cursor
/// moves.
const COMMIT_AFTER: Duration = Duration::from_millis(100);
/// The interval at which the oldest message and old segments are looked up.
const TICK: Duration = Duration::from_secs(1);

/// The disk and the clocks.
pub trait World {
    /// The folder.
    fn files(&mut self) -> &mut dyn Files;
    /// The time. It is read before each step and after each failure, as a disk that fails may take long.
    fn now(&self) -> Now;
}

/// The world for one call to a log.
fn outside<'a>(world: &'a mut dyn World, reported: &'a mut Vec<Reported>) -> Outside<'a> {
    let now = world.now();
    Outside { files: world.files(), now, reported }
}

/// The settings of a keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperSettings {
    /// The prefix of the file names.
    pub prefix: String,
    /// The bounds of the log.
    pub log: Settings,
    /// Whether messages that the log or the disk has no room for wait until there is some, rather than being dropped.
    pub blocks: bool,
    /// The most bytes of dead letters; 0: none are kept.
    pub dead_bytes: u64,
    /// How long after the beginning of a turn that wrote messages others gather for the next one, unless somebody waits
    /// for them.
    pub gather: Duration,
}

/// A command to append messages with one write. Commands are executed in order.
#[derive(Debug)]
pub struct Append<M, R> {
    /// The messages, and whatever is held with them: it is dropped once they are written or refused.
    pub messages: M,
    /// The bytes that the messages count in the queue, which are more than those of their records on disk.
    pub bytes: u64,
    /// Whether the messages are synced at once, as their sender waits for the sync.
    pub sync: bool,
    /// The recipient of the answer.
    pub reply: R,
}

/// The outcome of an append.
#[derive(Debug)]
pub struct Answer<R> {
    /// The recipient of the answer.
    pub reply: R,
    /// `Ok`: all of the messages are synced. Only then may their sender get an acknowledgement.
    pub outcome: Result<(), NotKept>,
}

/// Why messages may not be on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// The log or the disk refused them.
    Refused(Error),
    /// Their sync failed.
    NotSynced(NotSynced),
}

/// A sync failed, so its messages may never get to the disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("messages were not synced: {}; {}", .0, .0.remedy())]
pub struct NotSynced(pub FileError);

/// The owner of a log. `M` holds messages while they wait for the log. `R` identifies who waits until they are synced;
/// it is returned in an [`Answer`].
#[derive(Debug)]
pub struct Keeper<M, R> {
    log: Log,
    /// Reports of the log.
    reported: Vec<Reported>,
    dead: DeadLetters,
    /// Reports of the dead letters.
    letters: Vec<Reported>,
    /// The reader of the sink.
    reader: Reader,
    /// The reader of single messages.
    aside: Reader,
    settings: KeeperSettings,
    waiting: VecDeque<Append<M, R>>,
    /// Whether a sender waits for the sync.
    sync: bool,
    /// The time before which no append is tried.
    retry_at: Option<Duration>,
    /// The beginning of the last turn that had messages to write.
    wrote_at: Option<Duration>,
    /// The time at which the cursor is saved.
    commit_at: Option<Duration>,
    ticked: Option<Duration>,
    /// The number that `oldest_received_millis` of the figures belongs to.
    oldest: Option<u64>,
    /// The message that cannot be read, and the time of its first failure.
    unread: Option<(u64, Duration)>,
    ledger: Ledger<R>,
}

impl<M: AsRef<[Incoming]>, R> Keeper<M, R> {
    /// Opens the log and its dead letters.
    pub fn open(world: &mut dyn World, settings: KeeperSettings) -> Result<Self, Error> {
        let mut reported = Vec::new();
        let log = Log::open(&mut outside(world, &mut reported), &settings.prefix, settings.log.clone())?;
        let prefix = format!("{}dead-", settings.prefix);
        let mut letters = Vec::new();
        let mut beside = outside(world, &mut letters);
        let dead = DeadLetters::open(&mut beside, &prefix, settings.dead_bytes, settings.log.max_message_bytes)?;
        let (reader, aside) = (log.reader(), log.reader());
        let mut keeper = Self {
            log,
            reported,
            dead,
            letters,
            reader,
            aside,
            settings,
            waiting: VecDeque::new(),
            sync: false,
            retry_at: None,
            wrote_at: None,
            commit_at: None,
            ticked: None,
            oldest: None,
            unread: None,
            ledger: Ledger::new(),
        };
        keeper.hear();
        keeper.hear_letters();
        Ok(keeper)
    }

    /// When the next turn is due, on the steady clock. `None`: only when there are commands.
    pub fn due(&self) -> Option<Duration> {
        let tick = (self.log.backlog() > 0).then(|| self.ticked.map_or(Duration::ZERO, |ticked| ticked + TICK));
        [self.log.sync_at(), self.commit_at, self.retry_at, tick].into_iter().flatten().min()
    }

    /// Until when messages gather, on the steady clock. A turn for a few of them costs almost as much as one for many.
    /// `None`: no messages were written yet.
    pub fn pauses_until(&self) -> Option<Duration> {
        let gathered = self.wrote_at?.saturating_add(self.settings.gather);
        Some(self.due().map_or(gathered, |due| due.min(gathered)))
    }

    /// Takes messages, which wait for the next turn.
    pub fn append(&mut self, append: Append<M, R>) {
        self.waiting.push_back(append);
    }

    /// Begins a turn: saves the cursor if that is due, and writes the waiting messages unless there is a pause.
    pub fn write(&mut self, world: &mut dyn World) {
        let now = world.now().steady;
        if self.commit_at.is_some_and(|at| at <= now) {
            self.commit(world);
        }
        if self.retry_at.is_none_or(|at| at <= now) {
            if !self.waiting.is_empty() {
                self.wrote_at = Some(now);
            }
            self.append_waiting(world);
        }
    }

    /// Ends a turn: syncs if a sender waits for it or it is due, drops what is too old, and looks up the oldest message
    /// now and then.
    pub fn tend(&mut self, world: &mut dyn World) {
        let now = world.now().steady;
        if take(&mut self.sync) {
            // `Log::sync` reports a failure itself.
            let _ = self.log.sync(&mut outside(world, &mut self.reported));
        }
        let tended = self.log.tend(&mut outside(world, &mut self.reported));
        let is_sync = |reported: &Reported| matches!(reported, Reported::Synced { .. } | Reported::SyncFailed { .. });
        if self.reported.iter().any(is_sync) {
            self.ledger.figures.syncs += 1;
            self.ledger.figures.sync_time += world.now().steady.saturating_sub(now);
        }
        self.hear();
        if let Err(error) = tended {
            self.ledger.fails(error.to_string());
        }
        if self.log.backlog() == 0 {
            (self.oldest, self.ledger.figures.oldest_received_millis) = (None, None);
        } else if self.ticked.is_none_or(|ticked| ticked + TICK <= now) {
            self.ticked = Some(now);
            self.find_oldest(world);
        }
    }

    /// Writes and syncs the waiting messages and saves the cursor, due or not. If the keeper blocks, messages that the
    /// log still refuses get no answer.
    pub fn close(&mut self, world: &mut dyn World) {
        self.append_waiting(world);
        // `Log::sync` reports a failure itself.
        let _ = self.log.sync(&mut outside(world, &mut self.reported));
        self.hear();
        self.commit(world);
    }

    /// Frees the disk space of a log whose messages are all acknowledged, once it is closed and its listener is gone.
    pub fn release(&mut self, world: &mut dyn World) {
        let released = self.log.release(&mut outside(world, &mut self.reported));
        self.hear();
        if let Err(error) = released {
            self.ledger.fails(error.to_string());
        }
    }

    /// The answers that are due by now, each once.
    pub fn answers(&mut self) -> Drain<'_, Answer<R>> {
        self.ledger.answers.drain(..)
    }

    /// The number of the next message: those before it can be read.
    pub const fn next(&self) -> u64 {
        self.log.next()
    }

    /// Whether no message waits, and the sink has acknowledged all of them.
    pub fn is_drained(&self) -> bool {
        self.waiting.is_empty() && self.log.backlog() == 0
    }

    /// The present figures.
    pub fn figures(&mut self) -> &Figures {
        let figures = &mut self.ledger.figures;
        (figures.next, figures.cursor) = (self.log.next(), self.log.cursor());
        (figures.bytes, figures.dead_bytes) = (self.log.bytes(), self.dead.bytes());
        figures
    }

    fn append_waiting(&mut self, world: &mut dyn World) {
        self.retry_at = None;
        while !self.waiting.is_empty() {
            let count = self.joined();
            let Err(error) = self.append_first(world, count) else {
                continue;
            };
            let is_full = matches!(error, Error::Full { .. });
            if error.is_no_space() {
                // It is no event, as there would be one each time that a removed segment makes space for a while. The
                // count shows how long the disk stays full.
                self.ledger.figures.no_space += 1;
            } else if !is_full {
                self.ledger.fails(error.to_string());
            }
            let may_go_away = is_full || matches!(error, Error::File { .. });
            if self.settings.blocks && may_go_away {
                self.retry_at = Some(world.now().steady + RETRY);
                return;
            }
            self.refuse_first(count, is_full, &error);
        }
    }

    /// How many waiting commands share the next write: at most half a segment, so that each batch has room in one.
    fn joined(&self) -> usize {
        let most = WRITE_BYTES.min(self.settings.log.segment_bytes() / 2);
        let mut bytes: u64 = 0;
        let fits = |append: &&Append<M, R>| {
            bytes = bytes.saturating_add(append.bytes);
            bytes <= most
        };
        self.waiting.iter().take_while(fits).count().max(1)
    }

    fn append_first(&mut self, world: &mut dyn World, count: usize) -> Result<(), Error> {
        let first = self.waiting.iter().take(count).flat_map(|append| append.messages.as_ref());
        let messages: Vec<Message<'_>> = first.map(Incoming::message).collect();
        let appended = self.log.append(&mut outside(world, &mut self.reported), &messages);
        drop(messages);
        // The append may have ended a segment, and so synced earlier messages.
        self.hear();
        let mut end = appended?.start;
        for append in self.waiting.drain(..count) {
            let messages = append.messages.as_ref().len() as u64;
            end += messages;
            self.ledger.figures.appended += messages;
            self.sync |= append.sync;
            if messages == 0 {
                self.ledger.answer(append.reply, Ok(()));
            } else {
                self.ledger.wait(end, append.reply);
            }
        }
        Ok(())
    }

    fn refuse_first(&mut self, count: usize, is_full: bool, error: &Error) {
        for append in self.waiting.drain(..count) {
            let Figures { dropped, refused, refused_full, .. } = &mut self.ledger.figures;
            let messages = append.messages.as_ref().len() as u64;
            match (append.sync, is_full) {
                // The sender learns of the refusal, and sends the messages again.
                (true, _) => *refused += messages,
                (false, true) => dropped.full += messages,
                (false, false) => dropped.failed += messages,
            }
            if append.sync && is_full {
                *refused_full += messages;
            }
            self.ledger.answer(append.reply, Err(NotKept::Refused(error.clone())));
        }
    }

    /// Saves the cursor, and removes the segments that it has passed.
    fn commit(&mut self, world: &mut dyn World) {
        let committed = self.log.commit(&mut outside(world, &mut self.reported));
        self.hear();
        match committed {
            // There may be room now.
            Ok(()) => (self.commit_at, self.retry_at) = (None, None),
            Err(error) => {
                self.commit_at = Some(world.now().steady + RETRY);
                self.ledger.figures.no_space += u64::from(error.is_no_space());
                self.ledger.fails(error.to_string());
            }
        }
    }

    /// Takes the reports of the log.
    fn hear(&mut self) {
        self.ledger.hear(&mut self.reported);
    }

    /// Takes the reports of the dead letters. Returns whether a message was dropped rather than put aside.
    fn hear_letters(&mut self) -> bool {
        self.ledger.hear_letters(&mut self.letters)
    }
}
