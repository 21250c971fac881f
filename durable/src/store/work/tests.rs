use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use durable_core::{FileError, Files, Message, Settings, WhenFull};
use tempfile::{TempDir, tempdir};

use super::super::StoreSettings;
use super::*;
use crate::Folder;

const ALL: ReadBound = ReadBound { messages: 8, bytes: 1 << 20 };

/// What fails on a disk.
#[derive(Clone, Debug, Default)]
struct Fails {
    /// Reads of the first segment.
    reads: Arc<AtomicBool>,
    /// Whatever is written.
    writes: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Worn {
    folder: Folder,
    fails: Fails,
}

fn well(fails: &AtomicBool) -> Result<(), FileError> {
    if fails.load(Ordering::Relaxed) { Err(FileError::Other("input/output error".to_owned())) } else { Ok(()) }
}

impl Files for Worn {
    fn create(&mut self, name: &str) -> Result<(), FileError> {
        well(&self.fails.writes)?;
        self.folder.create(name)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        well(&self.fails.writes)?;
        self.folder.append(name, bytes)
    }

    fn read_at(&mut self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, FileError> {
        if name == "log-0000000000000000.log" {
            well(&self.fails.reads)?;
        }
        self.folder.read_at(name, offset, into)
    }

    fn sync(&mut self, name: &str) -> Result<(), FileError> {
        self.folder.sync(name)
    }

    fn sync_folder(&mut self) -> Result<(), FileError> {
        self.folder.sync_folder()
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), FileError> {
        self.folder.rename(from, to)
    }

    fn remove(&mut self, name: &str) -> Result<(), FileError> {
        self.folder.remove(name)
    }

    fn list(&mut self) -> Result<Vec<(String, u64)>, FileError> {
        self.folder.list()
    }
}

/// A keeper of three messages: two in its first segment, and one in the second.
fn keeper(home: &TempDir, fails: Fails) -> Keeper {
    let log = Settings {
        max_bytes: 64 << 10,
        max_message_bytes: 4096,
        max_age: None,
        when_full: WhenFull::Refuse,
        sync_after: Duration::from_secs(3600),
        sync_bytes: 1 << 30,
    };
    let settings = StoreSettings { prefix: "log-".to_owned(), log, blocks: false, dead_bytes: 0, queue_bytes: 1 << 20 };
    let folder = Folder::open(home.path()).expect("a folder");
    let (_, commands) = mpsc::channel();
    let (mut keeper, ..) = Keeper::open(Box::new(Worn { folder, fails }), settings, commands).expect("a log");
    for _ in 0..3 {
        let message = Message { source: b"192.0.2.1:514", received_millis: 7, payload: &[b'.'; 4000] };
        keeper.log.append(&mut keeper.world.outside(), &[message]).expect("room");
    }
    keeper
}

#[test]
fn a_segment_that_cannot_be_read_for_a_minute_is_given_up_if_the_disk_takes_the_cursor() {
    let home = tempdir().expect("a folder");
    let fails = Fails::default();
    let mut keeper = keeper(&home, fails.clone());
    fails.reads.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        keeper.read(0, ALL).expect_err("it may go away");
    }
    keeper.world.started = keeper.world.started.checked_sub(READ_WITHIN).expect("a time");
    fails.writes.store(true, Ordering::Relaxed);
    keeper.read(0, ALL).expect_err("the disk is away");
    assert_eq!(keeper.figures.lost, 0);
    fails.writes.store(false, Ordering::Relaxed);
    let read = keeper.read(0, ALL).expect("the segment is given up");
    assert_eq!((read.messages.len(), read.next, keeper.figures.lost), (0, 2, 2));
    let read = keeper.read(read.next, ALL).expect("the other segment is well");
    assert_eq!((read.messages.len(), read.next), (1, 3));
}

#[test]
fn an_error_that_goes_away_gives_nothing_up_however_long_it_was() {
    let home = tempdir().expect("a folder");
    let fails = Fails::default();
    let mut keeper = keeper(&home, fails.clone());
    fails.reads.store(true, Ordering::Relaxed);
    keeper.read(0, ALL).expect_err("it may go away");
    fails.reads.store(false, Ordering::Relaxed);
    keeper.world.started = keeper.world.started.checked_sub(READ_WITHIN).expect("a time");
    assert_eq!(keeper.read(0, ALL).expect("it went away").messages.len(), 3);
    assert_eq!(keeper.unread, None, "a later error has its own minute");
}

#[test]
fn what_is_lost_is_counted_once_though_the_sink_goes_back() {
    let home = tempdir().expect("a folder");
    let mut keeper = keeper(&home, Fails::default());
    for messages in [0..2, 0..1, 1..3] {
        keeper.world.told.push(Told::Lost { messages });
        keeper.hear();
    }
    assert_eq!(keeper.figures.lost, 3);
}
