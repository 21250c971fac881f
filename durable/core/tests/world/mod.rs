//! A log with a sender, a sink and a disk, and what the sink is owed.

#![allow(dead_code, reason = "each test uses some of these functions")]

use std::collections::BTreeMap;
use std::time::Duration;

use durable_core::{Error, Log, Message, Now, Outside, Reader, Reported, Settings, WhenFull};

use crate::disk::Disk;

/// The message with this id: its number, and bytes that follow from it.
pub(crate) fn payload(id: u64) -> Vec<u8> {
    let low = id.to_le_bytes()[0];
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.resize(8 + usize::from(low.wrapping_mul(37) % 57), low);
    bytes
}

/// The world of one log.
pub(crate) struct World {
    pub(crate) disk: Disk,
    pub(crate) settings: Settings,
    pub(crate) now: Now,
    pub(crate) log: Log,
    pub(crate) reader: Reader,
    /// All that was reported.
    pub(crate) reported: Vec<Reported>,
    heard: usize,
    /// Whether the disk was full once. Segments may then have gone before the cursor was saved.
    pub(crate) filled: bool,
    /// Whether a cursor was saved. Before that, the oldest segment may go because its sync failed.
    saved: bool,
    /// The cursor that was noted since the machine started.
    pub(crate) noted: u64,
    next_id: u64,
    /// The ids of numbers, as last appended.
    ids: BTreeMap<u64, u64>,
    /// What was synced, and the sink has not acknowledged: number and id.
    pub(crate) owed: BTreeMap<u64, u64>,
    /// The number after the last one that the sink got since the start of the process.
    passed: u64,
}

impl World {
    pub(crate) fn new(seed: u64, settings: Settings) -> Self {
        let mut disk = Disk::new(seed);
        let mut reported = Vec::new();
        let now = Now { steady: Duration::from_secs(1000), unix_millis: 1_800_000_000_000 };
        let mut outside = Outside { files: &mut disk, now, reported: &mut reported };
        let log = Log::open(&mut outside, "queue-", settings.clone()).expect("an empty folder");
        let reader = log.reader();
        Self {
            disk,
            settings,
            now,
            log,
            reader,
            reported,
            heard: 0,
            filled: false,
            saved: false,
            noted: 0,
            next_id: 0,
            ids: BTreeMap::new(),
            owed: BTreeMap::new(),
            passed: 0,
        }
    }

    /// Calls the log, and hears what it tells.
    pub(crate) fn call<T>(&mut self, call: impl FnOnce(&mut Log, &mut Outside<'_>) -> T) -> T {
        let mut outside = Outside { files: &mut self.disk, now: self.now, reported: &mut self.reported };
        let result = call(&mut self.log, &mut outside);
        self.hear();
        result
    }

    fn hear(&mut self) {
        for reported in &self.reported[self.heard..] {
            match reported {
                Reported::Synced { messages } => {
                    for number in messages.clone().filter(|number| *number >= self.log.cursor()) {
                        self.owed.insert(number, self.ids[&number]);
                    }
                }
                Reported::Dropped { messages, .. } => {
                    assert!(
                        self.settings.when_full == WhenFull::DropOldest || self.settings.max_age.is_some(),
                        "dropped without a bound that drops"
                    );
                    self.owed.retain(|number, _| !messages.contains(number));
                }
                Reported::Lost { messages } => {
                    let lost: Vec<_> = self.owed.range(messages.clone()).collect();
                    assert!(lost.is_empty(), "synced messages are lost: {lost:?}");
                }
                Reported::CursorLost => {
                    assert!(self.filled || !self.saved, "the cursor is lost, though there was space for it");
                }
                Reported::SyncFailed { .. } | Reported::Cut { .. } | Reported::Quarantined { .. } => {}
            }
        }
        self.heard = self.reported.len();
    }

    /// The sender sends so many messages.
    pub(crate) fn append(&mut self, count: u64) -> Result<(), Error> {
        let ids = self.next_id..self.next_id + count;
        self.next_id = ids.end;
        let payloads: Vec<_> = ids.clone().map(payload).collect();
        let messages: Vec<_> =
            payloads.iter().map(|payload| Message { source: b"192.0.2.1", received_millis: 7, payload }).collect();
        let numbers = self.call(|log, outside| log.append(outside, &messages))?;
        self.ids.extend(numbers.zip(ids));
        Ok(())
    }

    pub(crate) fn sync(&mut self) {
        // A failure is reported.
        let _ = self.call(Log::sync);
    }

    /// The sink gets the next message. Returns its id.
    pub(crate) fn read(&mut self) -> Result<Option<u64>, Error> {
        let mut outside = Outside { files: &mut self.disk, now: self.now, reported: &mut self.reported };
        let read = self.log.read(&mut outside, &mut self.reader);
        let record = read.map(|record| record.map(|record| (record.number, record.message.payload.to_vec())));
        self.hear();
        let Some((number, bytes)) = record? else {
            return Ok(None);
        };
        let id = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        assert_eq!(bytes, payload(id), "message {number} is as it was sent");
        assert!(number >= self.passed, "message {number} comes after {}", self.passed);
        assert_eq!(self.owed.range(self.passed..number).next(), None, "none that is owed is passed over");
        if let Some(owed) = self.owed.get(&number) {
            assert_eq!(*owed, id, "number {number} stands for one message");
        }
        self.passed = number + 1;
        Ok(Some(id))
    }

    /// The sink acknowledges all that it got, and the cursor is saved.
    pub(crate) fn acknowledge(&mut self) -> Result<(), Error> {
        let wanted = self.passed;
        self.owed = self.owed.split_off(&wanted);
        let committed = self.call(|log, outside| {
            log.acknowledge(wanted);
            log.commit(outside)
        });
        self.saved |= committed.is_ok() && wanted > 0;
        committed
    }

    /// The sink acknowledges all that it got, and the cursor is noted.
    pub(crate) fn note(&mut self) -> Result<(), Error> {
        let wanted = self.passed;
        self.owed = self.owed.split_off(&wanted);
        let noted = self.call(|log, outside| {
            log.acknowledge(wanted);
            log.note(outside)
        });
        // On a full disk no more notes are written, and this is no error.
        if noted.is_ok() && !self.filled {
            self.noted = self.log.cursor();
        }
        noted
    }

    /// The process is killed and starts again, while the machine runs on.
    pub(crate) fn kill(&mut self) {
        (self.disk.fuel, self.disk.crashed) = (None, false);
        self.restart();
    }

    /// If the machine stopped, starts it and the process.
    pub(crate) fn revive(&mut self) {
        if self.disk.crashed {
            self.disk.crash();
            self.noted = 0;
            self.restart();
        }
    }

    /// Starts the process again.
    pub(crate) fn restart(&mut self) {
        let names = self.disk.names();
        assert!(names.iter().all(|name| name.starts_with("queue-")), "files of others: {names:?}");
        let mut outside = Outside { files: &mut self.disk, now: self.now, reported: &mut self.reported };
        let opened = Log::open(&mut outside, "queue-", self.settings.clone());
        self.log = match opened {
            Ok(log) => log,
            Err(error) => {
                assert!(self.disk.crashed, "a log that is whole is opened: {error}");
                self.revive();
                return;
            }
        };
        self.reader = self.log.reader();
        self.passed = self.log.cursor();
        self.hear();
        assert_eq!(self.owed.range(..self.passed).next(), None, "the cursor passes none that is owed");
        assert!(self.passed >= self.noted, "what was noted outlives the process");
    }

    /// Nothing goes wrong any more: the sink gets all that it is owed.
    pub(crate) fn drain(&mut self) {
        self.disk.fuel = None;
        (self.disk.failing_syncs, self.disk.failing_reads, self.disk.space) = (0, 0, None);
        self.revive();
        self.sync();
        while self.read().expect("the disk is well").is_some() {}
        self.acknowledge().expect("the disk is well");
        assert!(self.owed.is_empty(), "never delivered: {:?}", self.owed);
        // Beside a cursor there may be a new one, left by a crash.
        assert!(self.disk.used() <= self.settings.max_bytes + 48, "{} bytes of files", self.disk.used());
    }
}
