//! What is left in the folder of all logs.

use std::{
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use durable::{Folder, FolderError};
use durable_core::{Error, Log, MAX_MESSAGE_BYTES, Now, Outside, Settings, WhenFull};
use proxy_api::ListenerId;

use super::{place::path, settings::PREFIX};
use crate::core::draining::Left;

/// The parts of the id of a listener, each of which is a folder.
const DEPTH: usize = 4;

/// Why it is not known what is left.
#[derive(Debug, thiserror::Error)]
pub enum LeftError {
    /// The folder of all logs cannot be searched.
    #[error("cannot search {} for messages: check that this user owns it", .folder.display())]
    Search {
        /// The folder.
        folder: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// The folder of a log cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A log cannot be opened.
    #[error("cannot open the log in {}", .folder.display())]
    Log {
        /// Its folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: Error,
    },
}

/// The logs in the folder of all logs. Their messages are not counted.
pub(crate) fn find(all: &Path) -> Result<Vec<Left>, LeftError> {
    let mut folders = Vec::new();
    match search(all, DEPTH, &mut folders) {
        // No durable listener has run here.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        searched => searched.map_err(|source| LeftError::Search { folder: all.to_owned(), source })?,
    }
    let left = |(folder, has_letters): (PathBuf, bool)| -> Result<Left, LeftError> {
        let letters = if has_letters { count(&folder, &format!("{PREFIX}dead-"))? } else { 0 };
        let folder = folder.strip_prefix(all).unwrap_or(&folder).display().to_string();
        Ok(Left { folder, letters, ..Left::default() })
    };
    folders.into_iter().map(left).collect()
}

/// Messages that wait in the log of this name. Nobody else may have it open.
pub(crate) fn waiting(all: &Path, name: &str) -> Result<u64, LeftError> {
    count(&all.join(name), PREFIX)
}

/// The name of the folder of a log.
pub(crate) fn name(id: &ListenerId) -> String {
    path(id).display().to_string()
}

/// Finds the folders that have files of a log, and whether they have dead letters.
fn search(folder: &Path, depth: usize, found: &mut Vec<(PathBuf, bool)>) -> io::Result<()> {
    let entries: Vec<DirEntry> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    let has_file = |prefix: &str| {
        let is_file = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
        entries.iter().any(|entry| is_file(entry) && entry.file_name().to_string_lossy().starts_with(prefix))
    };
    if has_file(PREFIX) {
        found.push((folder.to_owned(), has_file(&format!("{PREFIX}dead-"))));
    } else if depth > 0 {
        for entry in &entries {
            if entry.file_type()?.is_dir() {
                search(&entry.path(), depth - 1, found)?;
            }
        }
    }
    Ok(())
}

/// Messages that are not acknowledged in the log with this prefix. Bounds that the log may have are not applied to it.
fn count(folder: &Path, prefix: &str) -> Result<u64, LeftError> {
    let mut files = Folder::open(folder)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Now { steady: Duration::ZERO, unix_millis: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) };
    let mut told = Vec::new();
    let log = Log::open(&mut Outside { files: &mut files, now, told: &mut told }, prefix, unbounded());
    log.map(|log| log.backlog()).map_err(|source| LeftError::Log { folder: folder.to_owned(), source })
}

/// Bounds that no log reaches.
fn unbounded() -> Settings {
    Settings {
        max_bytes: u64::MAX,
        max_message_bytes: MAX_MESSAGE_BYTES,
        max_age: None,
        when_full: WhenFull::Refuse,
        sync_after: Duration::ZERO,
        sync_bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use durable_core::Message;
    use proxy_api::Origin;
    use tempfile::tempdir;

    use super::*;

    /// Puts a message into the log with this prefix.
    fn put(folder: &Path, prefix: &str) {
        let mut files = Folder::open(folder).expect("a folder");
        let (now, mut told) = (Now { steady: Duration::ZERO, unix_millis: 0 }, Vec::new());
        let mut outside = Outside { files: &mut files, now, told: &mut told };
        let mut log = Log::open(&mut outside, prefix, unbounded()).expect("a log");
        let message = Message { source: b"", received_millis: 0, payload: b"m" };
        log.append(&mut outside, &[message]).expect("room");
    }

    #[test]
    fn every_log_is_found_by_the_name_of_its_listener() {
        let all = tempdir().expect("a folder");
        let id = ListenerId::new(Origin::port_forward("log-shop", "a_b"), "l");
        put(&all.path().join(path(&id)), PREFIX);
        put(&all.path().join("Service/shop/web/l"), PREFIX);
        let mut found = find(all.path()).expect("a folder");
        found.sort_by(|one, other| one.folder.cmp(&other.folder));
        let names: Vec<&str> = found.iter().map(|log| log.folder.as_str()).collect();
        assert_eq!(names, ["Service/shop/web/l", &name(&id)]);
        assert_eq!(waiting(all.path(), names[1]).expect("a log"), 1);
    }

    #[test]
    fn dead_letters_are_counted_apart_from_messages() {
        let all = tempdir().expect("a folder");
        let folder = all.path().join("shop/logs/l");
        put(&folder, PREFIX);
        put(&folder, "log-dead-");
        put(&folder, "log-dead-");
        let found = find(all.path()).expect("a folder");
        assert_eq!((found.len(), found[0].letters, found[0].messages), (1, 2, None));
        assert_eq!(waiting(all.path(), "shop/logs/l").expect("a log"), 1);
    }

    #[test]
    fn a_folder_that_was_never_used_has_nothing_left() {
        let data = tempdir().expect("a folder");
        assert!(find(&data.path().join("durable")).expect("no folder").is_empty());
        assert!(find(data.path()).expect("an empty folder").is_empty());
    }
}
