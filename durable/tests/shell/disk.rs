//! A folder in memory that is full, fails or waits when the test says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use durable_core::{FileError, Files};

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// Bytes that are left. `None`: as many as there may be.
    space: Option<usize>,
    failing_syncs: u32,
    reads_fail: bool,
    is_held: bool,
    /// How often something was appended to a file.
    writes: u32,
}

/// The folder; its clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Disk {
    /// From now on so many bytes are left.
    pub(crate) fn leave(&self, space: Option<usize>) {
        self.state().space = space;
    }

    /// So many of the next syncs fail.
    pub(crate) fn fail_syncs(&self, count: u32) {
        self.state().failing_syncs = count;
    }

    /// Whether reads fail.
    pub(crate) fn fail_reads(&self, fail: bool) {
        self.state().reads_fail = fail;
    }

    /// Whether what is appended waits until it does not any more.
    pub(crate) fn hold(&self, is_held: bool) {
        self.state().is_held = is_held;
        self.state.1.notify_all();
    }

    /// How often something was appended to a file.
    pub(crate) fn writes(&self) -> u32 {
        self.state().writes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files for Disk {
    fn create(&mut self, name: &str) -> Result<(), FileError> {
        match self.state().files.insert(name.to_owned(), Vec::new()) {
            None => Ok(()),
            Some(_) => Err(FileError::Other("the file exists".to_owned())),
        }
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let held = self.state.1.wait_while(self.state(), |state| state.is_held);
        let mut state = held.unwrap_or_else(PoisonError::into_inner);
        state.writes += 1;
        let count = state.space.map_or(bytes.len(), |space| space.min(bytes.len()));
        state.space = state.space.map(|space| space - count);
        let file = state.files.get_mut(name).ok_or(FileError::Missing)?;
        file.extend_from_slice(&bytes[..count]);
        if count < bytes.len() { Err(FileError::NoSpace) } else { Ok(()) }
    }

    fn read_at(&mut self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, FileError> {
        let state = self.state();
        if state.reads_fail {
            return Err(FileError::Other("input/output error".to_owned()));
        }
        let file = state.files.get(name).ok_or(FileError::Missing)?;
        let offset = usize::try_from(offset).expect("files are small");
        let rest = file.get(offset..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn sync(&mut self, name: &str) -> Result<(), FileError> {
        let mut state = self.state();
        if !state.files.contains_key(name) {
            return Err(FileError::Missing);
        }
        if state.failing_syncs > 0 {
            state.failing_syncs -= 1;
            return Err(FileError::Other("input/output error".to_owned()));
        }
        Ok(())
    }

    fn sync_folder(&mut self) -> Result<(), FileError> {
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), FileError> {
        let mut state = self.state();
        let file = state.files.remove(from).ok_or(FileError::Missing)?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), FileError> {
        let mut state = self.state();
        let file = state.files.remove(name).ok_or(FileError::Missing)?;
        state.space = state.space.map(|space| space + file.len());
        Ok(())
    }

    fn list(&mut self) -> Result<Vec<(String, u64)>, FileError> {
        Ok(self.state().files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
    }
}
