//! A folder in memory that loses what was not synced, and the bounds of a small log in it.

#![allow(dead_code, reason = "each test uses some of these functions")]

use std::collections::BTreeMap;
use std::time::Duration;

use durable_core::{FileError, Files, Settings, WhenFull};

/// Eight segments of 512 bytes.
pub(crate) fn settings() -> Settings {
    Settings {
        max_bytes: 4096,
        max_message_bytes: 64,
        max_age: None,
        when_full: WhenFull::Refuse,
        sync_after: Duration::from_millis(500),
        sync_bytes: 1 << 20,
    }
}

/// A log with room for 16 MiB, a sync of which is due after every append.
pub(crate) fn large() -> Settings {
    Settings { max_bytes: 16 << 20, sync_after: Duration::ZERO, sync_bytes: 0, ..settings() }
}

/// `SplitMix64`.
#[derive(Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// From 0 up to, but not including, `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % bound as u64).expect("the bound is one of usize")
    }
}

/// Bytes that one append wrote.
#[derive(Clone, Debug)]
struct Part {
    start: usize,
    end: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A sync writes it.
    Dirty,
    /// A sync of it failed, and no later one tries again, as Linux does it.
    Forgotten,
    Durable,
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Change {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

/// The folder, its disk, and what goes wrong.
#[derive(Debug)]
pub(crate) struct Disk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    changes: Vec<Change>,
    pub(crate) chance: Chance,
    /// Calls until the machine stops. `None`: it runs on.
    pub(crate) fuel: Option<u32>,
    pub(crate) crashed: bool,
    /// So many of the next syncs fail.
    pub(crate) failing_syncs: u32,
    /// So many of the next reads fail.
    pub(crate) failing_reads: u32,
    /// Every read of this file fails.
    pub(crate) unreadable: Option<&'static str>,
    /// Bytes that are left.
    pub(crate) space: Option<usize>,
    /// Bytes that were read.
    pub(crate) read: usize,
    /// Calls that change or sync something.
    pub(crate) calls: usize,
    /// How long each of them takes.
    pub(crate) takes: Duration,
    /// How long all of them took.
    pub(crate) spent: Duration,
}

impl Disk {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable: BTreeMap::new(),
            changes: Vec::new(),
            chance: Chance(seed),
            fuel: None,
            crashed: false,
            failing_syncs: 0,
            failing_reads: 0,
            unreadable: None,
            space: None,
            read: 0,
            calls: 0,
            takes: Duration::ZERO,
            spent: Duration::ZERO,
        }
    }

    /// The machine stops and starts: of what was not synced, any part is lost.
    pub(crate) fn crash(&mut self) {
        for file in &mut self.files {
            crash_file(file, &mut self.chance);
        }
        for change in std::mem::take(&mut self.changes) {
            if self.chance.below(2) == 0 {
                apply(&mut self.durable, change);
            }
        }
        self.names.clone_from(&self.durable);
        (self.fuel, self.crashed) = (None, false);
    }

    /// The bytes of a file, to damage them.
    pub(crate) fn bytes(&mut self, name: &str) -> &mut Vec<u8> {
        let file = self.names.get(name).copied().expect("the file is there");
        &mut self.files[file].bytes
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// Bytes of all files.
    pub(crate) fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[*file].bytes.len() as u64).sum()
    }

    /// Whether the call takes place whole. In the last one before a crash, that is left to chance.
    fn call(&mut self) -> Result<bool, FileError> {
        self.calls += 1;
        self.spent += self.takes;
        if self.crashed {
            return Err(stopped());
        }
        if let Some(fuel) = &mut self.fuel {
            *fuel = fuel.saturating_sub(1);
            self.crashed = *fuel == 0;
        }
        if !self.crashed {
            return Ok(true);
        }
        if self.chance.below(2) == 0 { Ok(false) } else { Err(stopped()) }
    }

    fn file(&mut self, name: &str) -> Result<&mut File, FileError> {
        let file = self.names.get(name).copied().ok_or(FileError::Missing)?;
        Ok(&mut self.files[file])
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, change.clone());
        self.changes.push(change);
    }

    fn fails_sync(&mut self) -> bool {
        let fails = self.failing_syncs > 0;
        self.failing_syncs = self.failing_syncs.saturating_sub(1);
        fails
    }
}

/// What a call returns: an error if the machine stopped during it.
fn end(whole: bool) -> Result<(), FileError> {
    if whole { Ok(()) } else { Err(stopped()) }
}

fn stopped() -> FileError {
    FileError::Other("the machine stopped".to_owned())
}

fn apply(names: &mut BTreeMap<String, usize>, change: Change) {
    match change {
        Change::Create(name, file) => {
            names.insert(name, file);
        }
        Change::Rename(from, to, file) => {
            names.remove(&from);
            names.insert(to, file);
        }
        Change::Remove(name) => {
            names.remove(&name);
        }
    }
}

/// Keeps what is durable, and of every other part all, nothing, its start or its end; what is missing
/// before a later part is zeros.
fn crash_file(file: &mut File, chance: &mut Chance) {
    let mut kept = Vec::new();
    for Part { start, end, state } in std::mem::take(&mut file.parts) {
        let middle = start + chance.below(end - start + 1);
        let (from, to) = match (state, chance.below(4)) {
            (State::Durable, _) | (_, 0) => (start, end),
            (_, 1) => (start, middle),
            (_, 2) => (middle, end),
            _ => (start, start),
        };
        if from < to {
            kept.resize(from, 0);
            kept.extend_from_slice(&file.bytes[from..to]);
        }
    }
    file.parts = vec![Part { start: 0, end: kept.len(), state: State::Durable }];
    file.bytes = kept;
}

impl Files for Disk {
    fn create(&mut self, name: &str) -> Result<(), FileError> {
        let whole = self.call()?;
        if self.names.contains_key(name) {
            return Err(FileError::Other("the file exists".to_owned()));
        }
        self.files.push(File::default());
        self.change(Change::Create(name.to_owned(), self.files.len() - 1));
        end(whole)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let whole = self.call()?;
        let mut count = bytes.len();
        if !whole {
            count = self.chance.below(count + 1);
        }
        let room = self.space.map_or(count, |space| space.min(count));
        self.space = self.space.map(|space| space - room);
        let file = self.file(name)?;
        let start = file.bytes.len();
        file.bytes.extend_from_slice(&bytes[..room]);
        file.parts.push(Part { start, end: start + room, state: State::Dirty });
        if room < count { Err(FileError::NoSpace) } else { end(whole) }
    }

    fn read_at(&mut self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, FileError> {
        if self.crashed {
            return Err(stopped());
        }
        if self.failing_reads > 0 || self.unreadable == Some(name) {
            self.failing_reads = self.failing_reads.saturating_sub(1);
            return Err(FileError::Other("input/output error".to_owned()));
        }
        let offset = usize::try_from(offset).expect("files are small");
        let file = self.file(name)?;
        let rest = file.bytes.get(offset..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }

    fn sync(&mut self, name: &str) -> Result<(), FileError> {
        let whole = self.call()?;
        let fails = self.fails_sync();
        for part in &mut self.file(name)?.parts {
            if part.state == State::Dirty {
                part.state = if fails { State::Forgotten } else { State::Durable };
            }
        }
        if fails { Err(FileError::Other("input/output error".to_owned())) } else { end(whole) }
    }

    fn sync_folder(&mut self) -> Result<(), FileError> {
        let whole = self.call()?;
        if self.fails_sync() {
            return Err(FileError::Other("input/output error".to_owned()));
        }
        self.changes.clear();
        self.durable.clone_from(&self.names);
        end(whole)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), FileError> {
        let whole = self.call()?;
        let file = self.names.get(from).copied().ok_or(FileError::Missing)?;
        self.change(Change::Rename(from.to_owned(), to.to_owned(), file));
        end(whole)
    }

    fn remove(&mut self, name: &str) -> Result<(), FileError> {
        let whole = self.call()?;
        let file = self.names.get(name).copied().ok_or(FileError::Missing)?;
        let freed = self.files[file].bytes.len();
        self.space = self.space.map(|space| space + freed);
        self.change(Change::Remove(name.to_owned()));
        end(whole)
    }

    fn list(&mut self) -> Result<Vec<(String, u64)>, FileError> {
        if self.crashed {
            return Err(stopped());
        }
        Ok(self.names.iter().map(|(name, file)| (name.clone(), self.files[*file].bytes.len() as u64)).collect())
    }
}
