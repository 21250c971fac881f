//! A process that is killed while it appends.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use durable::{Folder, Incoming, ReadBound, Store, StoreSettings};
use durable_core::Settings;
use tempfile::tempdir;
use tokio::runtime::Builder;

use crate::world::{append, message, payload, settings, within};

/// Set in the process that is killed: its folder.
const FOLDER: &str = "PORTLANE_TEST_DURABLE_FOLDER";
const NAME: &str = "kills::what_was_receipted_survives_fifty_kills_in_the_middle_of_appends";
/// Before the number up to which messages have receipts.
const KEPT: &str = "kept: ";

fn open(folder: &Path) -> Store {
    let log = Settings { max_bytes: 64 << 20, ..settings().log };
    Store::open(Folder::open(folder).expect("the process before is gone"), StoreSettings { log, ..settings() })
        .expect("the log opens")
}

/// A message whose bytes follow from its number.
fn padded(number: u64) -> Incoming {
    let mut message = message(number);
    message.payload.resize(1000, b'.');
    message
}

/// Appends until this process is killed.
async fn fill(folder: &Path) {
    let store = open(folder);
    let mut number = store.figures().next;
    loop {
        let ahead = store.append((number..number + 8).map(padded).collect()).await.expect("room");
        append(&store, (number + 8..number + 16).map(padded).collect()).await;
        ahead.synced().await.expect("synced");
        number += 16;
        println!("{KEPT}{number}");
    }
}

/// The process, killed on drop.
struct Filler {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Filler {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(env::current_exe().expect("own path"))
            .args(["--exact", NAME, "--nocapture"])
            .env(FOLDER, folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, lines }
    }

    /// The number up to which messages have receipts; `None` after its last line.
    fn kept(&mut self) -> Option<u64> {
        let mut line = String::new();
        while self.lines.read_line(&mut line).expect("its output") > 0 {
            // A killed process may leave a part of a line; before the first one there may be the name of the test.
            if let Some(kept) = line.split_once(KEPT).and_then(|(_, kept)| kept.strip_suffix('\n')) {
                return Some(kept.parse().expect("a number"));
            }
            line.clear();
        }
        None
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Lets a process append, kills it after so many receipts, and returns the last one that it has printed.
fn kill_after(folder: &Path, receipts: u32) -> u64 {
    let mut filler = Filler::start(folder);
    let mut last = 0;
    for _ in 0..receipts {
        last = filler.kept().expect("it appends until it is killed");
    }
    filler.process.kill().expect("it runs");
    filler.process.wait().expect("it is killed");
    while let Some(kept) = filler.kept() {
        last = kept;
    }
    last
}

/// Reads what is left on from the cursor, and acknowledges it. Returns the number after the last message.
async fn deliver(folder: &Path) -> u64 {
    let store = open(folder);
    let mut next = store.figures().cursor;
    loop {
        let read = store.read(next, ReadBound { messages: 1000, bytes: 1 << 20 }).await.expect("the disk is well");
        if read.messages.is_empty() {
            break;
        }
        for kept in read.messages {
            assert_eq!(kept.number, next, "none is missing");
            assert!(kept.payload.starts_with(&payload(next)) && kept.payload.len() == 1000, "message {next}");
            next += 1;
        }
    }
    store.acknowledge(next).await.expect("it runs");
    assert_eq!(store.figures().lost, 0);
    store.close().await.expect("it runs");
    next
}

#[test]
fn what_was_receipted_survives_fifty_kills_in_the_middle_of_appends() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    if let Some(folder) = env::var_os(FOLDER) {
        runtime.block_on(fill(Path::new(&folder)));
    }
    let home = tempdir().expect("a folder");
    let mut delivered = 0;
    for round in 0..50 {
        let kept = kill_after(home.path(), 1 + round % 3);
        assert!(kept > delivered, "the process continues from {delivered}, and reported {kept}");
        let next = runtime.block_on(within(deliver(home.path())));
        assert!(next >= kept, "round {round}: {kept} messages have receipts, and {next} are there");
        delivered = next;
    }
}
