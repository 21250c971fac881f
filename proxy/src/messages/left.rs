//! The logs that are left in the folder of all logs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
};

use durable::{Folder, FolderError};
use durable_core::{
    Error, FileError, Files, Log, Outside,
    lanes::{self, Generation},
};
use proxy_api::ListenerId;

use super::{
    folder::{count, now, unbounded},
    place::{self, path},
};
use crate::core::durable::{
    draining::Left,
    log_files::{self, LETTERS, PREFIX},
};

/// The parts of the id of a listener, each of which is a folder.
pub(super) const DEPTH: usize = 4;

/// Why the search for logs failed.
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
        /// The folder of the log.
        folder: PathBuf,
        /// The error.
        #[source]
        source: Error,
    },
}

/// The logs in the folder of all logs. Their messages are not counted.
pub(crate) fn find(all: &Path) -> Result<Vec<Left>, LeftError> {
    let left = |(folder, with_letters): (PathBuf, BTreeSet<Generation>)| -> Result<Left, LeftError> {
        let letters = if with_letters.is_empty() { 0 } else { count_all(&folder, &with_letters, LETTERS)? };
        let folder = folder.strip_prefix(all).unwrap_or(&folder).display().to_string();
        Ok(Left { folder, letters, ..Left::default() })
    };
    folders(all)?.into_iter().map(left).collect()
}

/// The folders of the logs of listeners in the folder of all logs, and the generations that have dead letters there.
pub(crate) fn with_letters(all: &Path) -> Result<BTreeMap<ListenerId, (PathBuf, BTreeSet<Generation>)>, LeftError> {
    let of_listener = |(folder, with_letters): (PathBuf, BTreeSet<Generation>)| {
        let id = place::id(folder.strip_prefix(all).ok()?)?;
        Some((id, (folder, with_letters)))
    };
    Ok(folders(all)?.into_iter().filter_map(of_listener).collect())
}

/// Messages that wait in the logs of this name. No other process may have them open.
pub(crate) fn waiting(all: &Path, name: &str) -> Result<u64, LeftError> {
    let folder = all.join(name);
    let generations = generations(&folder, &mut Folder::open(&folder)?)?;
    count_all(&folder, &generations, "")
}

/// The name of the folder of a log.
pub(crate) fn name(id: &ListenerId) -> String {
    path(id).display().to_string()
}

/// The generations of logs in a folder.
fn generations(folder: &Path, files: &mut Folder) -> Result<BTreeSet<Generation>, LeftError> {
    let failed = |error: FileError| LeftError::Search { folder: folder.to_owned(), source: io::Error::other(error) };
    let listed = files.list().map_err(failed)?;
    Ok(lanes::with_logs(listed.iter().map(|(name, _)| name.as_str()), PREFIX))
}

/// The folders that have files of a log, and the generations that have dead letters there.
fn folders(all: &Path) -> Result<Vec<(PathBuf, BTreeSet<Generation>)>, LeftError> {
    let mut folders = Vec::new();
    match search(all, DEPTH, &mut folders) {
        // No durable listener has run here.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        searched => searched.map(|()| folders).map_err(|source| LeftError::Search { folder: all.to_owned(), source }),
    }
}

/// Finds the folders that have files of a log, and the generations that have dead letters there.
fn search(folder: &Path, depth: usize, found: &mut Vec<(PathBuf, BTreeSet<Generation>)>) -> io::Result<()> {
    let entries: Vec<DirEntry> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    let is_file = |entry: &&DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    let names: Vec<String> = entries.iter().filter(is_file).map(file_name).collect();
    if let Some(with_letters) = log_files::with_letters(&names) {
        found.push((folder.to_owned(), with_letters));
    } else if depth > 0 {
        for entry in &entries {
            if entry.file_type()?.is_dir() {
                search(&entry.path(), depth - 1, found)?;
            }
        }
    }
    Ok(())
}

/// Messages that are not acknowledged in the logs of these generations, or of their dead letters, as `more` extends the
/// prefix.
fn count_all(folder: &Path, generations: &BTreeSet<Generation>, more: &str) -> Result<u64, LeftError> {
    let mut files = Folder::open(folder)?;
    let prefixes = generations.iter().flat_map(|generation| generation.prefixes(PREFIX));
    let counted = prefixes.map(|prefix| count(&mut files, &format!("{prefix}{more}"), &mut Vec::new()));
    counted.sum::<Result<u64, Error>>().map_err(|source| LeftError::Log { folder: folder.to_owned(), source })
}

/// The damage to the logs of this name, in words; `None`: there is none. No other process may have them open. Damage
/// stays noticed after the cursor has passed it: a damaged part is kept under another name, and the last part, which is
/// read for this, stays. If a listener is removed and its sink has all, that part goes with an incomplete message at
/// its end.
pub(crate) fn damage(all: &Path, name: &str) -> Result<Option<String>, LeftError> {
    let folder = all.join(name);
    // Opening the folder would create it.
    if !folder.exists() {
        return Ok(None);
    }
    if let Some(part) = damaged_part(&folder)? {
        return Ok(Some(format!("the damaged part {part}")));
    }
    let failed = |source: Error| LeftError::Log { folder: folder.clone(), source };
    let (mut files, mut reported) = (Folder::open(&folder)?, Vec::new());
    for generation in generations(&folder, &mut files)? {
        for prefix in generation.prefixes(PREFIX) {
            let mut outside = Outside { files: &mut files, now: now(), reported: &mut reported };
            let mut log = Log::open(&mut outside, &prefix, unbounded()).map_err(failed)?;
            let mut reader = log.reader();
            reader.seek(0);
            while log.read(&mut outside, &mut reader).map_err(failed)?.is_some() {}
        }
    }
    Ok(log_files::damage(&reported))
}

/// The name of a damaged part of a log, or of its dead letters, that is kept in this folder.
fn damaged_part(folder: &Path) -> Result<Option<String>, LeftError> {
    let names: io::Result<Vec<String>> =
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| entry.map(|entry| file_name(&entry))).collect());
    let names = names.map_err(|source| LeftError::Search { folder: folder.to_owned(), source })?;
    Ok(log_files::damaged_part(names))
}

fn file_name(entry: &DirEntry) -> String {
    entry.file_name().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use durable_core::{Message, Now};
    use proxy_api::Origin;
    use tempfile::tempdir;

    use super::*;

    /// Puts a message into the log with this prefix.
    fn put(folder: &Path, prefix: &str) {
        let mut files = Folder::open(folder).expect("a folder");
        let (now, mut reported) = (Now { steady: Duration::ZERO, unix_millis: 0 }, Vec::new());
        let mut outside = Outside { files: &mut files, now, reported: &mut reported };
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

    /// The sink has all of this log.
    fn acknowledge(folder: &Path) {
        let (mut files, mut reported) = (Folder::open(folder).expect("a folder"), Vec::new());
        let mut outside = Outside { files: &mut files, now: now(), reported: &mut reported };
        let mut log = Log::open(&mut outside, PREFIX, unbounded()).expect("a log");
        log.acknowledge(log.next());
        log.commit(&mut outside).expect("a cursor");
    }

    #[test]
    fn damage_is_seen_also_where_the_cursor_has_passed_it_and_where_its_part_was_put_aside() {
        let all = tempdir().expect("a folder");
        let (folder, damaged) = (all.path().join("l"), || damage(all.path(), "l").expect("a log"));
        assert_eq!(damaged(), None);
        assert!(!folder.exists());
        put(&folder, PREFIX);
        assert_eq!(damaged(), None);
        let part = folder.join("log-0000000000000000.log");
        let mut bytes = fs::read(&part).expect("a file");
        *bytes.last_mut().expect("a message") ^= 1;
        fs::write(&part, &bytes).expect("a file");
        assert_eq!(damaged().as_deref(), Some("1 message that cannot be read"));
        acknowledge(&folder);
        assert_eq!(waiting(all.path(), "l").expect("a log"), 0);
        assert_eq!(damaged().as_deref(), Some("1 message that cannot be read"));
        bytes.pop();
        fs::write(&part, &bytes).expect("a file");
        assert!(damaged().expect("damage").ends_with("bytes of log-0000000000000000.log"));
        fs::rename(&part, part.with_extension("damaged")).expect("a file");
        assert_eq!(damaged().as_deref(), Some("the damaged part log-0000000000000000.damaged"));
    }

    #[test]
    fn a_folder_that_was_never_used_has_nothing_left() {
        let data = tempdir().expect("a folder");
        assert!(find(&data.path().join("durable")).expect("no folder").is_empty());
        assert!(find(data.path()).expect("an empty folder").is_empty());
    }
}
