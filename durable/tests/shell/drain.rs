//! How a store ends: drained within a bound of time, or closed.

use std::time::Duration;

use durable::{Sink, Store, StoreError};
use tempfile::tempdir;

use crate::sinks::{Loopback, send_for};
use crate::world::{append, messages, open, read, within};

#[tokio::test]
async fn a_drain_takes_nothing_more_and_ends_in_time_with_the_sender_though_the_sink_is_away() {
    let home = tempdir().expect("a folder");
    let store = open(home.path());
    within(append(&store, messages(0..3))).await;
    let (_listener, dial) = Loopback::listens().await;
    dial.refusals.set(u32::MAX);
    let reported = send_for(&store, Sink::Relp { window: 4 }, &dial, async {}, Duration::from_millis(20)).await;
    assert_eq!((reported.delivered, store.figures().backlog()), (0, 3));
    let refused = within(store.append(messages(3..4))).await.expect_err("it is closed");
    assert_eq!(refused, StoreError::Stopped);
    let again = open(home.path());
    assert_eq!(within(read(&again, 0)).await.len(), 3);
}

#[tokio::test]
async fn a_log_that_is_drained_gives_its_disk_back_and_one_that_is_closed_does_not() {
    let home = tempdir().expect("a folder");
    let store = open(home.path());
    let left = async |store: &Store, ids: std::ops::Range<u64>| {
        append(store, messages(ids.clone())).await;
        store.acknowledge(ids.end).await.expect("it runs");
    };
    within(left(&store, 0..3)).await;
    within(store.drain(Duration::from_secs(10))).await.expect("it runs");
    assert_eq!(store.disk_bytes(), 0);
    let again = open(home.path());
    within(left(&again, 3..4)).await;
    within(again.close()).await.expect("it runs");
    assert!(again.disk_bytes() > 0);
}
