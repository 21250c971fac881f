//! Messages over TCP and RELP, on loopback.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use durable::intake::{Framing, Intake, Limits, Oversize, Protocol, TcpSettings};
use durable::{ReadBound, Store, StoreSettings};
use durable_core::Settings;
use proxy_api::partials::Partials;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::disk::Disk;
use crate::port::{Port, rest, settings_of};
use crate::world::{figures, settings};

#[tokio::test]
async fn messages_of_a_stream_are_appended_with_their_source_and_cut_at_the_bound() {
    let port = Port::new().await;
    let test = async {
        let mut sender = port.connect().await;
        let from = sender.local_addr().expect("it is bound").to_string();
        sender.write_all(b"one\ntwo\nthree is much too long\nfo").await.expect("it is read");
        assert_eq!(port.texts(3).await, ["one", "two", "three is much to"]);
        sender.write_all(b"ur").await.expect("it is read");
        sender.shutdown().await.expect("it is open");
        assert_eq!(port.texts(4).await[3], "four", "the end of the stream ends the message");
        let read = port.store.read(0, ReadBound { messages: 1, bytes: 1 }).await.expect("the disk is well");
        assert_eq!(read.messages[0].source, from.as_bytes());
        assert!(read.messages[0].received_millis > 1_600_000_000_000, "{read:?}");
        port.until(|figures| figures.connections == 0).await;
        let figures = port.intake.figures();
        assert_eq!((figures.messages, figures.truncated, figures.violations), (4, 1, 0));
    };
    port.serve(settings_of(Protocol::Framed(Framing::Newline)), test).await;
}

#[tokio::test]
async fn a_stream_that_violates_its_framing_is_closed_and_what_came_before_is_kept() {
    let port = Port::new().await;
    let test = async {
        let mut sender = port.connect().await;
        sender.write_all(b"3 onetwo").await.expect("it is read");
        assert_eq!(rest(&mut sender).await, b"");
        assert_eq!(port.texts(1).await, ["one"]);
        port.until(|figures| figures.violations == 1 && figures.connections == 0).await;
    };
    port.serve(settings_of(Protocol::Framed(Framing::OctetCounting)), test).await;
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_what_came_of_a_line_is_kept() {
    let port = Port::new().await;
    let test = async {
        let mut sender = port.connect().await;
        sender.write_all(b"one\ntw").await.expect("it is open");
        assert_eq!(rest(&mut sender).await, b"");
        port.until(|figures| figures.idle == 1).await;
        assert_eq!(port.texts(2).await, ["one", "tw"]);
    };
    let settings = settings_of(Protocol::Framed(Framing::Newline));
    port.serve(TcpSettings { idle: Duration::from_millis(100), ..settings }, test).await;
}

#[tokio::test]
async fn connections_are_bounded_by_source_and_in_all_and_a_place_is_free_again() {
    let port = Port::new().await;
    let settings = settings_of(Protocol::Framed(Framing::Newline));
    let test = async {
        let first = port.connect().await;
        let _second = port.connect().await;
        port.until(|figures| figures.connections == 2).await;
        let mut third = port.connect().await;
        assert_eq!(rest(&mut third).await, b"");
        assert_eq!(port.intake.figures().refused_source, 1);
        drop(first);
        port.until(|figures| figures.connections == 1).await;
        let mut again = port.connect().await;
        again.write_all(b"one\n").await.expect("it is read");
        assert_eq!(port.texts(1).await, ["one"]);
    };
    port.serve(settings, test).await;

    // Without a number for one source, it leaves the second place to another one.
    for (connections, connections_per_source) in [(1, Some(2)), (2, None)] {
        let port = Port::new().await;
        let test = async {
            let _first = port.connect().await;
            port.until(|figures| figures.connections == 1).await;
            assert_eq!(rest(&mut port.connect().await).await, b"");
            let figures = port.intake.figures();
            let expected = if connections == 1 { (1, 0) } else { (0, 1) };
            assert_eq!((figures.refused_full, figures.refused_source), expected);
        };
        port.serve(TcpSettings { connections, connections_per_source, ..settings }, test).await;
    }
}

#[tokio::test]
async fn nothing_is_read_while_the_store_has_no_room() {
    let disk = Disk::default();
    let log = Settings { max_bytes: 1 << 30, ..settings().log };
    let store = Store::open(disk.clone(), StoreSettings { log, ..settings() }).expect("a log");
    let port = Port { store, ..Port::new().await };
    disk.hold(true);
    let test = async {
        let mut sender = port.connect().await;
        let mut line = vec![b'.'; 4000];
        line.push(b'\n');
        // Until the queue and the buffers of both sockets are full.
        let mut written = 0;
        while let Ok(sent) = timeout(Duration::from_millis(200), sender.write(&line[written % line.len()..])).await {
            written += sent.expect("it is open");
            assert!(written < 64 << 20, "somebody reads without an end");
        }
        disk.hold(false);
        port.store.wait_for((written / line.len()) as u64 - 1).await.expect("it runs");
    };
    let limits = Limits { max_message_bytes: 4096, oversize: Oversize::Truncate };
    port.serve(TcpSettings { limits, ..settings_of(Protocol::Framed(Framing::Newline)) }, test).await;
}

#[tokio::test]
async fn a_stream_is_not_read_once_the_store_closes_and_its_sender_hears_of_a_reset() {
    let disk = Disk::default();
    let store = Store::open(disk.clone(), settings()).expect("a log");
    let port = Port { store, ..Port::new().await };
    disk.hold(true);
    let test = async {
        let mut sender = port.connect().await;
        sender.write_all(b"one\n").await.expect("it is read");
        port.until(|figures| figures.messages == 1).await;
        let mut closing = Box::pin(port.store.close());
        let closed = timeout(Duration::ZERO, &mut closing).await;
        assert!(closed.is_err(), "the disk is held");
        sender.write_all(b"two\n").await.expect("it is open");
        let ended = sender.read_to_end(&mut Vec::new()).await;
        assert_eq!(ended.expect_err("it was not read").kind(), ErrorKind::ConnectionReset);
        assert_eq!(port.intake.figures().messages, 1);
        disk.hold(false);
        closing.await.expect("it runs");
    };
    port.serve(settings_of(Protocol::Framed(Framing::Newline)), test).await;
}

#[tokio::test]
async fn connections_that_end_with_their_port_are_not_counted_any_more() {
    let port = Port::new().await;
    let test = async {
        let _sender = port.connect().await;
        port.until(|figures| figures.connections == 1).await;
    };
    port.serve(settings_of(Protocol::Framed(Framing::Newline)), test).await;
    assert_eq!(port.intake.figures().connections, 0);
}

#[tokio::test]
async fn one_connection_at_a_time_holds_what_the_store_has_no_room_for() {
    let disk = Disk::default();
    // Three messages have room.
    let store = Store::open(disk.clone(), StoreSettings { queue_bytes: 300, ..settings() }).expect("a log");
    let port = Port { store, ..Port::new().await };
    disk.hold(true);
    let test = async {
        let mut first = port.connect().await;
        first.write_all(b"1\n2\n3\n4\n").await.expect("it is read");
        port.until(|figures| figures.messages == 3).await;
        let mut second = port.connect().await;
        second.write_all(b"a line that is too long\n").await.expect("it is open");
        port.until(|figures| figures.connections == 2).await;
        for _ in 0..100 {
            yield_now().await;
        }
        assert_eq!(port.intake.figures().truncated, 0, "it is not read");
        disk.hold(false);
        assert_eq!(port.texts(5).await, ["1", "2", "3", "4", "a line that is t"]);
    };
    port.serve(settings_of(Protocol::Framed(Framing::Newline)), test).await;
}

#[tokio::test]
async fn a_connection_is_closed_when_too_much_is_held_of_messages_that_do_not_end() {
    // A source has a third of it.
    let share = Arc::new(Partials::new(40 << 20)).share("ns");
    let port = Port { intake: Intake::default().within(share), ..Port::new().await };
    let test = async {
        let mut senders = Vec::new();
        let mut bytes = (12_u32 << 20).to_be_bytes().to_vec();
        bytes.resize(11 << 20, b'.');
        for _ in 0..3 {
            let mut sender = port.connect().await;
            // It may be closed meanwhile.
            let _ = sender.write_all(&bytes).await;
            senders.push(sender);
        }
        port.until(|figures| figures.crowded > 0 && figures.connections == 3 - figures.crowded).await;
        assert!(port.intake.figures().connections > 0, "the first one has room");
    };
    let limits = Limits { max_message_bytes: 12 << 20, oversize: Oversize::Truncate };
    let settings = settings_of(Protocol::Framed(Framing::Length4));
    port.serve(TcpSettings { limits, connections_per_source: Some(3), ..settings }, test).await;
}

// D7
#[tokio::test]
async fn without_memory_a_little_is_read_once_the_log_has_all_that_came_before() {
    let disk = Disk::default();
    let store = Store::open(disk.clone(), settings()).expect("a log");
    let intake = Intake::default().within(Arc::new(Partials::new(0)).share("ns"));
    let port = Port { store, intake, ..Port::new().await };
    disk.hold(true);
    let test = async {
        let mut sender = port.connect().await;
        sender.write_all(&b"m\n".repeat(3000)).await.expect("it is read");
        port.until(|figures| figures.short_reads == 2).await;
        let messages = port.intake.figures().messages;
        assert!((1..=1024).contains(&messages), "{messages} messages of 2 KiB");
        disk.hold(false);
        port.until(|figures| figures.messages == 3000).await;
    };
    port.serve(settings_of(Protocol::Framed(Framing::Newline)), test).await;
}

// D7
#[tokio::test]
async fn messages_that_wait_for_a_log_count_until_it_has_them() {
    let disk = Disk::default();
    let store = Store::open(disk.clone(), settings()).expect("a log");
    let all = Arc::new(Partials::new(1 << 20));
    let port = Port { store, intake: Intake::default().within(all.share("ns")), ..Port::new().await };
    // Whether there is room for all but a few bytes, of another listener.
    let is_free = || all.share("ns").partial([192, 0, 2, 1].into()).waiting().takes((1 << 20) / 3);
    disk.hold(true);
    let test = async {
        let mut sender = port.connect().await;
        sender.write_all(b"one\n").await.expect("it is read");
        port.until(|figures| figures.messages == 1).await;
        assert!(!is_free());
        disk.hold(false);
        while !is_free() {
            yield_now().await;
        }
    };
    port.serve(settings_of(Protocol::Framed(Framing::Newline)), test).await;
}

const OPEN: &[u8] = b"1 open 30 relp_version=0\ncommands=syslog\n";

#[tokio::test]
async fn relp_hears_of_a_message_once_it_is_synced() {
    let port = Port::new().await;
    let test = async {
        let mut sender = port.connect().await;
        sender.write_all(OPEN).await.expect("it is read");
        sender.write_all(b"2 syslog 3 one\n3 syslog 3 two\n").await.expect("it is read");
        let mut answers = Vec::new();
        while !String::from_utf8_lossy(&answers).contains("\n2 rsp 6 200 OK\n3 rsp 6 200 OK\n") {
            assert!(sender.read_buf(&mut answers).await.expect("it is open") > 0, "{answers:?}");
        }
        assert_eq!(port.texts(2).await, ["one", "two"]);
        // No sync is due for an hour: these are the ones that the sender waits for.
        figures(&port.store, |figures| figures.synced == 2).await;
    };
    port.serve(settings_of(Protocol::Relp), test).await;
}

#[tokio::test]
async fn relp_hears_nothing_of_a_message_whose_sync_failed() {
    let disk = Disk::default();
    let store = Store::open(disk.clone(), settings()).expect("a log");
    let port = Port { store, ..Port::new().await };
    disk.fail_syncs(1);
    let test = async {
        let mut sender = port.connect().await;
        sender.write_all(OPEN).await.expect("it is read");
        sender.write_all(b"2 syslog 3 one\n").await.expect("it is read");
        let answers = String::from_utf8(rest(&mut sender).await).expect("text");
        assert!(!answers.contains("2 rsp"), "{answers}");
        figures(&port.store, |figures| figures.not_synced == 1).await;
    };
    port.serve(settings_of(Protocol::Relp), test).await;
}

#[tokio::test]
async fn what_is_read_at_once_may_be_longer_than_a_segment_of_the_log() {
    let disk = Disk::default();
    // A segment has 8 KiB.
    let log = Settings { max_bytes: 64 << 10, ..settings().log };
    let store = Store::open(disk, StoreSettings { log, ..settings() }).expect("a log");
    let port = Port { store, ..Port::new().await };
    let test = async {
        let mut sender = port.connect().await;
        let frames: Vec<String> = (2..402).map(|number| format!("{number} syslog 13 message {number:05}\n")).collect();
        sender.write_all(OPEN).await.expect("it is read");
        sender.write_all(frames.concat().as_bytes()).await.expect("it is read");
        let mut answers = Vec::new();
        while !String::from_utf8_lossy(&answers).contains("\n401 rsp 6 200 OK\n") {
            assert!(sender.read_buf(&mut answers).await.expect("it is open") > 0, "{answers:?}");
        }
        let texts: Vec<String> = (2..402).map(|number| format!("message {number:05}")).collect();
        assert_eq!(port.texts(400).await, texts);
    };
    port.serve(settings_of(Protocol::Relp), test).await;
}

#[tokio::test]
async fn a_connection_of_a_source_that_is_not_admitted_is_closed_and_counted() {
    let port = Port { intake: Intake::guarded(|source| !source.is_loopback()), ..Port::new().await };
    let test = async {
        let mut sender = port.connect().await;
        assert_eq!(rest(&mut sender).await, b"");
        port.until(|figures| figures.denied == 1 && figures.connections == 0).await;
    };
    port.serve(settings_of(Protocol::Framed(Framing::Newline)), test).await;
}
