//! The bytes on the disk of logs that are not open, as their listeners are gone or have not begun.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use proxy_api::ListenerId;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{left::DEPTH, place};

/// How long a request to open a log waits for this search. A disk that takes longer opens no log either.
const WAIT: Duration = Duration::from_secs(2);

/// Bytes on the disk of the logs that are not open.
#[derive(Default)]
pub(super) struct Rest {
    asked: Option<JoinHandle<BTreeMap<ListenerId, u64>>>,
    bytes: BTreeMap<ListenerId, u64>,
}

impl Rest {
    /// Begins to search the folder of all logs.
    pub(super) fn find(all: PathBuf) -> Self {
        Self { asked: Some(spawn_blocking(move || sizes(&all))), bytes: BTreeMap::new() }
    }

    /// Waits until the folder was searched, unless the disk takes too long.
    pub(super) async fn seen(&mut self) {
        let Some(asked) = &mut self.asked else { return };
        let Ok(found) = timeout(WAIT, asked).await else { return };
        self.asked = None;
        for (id, bytes) in found.unwrap_or_default() {
            // Bytes that a log has left since then are newer.
            self.bytes.entry(id).or_insert(bytes);
        }
    }

    /// Records that the log of this listener is closed, and has this many bytes.
    pub(super) fn put(&mut self, id: ListenerId, bytes: u64) {
        self.bytes.insert(id, bytes);
    }

    /// The known bytes. Logs that are open by now have others.
    pub(super) const fn bytes(&self) -> &BTreeMap<ListenerId, u64> {
        &self.bytes
    }
}

/// Bytes of the logs in the folder of all logs.
fn sizes(all: &Path) -> BTreeMap<ListenerId, u64> {
    let mut found = BTreeMap::new();
    add(all, Path::new(""), DEPTH, &mut found);
    found
}

/// Adds the logs in the folder of this name, and in those within it. Folders that cannot be read do not belong to this
/// process.
fn add(folder: &Path, name: &Path, depth: usize, found: &mut BTreeMap<ListenerId, u64>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut bytes: u64 = 0;
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth > 0 {
            add(&entry.path(), &name.join(entry.file_name()), depth - 1, found);
        } else if kind.is_file() && is_counted(Path::new(&entry.file_name())) {
            bytes = bytes.saturating_add(entry.metadata().map_or(0, |file| file.len()));
        }
    }
    if bytes > 0
        && let Some(id) = place::id(name)
    {
        found.insert(id, bytes);
    }
}

/// Whether this file counts towards the bounds of a log. The cursor does not.
fn is_counted(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "log" || extension == "damaged")
}

#[cfg(test)]
mod tests {
    use proxy_api::Origin;
    use tempfile::tempdir;

    use super::*;

    #[tokio::test]
    async fn the_bytes_of_each_log_are_found_by_its_listener_and_what_was_left_since_is_newer() {
        let all = tempdir().expect("a folder");
        let id = |name: &str| ListenerId::new(Origin::port_forward("log-shop", "a_b"), name);
        let put = |id: &ListenerId, file: &str, bytes: usize| {
            let folder = all.path().join(place::path(id));
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join(file), vec![0; bytes]).expect("a file");
        };
        put(&id("one"), "log-0000000000000000.log", 5);
        put(&id("one"), "log-0000000000000000.damaged", 3);
        put(&id("one"), "log-dead-0000000000000000.log", 2);
        put(&id("one"), "log-cursor", 24);
        put(&id("two"), "log-1-2-0-0000000000000000.log", 7);
        put(&id("empty"), "LOCK", 1);
        let mut rest = Rest::find(all.path().to_owned());
        rest.put(id("two"), 4);
        rest.seen().await;
        assert_eq!(*rest.bytes(), BTreeMap::from([(id("one"), 10), (id("two"), 4)]));
    }

    #[test]
    fn a_folder_that_was_never_used_has_no_logs() {
        let data = tempdir().expect("a folder");
        assert!(sizes(&data.path().join("durable")).is_empty());
    }
}
