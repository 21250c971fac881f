//! A store whose disk fails, is full or slow.

use std::sync::Arc;
use std::time::Duration;

use durable::intake::Protocol;
use durable::{Incoming, ReadBound, Store, StoreError, StoreEvent, StoreSettings};
use durable_core::{Settings, WhenFull};
use tokio::io::AsyncWriteExt;
use tokio::task::yield_now;

use crate::disk::Disk;
use crate::port::{Port, settings_of};
use crate::world::{append, figures, message, messages, payload, read, settings, within};

fn open(disk: &Disk, settings: StoreSettings) -> Store {
    Store::open(disk.clone(), settings).expect("a log")
}

/// One message of 4000 bytes.
fn large(id: u64) -> Vec<Incoming> {
    let mut large = message(id);
    large.payload.resize(4000, b'.');
    vec![large]
}

/// Appends until the log has no room for the shortest message.
async fn fill(store: &Store) {
    let mut short = message(0);
    (short.source, short.payload) = (Arc::from(&b"a"[..]), b"m".to_vec());
    for messages in [large(0), vec![short]] {
        while store.append_and_sync(messages.clone()).await.expect("room in the queue").synced().await.is_ok() {}
    }
}

#[tokio::test]
async fn a_failed_sync_is_told_to_those_who_wait_and_later_messages_are_synced() {
    within(async {
        let disk = Disk::default();
        let store = open(&disk, settings());
        disk.fail_syncs(1);
        let receipt = store.append_and_sync(messages(0..2)).await.expect("room");
        let error = receipt.synced().await.expect_err("the disk failed");
        assert!(matches!(error, StoreError::NotSynced(_)), "{error}");
        let failed = figures(&store, |figures| figures.not_synced == 2).await;
        assert!(failed.failure.is_some_and(|failure| failure.contains("input/output error")));
        append(&store, messages(2..3)).await;
        assert_eq!(read(&store, 0).await.len(), 3, "what can be read is delivered");
        figures(&store, |figures| figures.synced == 1 && figures.failure.is_none()).await;
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_fails_is_told_once_until_a_sync_succeeds() {
    within(async {
        let disk = Disk::default();
        let store = open(&disk, settings());
        disk.fail_syncs(2);
        for id in 0..2 {
            let receipt = store.append_and_sync(messages(id..id + 1)).await.expect("room");
            receipt.synced().await.expect_err("the disk failed");
        }
        append(&store, messages(2..3)).await;
        let events = figures(&store, |figures| figures.synced == 1).await.events;
        let error = "messages were not synced: input/output error; check the disk".to_owned();
        assert_eq!(events.after(0).cloned().collect::<Vec<_>>(), [StoreEvent::Failed { error }]);
    })
    .await;
}

#[tokio::test]
async fn a_turn_that_waits_for_the_disk_is_seen_until_the_disk_answers() {
    within(async {
        let disk = Disk::default();
        let store = open(&disk, settings());
        disk.hold(true);
        let receipt = store.append_and_sync(messages(0..1)).await.expect("room");
        while store.turn().is_none_or(|so_far| so_far < Duration::from_millis(20)) {
            yield_now().await;
        }
        assert_eq!(store.figures().appended, 0, "the figures are those of the turn before");
        disk.hold(false);
        receipt.synced().await.expect("synced");
        while store.turn().is_some() {
            yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn on_a_full_disk_messages_are_dropped_and_counted_until_there_is_space() {
    within(async {
        let disk = Disk::default();
        let store = open(&disk, settings());
        append(&store, messages(0..1)).await;
        disk.leave(Some(10));
        let receipt = store.append(messages(1..3)).await.expect("room in the queue");
        let error = receipt.synced().await.expect_err("the disk is full");
        assert!(matches!(&error, StoreError::Log(error) if error.is_no_space()), "{error}");
        let full = figures(&store, |figures| figures.dropped.failed == 2).await;
        assert_eq!((full.dropped.full, full.no_space), (0, 1), "the disk is full, and not the log");
        let receipt = store.append_and_sync(messages(1..2)).await.expect("room in the queue");
        receipt.synced().await.expect_err("the disk is full");
        let full = figures(&store, |figures| figures.refused == 1).await;
        assert_eq!(full.dropped.failed, 2, "a sender that hears so still has it");
        disk.leave(None);
        append(&store, messages(3..4)).await;
        assert_eq!(read(&store, 0).await, [(0, payload(0)), (1, payload(3))]);
    })
    .await;
}

#[tokio::test]
async fn a_connection_over_relp_that_a_full_log_closes_is_counted_apart_from_one_that_the_disk_closes() {
    let disk = Disk::default();
    let log = Settings { max_bytes: 64 << 10, ..settings().log };
    let port = Port { store: open(&disk, StoreSettings { log, ..settings() }), ..Port::new().await };
    let test = async {
        let offer = b"1 open 30 relp_version=0\ncommands=syslog\n2 syslog 3 one\n";
        fill(&port.store).await;
        let before = port.store.figures();
        assert_eq!((before.refused, before.refused_full), (2, 2));
        let mut first = port.connect().await;
        first.write_all(offer).await.expect("it is read");
        port.until(|counted| (counted.log_full, counted.not_kept, counted.connections) == (1, 0, 0)).await;
        assert_eq!(figures(&port.store, |figures| figures.refused == 3).await.refused_full, 3);
        port.store.bound(1 << 20);
        disk.leave(Some(10));
        let mut second = port.connect().await;
        second.write_all(offer).await.expect("it is read");
        port.until(|counted| (counted.log_full, counted.not_kept, counted.connections) == (1, 1, 0)).await;
        assert_eq!(figures(&port.store, |figures| figures.refused == 4).await.refused_full, 3, "the log has room");
        disk.leave(None);
        disk.fail_syncs(1);
        let mut third = port.connect().await;
        third.write_all(offer).await.expect("it is read");
        port.until(|counted| (counted.log_full, counted.not_kept, counted.connections) == (1, 2, 0)).await;
    };
    port.serve(settings_of(Protocol::Relp), test).await;
}

#[tokio::test]
async fn on_a_full_disk_a_refused_message_is_dropped_and_holds_up_none_behind_it() {
    within(async {
        let disk = Disk::default();
        let store = open(&disk, settings());
        append(&store, messages(0..2)).await;
        disk.leave(Some(0));
        store.dead(0, "400 Bad Request".to_owned()).await.expect("it is dropped");
        let full = figures(&store, |figures| figures.dropped.dead == 1).await;
        assert_eq!((full.dead_letters, full.failure), (0, None), "full is not broken");
        disk.leave(None);
        store.dead(1, "400 Bad Request".to_owned()).await.expect("it is put aside");
        figures(&store, |figures| figures.dead_letters == 1).await;
    })
    .await;
}

#[tokio::test]
async fn a_log_that_drops_the_oldest_takes_every_message_and_counts_those_that_went() {
    within(async {
        let log = Settings { max_bytes: 64 << 10, when_full: WhenFull::DropOldest, ..settings().log };
        let store = open(&Disk::default(), StoreSettings { log, ..settings() });
        for id in 0..40 {
            append(&store, large(id)).await;
        }
        let after = figures(&store, |figures| figures.appended == 40).await;
        assert!(after.dropped.full > 20, "{after:?}");
        assert_eq!(after.dropped.full, after.cursor, "the oldest");
        assert_eq!(read(&store, after.cursor).await.len() as u64, 40 - after.cursor);
    })
    .await;
}

#[tokio::test]
async fn a_full_log_that_blocks_takes_messages_in_order_as_the_sink_makes_room() {
    within(async {
        let log = Settings { max_bytes: 64 << 10, ..settings().log };
        let log = Settings { sync_after: Duration::ZERO, ..log };
        let store = open(&Disk::default(), StoreSettings { log, blocks: true, ..settings() });
        let mut receipts = Vec::new();
        for id in 0..40 {
            receipts.push(store.append(large(id)).await.expect("room in the queue"));
        }
        let mut next = 0;
        while next < 40 {
            store.wait_for(next).await.expect("it runs");
            let read = store.read(next, ReadBound { messages: 8, bytes: 1 << 20 }).await.expect("the disk is well");
            for kept in read.messages {
                assert!(kept.number == next && kept.payload.starts_with(&payload(next)), "message {next}");
                next += 1;
            }
            store.acknowledge(next).await.expect("it runs");
        }
        for receipt in receipts {
            receipt.synced().await.expect("every message was taken");
        }
        assert_eq!(store.figures().dropped.full, 0);
    })
    .await;
}

#[tokio::test]
async fn messages_that_wait_for_the_disk_are_bounded_and_those_beyond_wait_or_are_dropped() {
    within(async {
        let disk = Disk::default();
        // Each message counts 64 bytes, its source and itself: three have room.
        let store = open(&disk, StoreSettings { queue_bytes: 300, ..settings() });
        disk.hold(true);
        let mut receipts = Vec::new();
        for id in 0..3 {
            receipts.push(store.try_append(vec![message(id)]).expect("room"));
        }
        assert_eq!(store.try_append(messages(3..5)).expect_err("no room"), StoreError::QueueFull);
        assert_eq!(store.figures().dropped.queue, 2);
        {
            let mut waits = Box::pin(store.append_and_sync(vec![message(3)]));
            let polled = tokio::time::timeout(Duration::ZERO, &mut waits).await;
            assert!(polled.is_err(), "it waits for room");
            disk.hold(false);
            waits.await.expect("room").synced().await.expect("synced");
        }
        for receipt in receipts {
            receipt.synced().await.expect("synced with the last one");
        }
        assert_eq!(read(&store, 0).await.len(), 4);
    })
    .await;
}
