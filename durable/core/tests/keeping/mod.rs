//! A keeper with its disk, and a clock that stands still.

#![allow(dead_code, reason = "each test uses some of these functions")]

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use durable_core::keeper::{Append, Figures, Incoming, Keeper, KeeperSettings, Kept, NotKept, ReadBound, World};
use durable_core::{Files, Now};

use crate::disk::{self, Disk};

/// More than there is.
pub(crate) const ALL: ReadBound = ReadBound { messages: 1000, bytes: 1 << 20 };

/// Eight segments of 512 bytes, each with ten messages.
pub(crate) fn settings() -> KeeperSettings {
    KeeperSettings {
        prefix: "log-".to_owned(),
        log: disk::settings(),
        blocks: false,
        dead_bytes: 8192,
        gather: Duration::from_millis(20),
    }
}

/// The message with this id, of 45 bytes on disk.
pub(crate) fn message(id: u64) -> Incoming {
    Incoming { source: Arc::from(&b"192.0.2.1"[..]), received_millis: 1000 + id, payload: id.to_le_bytes().to_vec() }
}

/// The ids of messages.
pub(crate) fn ids(messages: &[Kept]) -> Vec<u64> {
    messages.iter().map(|kept| kept.received_millis - 1000).collect()
}

/// The disk, and a clock that moves by what a test waits and what the disk takes.
pub(crate) struct Still {
    pub(crate) disk: Disk,
    waited: Duration,
}

impl World for Still {
    fn files(&mut self) -> &mut dyn Files {
        &mut self.disk
    }

    fn now(&self) -> Now {
        Now { steady: self.waited + self.disk.spent, unix_millis: 1_800_000_000_000 }
    }
}

/// What became of a command.
pub(crate) type Outcome = (u64, Result<(), NotKept>);

/// A keeper in its world. Commands are answered by their ids.
pub(crate) struct Keeping {
    pub(crate) keeper: Keeper<Vec<Incoming>, u64>,
    pub(crate) world: Still,
}

impl Keeping {
    pub(crate) fn new(settings: KeeperSettings) -> Self {
        Self::on(Disk::new(1), settings)
    }

    fn on(disk: Disk, settings: KeeperSettings) -> Self {
        let mut world = Still { disk, waited: Duration::from_secs(1000) };
        let keeper = Keeper::open(&mut world, settings).expect("a log");
        Self { keeper, world }
    }

    /// The process starts again.
    pub(crate) fn restart(self, settings: KeeperSettings) -> Self {
        Self::on(self.world.disk, settings)
    }

    /// A command with the message of its id.
    pub(crate) fn append(&mut self, id: u64, sync: bool) {
        self.append_all(id, vec![message(id)], sync);
    }

    pub(crate) fn append_all(&mut self, id: u64, messages: Vec<Incoming>, sync: bool) {
        let bytes = messages.iter().map(Incoming::cost).sum::<usize>() as u64;
        self.keeper.append(Append { messages, bytes, sync, reply: id });
    }

    /// Commands of one message each, each of which is synced.
    pub(crate) fn fill(&mut self, ids: Range<u64>) {
        for id in ids {
            self.append(id, true);
            assert_eq!(self.turn(), [(id, Ok(()))]);
        }
    }

    pub(crate) fn turn(&mut self) -> Vec<Outcome> {
        self.keeper.write(&mut self.world);
        self.keeper.tend(&mut self.world);
        self.answers()
    }

    /// Takes a turn. Returns whether nobody was answered, and nothing changed on the disk.
    pub(crate) fn is_silent(&mut self) -> bool {
        let calls = self.world.disk.calls;
        self.turn().is_empty() && self.world.disk.calls == calls
    }

    pub(crate) fn answers(&mut self) -> Vec<Outcome> {
        self.keeper.answers().map(|answer| (answer.reply, answer.outcome)).collect()
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.world.waited += Duration::from_millis(millis);
    }

    /// Milliseconds until the next turn is due.
    pub(crate) fn due(&self) -> Option<u128> {
        self.keeper.due().map(|at| at.saturating_sub(self.world.now().steady).as_millis())
    }

    /// Milliseconds for which messages gather.
    pub(crate) fn pause(&self) -> Option<u128> {
        self.keeper.pauses_until().map(|until| until.saturating_sub(self.world.now().steady).as_millis())
    }

    pub(crate) fn acknowledge(&mut self, next: u64) {
        self.keeper.acknowledge(&mut self.world, next);
    }

    /// The cursor that is saved: notes of it do not count.
    pub(crate) fn saved(&mut self) -> u64 {
        let bytes = self.world.disk.bytes("log-cursor");
        u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"))
    }

    pub(crate) fn figures(&mut self) -> Figures {
        self.keeper.figures().clone()
    }
}
