//! The store on a real folder.

use std::fs;
use std::time::Duration;

use durable::{Fate, Folder, ReadBound, Store, StoreError, StoreSettings};
use durable_core::Error;
use tempfile::tempdir;

use crate::world::{append, figures, message, messages, open, payload, read, settings, within};

#[tokio::test]
async fn after_a_restart_the_sink_reads_on_from_the_cursor() {
    within(async {
        let home = tempdir().expect("a folder");
        let store = open(home.path());
        append(&store, messages(0..10)).await;
        let first = store.read(0, ReadBound { messages: 4, bytes: 1 << 16 }).await.expect("the disk is well");
        assert_eq!(first.messages.len(), 4);
        assert_eq!(first.messages[3].source, b"192.0.2.1:514");
        store.acknowledge(first.next).await.expect("it runs");
        store.close().await.expect("it runs");

        let store = open(home.path());
        let figures = store.figures();
        assert_eq!((figures.cursor, figures.next, figures.backlog()), (4, 10, 6));
        append(&store, messages(10..12)).await;
        let expected: Vec<_> = (4..12).map(|id| (id, payload(id))).collect();
        assert_eq!(read(&store, figures.cursor).await, expected);
        assert_eq!(read(&store, 9).await, expected[5..], "a sink may go back");
    })
    .await;
}

#[tokio::test]
async fn what_the_sink_has_acknowledged_is_written_when_the_call_returns() {
    within(async {
        let (home, killed) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
        let store = open(home.path());
        append(&store, messages(0..5)).await;
        for next in [1, 3] {
            store.acknowledge(next).await.expect("it runs");
        }
        // The files are as a kill leaves them. No sync is due for an hour.
        for file in fs::read_dir(home.path()).expect("a folder") {
            let file = file.expect("a file");
            fs::copy(file.path(), killed.path().join(file.file_name())).expect("a copy");
        }
        let figures = open(killed.path()).figures();
        assert_eq!((figures.cursor, figures.next, figures.cursors_lost), (3, 5, 0));
    })
    .await;
}

#[tokio::test]
async fn messages_that_were_not_synced_yet_share_the_next_sync_and_their_receipts_come_with_it() {
    within(async {
        let home = tempdir().expect("a folder");
        let store = open(home.path());
        let first = store.append(messages(0..2)).await.expect("room");
        let second = store.append(messages(2..3)).await.expect("room");
        store.wait_for(2).await.expect("it runs");
        let before = figures(&store, |figures| figures.appended == 3).await;
        assert_eq!((before.synced, before.syncs), (0, 0), "no sync is due");
        append(&store, messages(3..4)).await;
        first.synced().await.expect("synced");
        second.synced().await.expect("synced");
        let after = figures(&store, |figures| figures.synced == 4).await;
        assert_eq!(after.syncs, 1);
        assert!(after.sync_time > Duration::ZERO);
    })
    .await;
}

#[tokio::test]
async fn a_sync_that_is_due_needs_no_call() {
    within(async {
        let home = tempdir().expect("a folder");
        let mut quick = settings();
        quick.log.sync_after = Duration::from_millis(1);
        let store = Store::open(Folder::open(home.path()).expect("a folder"), quick).expect("a log");
        store.append(vec![message(0)]).await.expect("room").synced().await.expect("synced");
        store.append(Vec::new()).await.expect("room").synced().await.expect("nothing is to sync");
    })
    .await;
}

#[tokio::test]
async fn a_sink_waits_for_a_message_that_is_not_there_yet() {
    within(async {
        let home = tempdir().expect("a folder");
        let store = open(home.path());
        let none = store.read(0, ReadBound { messages: 1, bytes: 1 }).await.expect("the disk is well");
        assert!(none.messages.is_empty() && none.next == 0, "{none:?}");
        let (waited, ()) = tokio::join!(store.wait_for(1), append(&store, messages(0..2)));
        waited.expect("it runs");
        assert_eq!(read(&store, 1).await, [(1, payload(1))]);
    })
    .await;
}

#[tokio::test]
async fn a_message_that_the_sink_refuses_is_put_aside_and_passed() {
    within(async {
        let home = tempdir().expect("a folder");
        let store = open(home.path());
        append(&store, messages(0..3)).await;
        assert_eq!(read(&store, 0).await.len(), 3);
        assert_eq!(store.dead(1, "400 Bad Request".to_owned()).await, Ok(Fate::PutAside));
        assert_eq!(store.dead(7, "no such message".to_owned()).await, Ok(Fate::Dropped));
        store.acknowledge(3).await.expect("it runs");
        let after = figures(&store, |figures| figures.cursor == 3).await;
        assert_eq!((after.dead_letters, after.dropped.dead, after.lost), (1, 0, 0));
        assert!(after.dead_bytes > 0);
        store.close().await.expect("it runs");

        let without = StoreSettings { dead_bytes: 0, ..settings() };
        let store = Store::open(Folder::open(home.path()).expect("a folder"), without).expect("a log");
        append(&store, messages(3..4)).await;
        assert_eq!(store.dead(3, "400 Bad Request".to_owned()).await, Ok(Fate::Dropped), "it is dropped");
        let after = figures(&store, |figures| figures.dropped.dead == 1).await;
        assert_eq!(after.dead_letters, 0);
    })
    .await;
}

#[tokio::test]
async fn figures_say_how_old_the_oldest_message_is_until_all_are_acknowledged() {
    within(async {
        let home = tempdir().expect("a folder");
        let store = open(home.path());
        assert_eq!(store.figures().oldest_age(1007), None);
        append(&store, messages(0..2)).await;
        let full = figures(&store, |figures| figures.oldest_received_millis.is_some()).await;
        assert_eq!(full.oldest_age(1007), Some(Duration::from_secs(1)));
        assert_eq!(full.oldest_age(0), Some(Duration::ZERO), "the clock was set back");
        assert!(full.bytes > 0 && full.backlog() == 2, "{full:?}");
        store.acknowledge(2).await.expect("it runs");
        figures(&store, |figures| figures.oldest_received_millis.is_none() && figures.backlog() == 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_too_long_is_refused_alone() {
    within(async {
        let home = tempdir().expect("a folder");
        let store = open(home.path());
        let mut long = message(0);
        long.payload = vec![0; 4097];
        let error = store.append(vec![message(0), long]).await.expect_err("it is too long");
        assert!(matches!(error, StoreError::Log(Error::TooLong { bytes: 4097, max: 4096, .. })), "{error}");
        append(&store, messages(0..1)).await;
        assert_eq!(read(&store, 0).await, [(0, payload(0))]);
    })
    .await;
}

#[tokio::test]
async fn a_closed_store_takes_nothing_and_leaves_its_folder() {
    within(async {
        let home = tempdir().expect("a folder");
        let store = open(home.path());
        let receipt = store.append(messages(0..1)).await.expect("room");
        store.close().await.expect("it runs");
        receipt.synced().await.expect("closing syncs");
        assert_eq!(store.append(messages(1..2)).await.expect_err("it is closed"), StoreError::Stopped);
        assert_eq!(store.wait_for(1).await, Err(StoreError::Stopped));
        Folder::open(home.path()).expect("the folder is free");
    })
    .await;
}
