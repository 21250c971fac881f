//! The log's interface to the outside: a folder and the time.

use std::time::Duration;

use crate::{FileError, Reported};

/// One flat folder. Every call may fail, and a call that failed may have had a part of its effect.
pub trait Files {
    /// Makes an empty file. A file of this name is an error.
    fn create(&mut self, name: &str) -> Result<(), FileError>;
    /// Writes all of `bytes` at the end of the file.
    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), FileError>;
    /// Reads from `offset`; returns how much was read, 0 at the end of the file.
    fn read_at(&mut self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, FileError>;
    /// Returns when the file's bytes and length are on the disk.
    fn sync(&mut self, name: &str) -> Result<(), FileError>;
    /// Returns when the names in the folder are on the disk.
    fn sync_folder(&mut self) -> Result<(), FileError>;
    /// Renames a file, and replaces one that has the new name.
    fn rename(&mut self, from: &str, to: &str) -> Result<(), FileError>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> Result<(), FileError>;
    /// Names and lengths of all files.
    fn list(&mut self) -> Result<Vec<(String, u64)>, FileError>;
}

/// The time on two clocks: one may be set, the other cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The time since any fixed start, from a clock that does not jump. It decides what is due within a process.
    pub steady: Duration,
    /// Milliseconds since 1970. Used only for the age of segments of an earlier process.
    pub unix_millis: u64,
}

/// The resources of a call to a [`Log`](crate::Log).
pub struct Outside<'a> {
    /// The folder.
    pub files: &'a mut dyn Files,
    /// The time of this call.
    pub now: Now,
    /// Reports to the caller. A call that fails may add some, too.
    pub reported: &'a mut Vec<Reported>,
}
