//! Messages that gather while the store's thread pauses.

use std::ops::Range;
use std::time::Duration;

use durable::{Receipt, Store, StoreSettings};
use tokio::task::yield_now;

use crate::disk::Disk;
use crate::world::{append, message, messages, payload, read, settings, within};

/// A store that has written a message and pauses for an hour.
async fn pausing(queue_bytes: u32) -> (Disk, Store) {
    let disk = Disk::default();
    let settings = StoreSettings { gather: Duration::from_secs(3600), queue_bytes, ..settings() };
    let store = Store::open(disk.clone(), settings).expect("a log");
    drop(store.append(messages(0..1)).await.expect("room"));
    store.wait_for(0).await.expect("it is written at once");
    // Nothing is due while there is no backlog.
    store.acknowledge(1).await.expect("it runs");
    while store.turn().is_some() {
        yield_now().await;
    }
    (disk, store)
}

async fn append_each(store: &Store, ids: Range<u64>) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for id in ids {
        receipts.push(store.append(vec![message(id)]).await.expect("room"));
    }
    receipts
}

#[tokio::test]
async fn messages_gather_and_are_written_at_once_with_the_first_one_whose_sender_waits() {
    within(async {
        let (disk, store) = pausing(1 << 20).await;
        let before = disk.writes();
        let receipts = append_each(&store, 1..4).await;
        assert_eq!(disk.writes(), before, "they wait for others");
        append(&store, messages(4..5)).await;
        assert_eq!(disk.writes() - before, 1);
        for receipt in receipts {
            receipt.synced().await.expect("synced with the last one");
        }
        store.close().await.expect("it runs");
    })
    .await;
}

#[tokio::test]
async fn a_call_ends_the_pause() {
    within(async {
        let (_disk, store) = pausing(1 << 20).await;
        let _receipts = append_each(&store, 1..3).await;
        assert!(read(&store, 1).await.is_empty(), "a turn answers calls before it writes");
        store.wait_for(2).await.expect("they are written");
        assert_eq!(read(&store, 1).await, [(1, payload(1)), (2, payload(2))]);
        store.close().await.expect("it runs");
    })
    .await;
}

#[tokio::test]
async fn a_quarter_of_the_queue_ends_the_pause() {
    within(async {
        // Each message counts 64 bytes, its source and itself: 86.
        let (disk, store) = pausing(1000).await;
        let before = disk.writes();
        let _first = append_each(&store, 1..3).await;
        assert_eq!(disk.writes(), before, "172 bytes wait");
        let _last = append_each(&store, 3..4).await;
        store.wait_for(3).await.expect("258 bytes wait");
        assert_eq!(disk.writes() - before, 1);
        store.close().await.expect("it runs");
    })
    .await;
}

#[tokio::test]
async fn messages_for_which_the_queue_has_no_room_end_the_pause() {
    within(async {
        let (_disk, store) = pausing(1000).await;
        let _receipts = append_each(&store, 1..2).await;
        let mut long = message(2);
        long.payload = vec![b'.'; 2000];
        // It waits until the queue is empty.
        drop(store.append(vec![long]).await.expect("room"));
        store.wait_for(2).await.expect("it is written");
        store.close().await.expect("it runs");
    })
    .await;
}
