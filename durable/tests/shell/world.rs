//! A store with its settings, and what is in it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use durable::{Figures, Folder, Incoming, QUEUE_BYTES, ReadBound, Store, StoreSettings};
use durable_core::{Settings, WhenFull};
use tokio::time::timeout;

/// A sync is due after an hour, so that only those happen that are asked for. No message waits for others.
pub(crate) fn settings() -> StoreSettings {
    StoreSettings {
        prefix: "syslog-".to_owned(),
        log: Settings {
            max_bytes: 1 << 20,
            max_message_bytes: 4096,
            max_age: None,
            when_full: WhenFull::Refuse,
            sync_after: Duration::from_secs(3600),
            sync_bytes: 1 << 30,
        },
        blocks: false,
        dead_bytes: 1 << 16,
        queue_bytes: QUEUE_BYTES,
        gather: Duration::ZERO,
    }
}

pub(crate) async fn within<T>(test: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), test).await.expect("the test ends in time")
}

pub(crate) fn open(folder: &Path) -> Store {
    Store::open(Folder::open(folder).expect("a folder"), settings()).expect("a log")
}

pub(crate) fn message(id: u64) -> Incoming {
    Incoming { source: Arc::from(&b"192.0.2.1:514"[..]), received_millis: 7, payload: payload(id) }
}

pub(crate) fn messages(ids: Range<u64>) -> Vec<Incoming> {
    ids.map(message).collect()
}

pub(crate) fn payload(id: u64) -> Vec<u8> {
    format!("message {id}").into_bytes()
}

/// Appends messages, and waits until they are synced.
pub(crate) async fn append(store: &Store, messages: Vec<Incoming>) {
    store.append_and_sync(messages).await.expect("room").synced().await.expect("synced");
}

/// Numbers and payloads from a number on.
pub(crate) async fn read(store: &Store, from: u64) -> Vec<(u64, Vec<u8>)> {
    let mut next = from;
    let mut all = Vec::new();
    loop {
        let read = store.read(next, ReadBound { messages: 7, bytes: 1 << 16 }).await.expect("the disk is well");
        if read.messages.is_empty() {
            return all;
        }
        next = read.next;
        all.extend(read.messages.into_iter().map(|kept| (kept.number, kept.payload)));
    }
}

/// The figures, once they are so.
pub(crate) async fn figures(store: &Store, is_so: impl Fn(&Figures) -> bool) -> Figures {
    loop {
        let figures = store.figures();
        if is_so(&figures) {
            return figures;
        }
        // Reads nothing, and lets the thread take another turn.
        store.read(0, ReadBound { messages: 0, bytes: 0 }).await.expect("the store runs");
    }
}
