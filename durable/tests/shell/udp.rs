//! Messages over UDP, on loopback.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use durable::intake::{Intake, IntakeFigures, Limits, Oversize, receive};
use durable::{Folder, ReadBound, Store, StoreError};
use proxy_api::partials::Partials;
use tempfile::tempdir;
use tokio::net::UdpSocket;
use tokio::select;
use tokio::task::yield_now;
use tokio::time::pause;

use crate::disk::Disk;
use crate::world::{figures, messages, open, read, settings, within};

const TRUNCATE: Limits = Limits { max_message_bytes: 8, oversize: Oversize::Truncate };
const DROP: Limits = Limits { max_message_bytes: 8, oversize: Oversize::Drop };

async fn sockets() -> (UdpSocket, SocketAddr, UdpSocket) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("it is bound");
    (socket, address, UdpSocket::bind("127.0.0.1:0").await.expect("a port"))
}

async fn until(intake: &Intake, is_so: impl Fn(&IntakeFigures) -> bool) {
    while !is_so(&intake.figures()) {
        yield_now().await;
    }
}

async fn is_served(serving: impl Future<Output = io::Error>, test: impl Future<Output = ()>) {
    within(async {
        select! {
            // First, so that it begins before the test does.
            biased;
            error = serving => panic!("the socket failed: {error}"),
            () = test => {}
        }
    })
    .await;
}

#[tokio::test]
async fn a_datagram_is_a_message_and_is_cut_or_dropped_beyond_the_bound() {
    let home = tempdir().expect("a folder");
    let store = open(home.path());
    for (limits, expected, counted) in
        [(TRUNCATE, vec!["one", "two is m", "3"], (1, 0)), (DROP, vec!["one", "3"], (0, 1))]
    {
        let intake = Intake::default();
        let (socket, address, sender) = sockets().await;
        let first = store.figures().next;
        let test = async {
            for datagram in ["one", "two is much too long", "3"] {
                sender.send_to(datagram.as_bytes(), address).await.expect("it is sent");
            }
            until(&intake, |figures| figures.messages == expected.len() as u64).await;
            store.wait_for(first + expected.len() as u64 - 1).await.expect("it runs");
            let texts: Vec<_> = read(&store, first).await.into_iter().map(|(_, payload)| payload).collect();
            assert_eq!(texts, expected.iter().map(|text| text.as_bytes()).collect::<Vec<_>>());
            figures(&store, |figures| figures.next == first + expected.len() as u64).await;
        };
        is_served(receive(&socket, &store, limits, &intake, |_| None, &Cell::new(0)), test).await;
        let figures = intake.figures();
        assert_eq!((figures.truncated, figures.too_long), counted);
    }
}

#[tokio::test]
async fn each_datagram_has_its_own_source_in_whatever_order_they_come() {
    let (home, intake) = (tempdir().expect("a folder"), Intake::default());
    let store = open(home.path());
    let (socket, address, one) = sockets().await;
    let other = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let test = async {
        let mut expected = Vec::new();
        for (number, sender) in [&one, &one, &other, &one].into_iter().enumerate() {
            sender.send_to(b"m", address).await.expect("it is sent");
            // Those of two sockets may overtake each other.
            store.wait_for(number as u64).await.expect("it runs");
            expected.push(sender.local_addr().expect("it is bound").to_string());
        }
        let read = store.read(0, ReadBound { messages: 4, bytes: 1024 }).await.expect("it runs");
        let sources: Vec<_> = read.messages.iter().map(|kept| String::from_utf8_lossy(&kept.source)).collect();
        assert_eq!(sources, expected);
    };
    is_served(receive(&socket, &store, TRUNCATE, &intake, |_| None, &Cell::new(0)), test).await;
}

#[tokio::test]
async fn datagrams_of_all_lengths_that_wait_together_come_whole_in_order_and_once() {
    let (home, intake) = (tempdir().expect("a folder"), Intake::default());
    let mut large = settings();
    large.log.max_bytes = 1 << 23;
    large.log.max_message_bytes = 70_000;
    large.dead_bytes = 1 << 23;
    let store = Store::open(Folder::open(home.path()).expect("a folder"), large).expect("a log");
    let (socket, address, one) = sockets().await;
    let other = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let mut expected = BTreeMap::<String, Vec<Vec<u8>>>::new();
    // More than one call reads, and the longest one among others.
    for id in 0..40_u8 {
        let length = if id == 21 { 65_507 } else { [0, 1, 1200][usize::from(id % 3)] };
        let (sender, datagram) = (if id % 5 < 2 { &one } else { &other }, vec![id; length]);
        sender.send_to(&datagram, address).await.expect("it is sent");
        if length > 0 {
            let source = sender.local_addr().expect("it is bound").to_string();
            expected.entry(source).or_default().push(datagram);
        }
    }
    let count = expected.values().map(Vec::len).sum::<usize>() as u64;
    let test = async {
        until(&intake, |figures| figures.messages == count && figures.empty == 40 - count).await;
        store.wait_for(count - 1).await.expect("it runs");
        let read = store.read(0, ReadBound { messages: 100, bytes: 1 << 20 }).await.expect("it runs");
        let mut came = BTreeMap::<String, Vec<Vec<u8>>>::new();
        // Those of two sockets may overtake each other.
        for kept in read.messages {
            came.entry(String::from_utf8(kept.source).expect("text")).or_default().push(kept.payload);
        }
        assert!(came == expected, "{:?}", came.values().flatten().map(Vec::len).collect::<Vec<_>>());
        assert_eq!((read.next, intake.figures().lost), (count, 0));
    };
    let limits = Limits { max_message_bytes: 70_000, oversize: Oversize::Drop };
    is_served(receive(&socket, &store, limits, &intake, |_| None, &Cell::new(0)), test).await;
}

#[tokio::test]
async fn datagrams_that_the_system_dropped_are_counted_also_beyond_the_last_number() {
    let home = tempdir().expect("a folder");
    let store = open(home.path());
    let intake = Intake::default();
    let (socket, address, sender) = sockets().await;
    let dropped = Cell::new(u32::MAX);
    let test = async {
        // The counter of the system wraps after its greatest number.
        dropped.set(4);
        sender.send_to(b"one", address).await.expect("it is sent");
        until(&intake, |figures| figures.messages == 1).await;
        assert_eq!(intake.figures().kernel_drops, 5);
    };
    let counted = Cell::new(u32::MAX);
    is_served(receive(&socket, &store, TRUNCATE, &intake, |_| Some(dropped.get()), &counted), test).await;
}

#[tokio::test]
async fn datagrams_that_the_system_dropped_while_nobody_received_are_counted() {
    let home = tempdir().expect("a folder");
    let store = open(home.path());
    let intake = Intake::default();
    let (socket, address, sender) = sockets().await;
    let counted = Cell::new(2);
    let test = async {
        sender.send_to(b"one", address).await.expect("it is sent");
        until(&intake, |figures| figures.messages == 1).await;
        assert_eq!((intake.figures().kernel_drops, counted.get()), (3, 5));
    };
    is_served(receive(&socket, &store, TRUNCATE, &intake, |_| Some(5), &counted), test).await;
}

#[tokio::test]
async fn datagrams_beyond_what_may_wait_for_the_disk_are_dropped_and_counted() {
    let disk = Disk::default();
    let mut small = settings();
    small.queue_bytes = 300;
    let store = Store::open(disk.clone(), small).expect("a log");
    disk.hold(true);
    let intake = Intake::default();
    let (socket, address, sender) = sockets().await;
    let test = async {
        for _ in 0..8 {
            let before = intake.figures().messages + store.figures().dropped.queue;
            sender.send_to(b"one", address).await.expect("it is sent");
            while intake.figures().messages + store.figures().dropped.queue == before {
                yield_now().await;
            }
        }
        let taken = intake.figures().messages;
        assert_eq!((taken, store.figures().dropped.queue), (3, 5));
        disk.hold(false);
        store.wait_for(taken - 1).await.expect("it runs");
    };
    is_served(receive(&socket, &store, TRUNCATE, &intake, |_| None, &Cell::new(0)), test).await;
}

#[tokio::test]
async fn datagrams_stay_in_the_socket_until_the_log_has_room_again_if_that_is_soon() {
    let disk = Disk::default();
    let mut small = settings();
    small.queue_bytes = 100;
    let store = Store::open(disk.clone(), small).expect("a log");
    disk.hold(true);
    let intake = Intake::default();
    let (socket, address, _) = sockets().await;
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let test = async {
        sender.send_to(b"one", address).expect("it is sent");
        until(&intake, |figures| figures.messages == 1).await;
        // The clock stands still, as the test always has something to do.
        pause();
        sender.send_to(b"two", address).expect("it is sent");
        for _ in 0..100 {
            yield_now().await;
        }
        assert_eq!((intake.figures().messages, store.figures().dropped.queue), (1, 0), "there is no room");
        disk.hold(false);
        let began = Instant::now();
        while intake.figures().messages < 2 {
            assert!(began.elapsed() < Duration::from_secs(20), "it is not read");
            yield_now().await;
        }
        assert_eq!(store.figures().dropped.queue, 0);
    };
    is_served(receive(&socket, &store, TRUNCATE, &intake, |_| None, &Cell::new(0)), test).await;
}

#[tokio::test]
async fn sockets_that_wait_for_one_log_do_not_take_the_room_of_each_other() {
    let disk = Disk::default();
    let mut small = settings();
    small.queue_bytes = 100;
    let store = Store::open(disk.clone(), small).expect("a log");
    disk.hold(true);
    let intake = Intake::default();
    let ((one, first, _), (two, second, _)) = (sockets().await, sockets().await);
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let counted = [Cell::new(0), Cell::new(0)];
    let serving = async {
        select! {
            error = receive(&one, &store, TRUNCATE, &intake, |_| None, &counted[0]) => error,
            error = receive(&two, &store, TRUNCATE, &intake, |_| None, &counted[1]) => error,
        }
    };
    let test = async {
        sender.send_to(b"one", first).expect("it is sent");
        until(&intake, |figures| figures.messages == 1).await;
        // The clock stands still, as the test always has something to do.
        pause();
        sender.send_to(b"two", first).expect("it is sent");
        sender.send_to(b"three", second).expect("it is sent");
        for _ in 0..100 {
            yield_now().await;
        }
        assert_eq!((intake.figures().messages, store.figures().dropped.queue), (1, 0), "there is no room");
        disk.hold(false);
        let began = Instant::now();
        while intake.figures().messages + store.figures().dropped.queue < 3 {
            assert!(began.elapsed() < Duration::from_secs(20), "they are not read");
            yield_now().await;
        }
        assert_eq!(store.figures().dropped.queue, 0);
    };
    is_served(serving, test).await;
}

// D7
#[tokio::test]
async fn datagrams_for_which_there_is_no_memory_are_dropped_and_counted_unless_none_waits_for_the_log() {
    let disk = Disk::default();
    let store = Store::open(disk.clone(), settings()).expect("a log");
    disk.hold(true);
    let intake = Intake::default().within(Arc::new(Partials::new(0)).share("ns"));
    let (socket, address, sender) = sockets().await;
    let test = async {
        sender.send_to(b"one", address).await.expect("it is sent");
        until(&intake, |figures| figures.messages == 1).await;
        sender.send_to(b"two", address).await.expect("it is sent");
        while store.figures().dropped.queue == 0 {
            yield_now().await;
        }
        assert_eq!(intake.figures().messages, 1);
        disk.hold(false);
        store.wait_for(0).await.expect("it runs");
    };
    is_served(receive(&socket, &store, TRUNCATE, &intake, |_| None, &Cell::new(0)), test).await;
}

#[tokio::test]
async fn datagrams_that_come_faster_than_they_are_read_leave_others_their_turn() {
    let home = tempdir().expect("a folder");
    let store = open(home.path());
    let intake = Intake::default();
    let (socket, address, sender) = sockets().await;
    for id in 0..200 {
        // Those that are empty or too long cost a turn as well.
        let datagram = ["one", "", "much too long"][id % 3];
        sender.send_to(datagram.as_bytes(), address).await.expect("it is sent");
    }
    within(async {
        socket.readable().await.expect("it is open");
        let taken = || {
            let figures = intake.figures();
            figures.messages + figures.empty + figures.too_long
        };
        let counted = Cell::new(0);
        let mut serving = pin!(receive(&socket, &store, DROP, &intake, |_| None, &counted));
        poll_fn(|context| {
            assert!(serving.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(taken(), 128, "one batch");
        select! {
            error = &mut serving => panic!("the socket failed: {error}"),
            () = until(&intake, |_| taken() == 200) => {}
        }
    })
    .await;
}

#[tokio::test]
async fn a_datagram_without_a_byte_is_no_message() {
    let home = tempdir().expect("a folder");
    let store = open(home.path());
    let intake = Intake::default();
    let (socket, address, sender) = sockets().await;
    let test = async {
        for datagram in ["", "one"] {
            sender.send_to(datagram.as_bytes(), address).await.expect("it is sent");
        }
        until(&intake, |figures| figures.messages == 1 && figures.empty == 1).await;
        store.wait_for(0).await.expect("it runs");
        assert_eq!(read(&store, 0).await, [(0, b"one".to_vec())]);
    };
    is_served(receive(&socket, &store, TRUNCATE, &intake, |_| None, &Cell::new(0)), test).await;
}

#[tokio::test]
async fn a_datagram_of_a_source_that_is_not_admitted_is_dropped_and_counted() {
    let home = tempdir().expect("a folder");
    let store = open(home.path());
    let intake = Intake::guarded(|source| !source.is_loopback());
    let (socket, address, sender) = sockets().await;
    let test = async {
        sender.send_to(b"one", address).await.expect("it is sent");
        until(&intake, |figures| figures.denied == 1).await;
    };
    is_served(receive(&socket, &store, TRUNCATE, &intake, |_| None, &Cell::new(0)), test).await;
    assert_eq!((intake.figures().messages, store.figures().next), (0, 0));
}

#[tokio::test]
async fn a_datagram_that_comes_while_the_store_closes_stays_in_the_socket() {
    within(async {
        let disk = Disk::default();
        let store = Store::open(disk.clone(), settings()).expect("a log");
        let (socket, address, sender) = sockets().await;
        disk.hold(true);
        let before = store.try_append(messages(0..1)).expect("room");
        let mut closing = pin!(store.close());
        // The call is made, and the disk holds it up.
        let waits = poll_fn(|context| Poll::Ready(closing.as_mut().poll(context).is_pending())).await;
        assert!(waits, "the disk is held");
        assert_eq!(store.try_append(messages(1..2)).expect_err("it closes"), StoreError::Stopped);
        sender.send_to(b"next", address).await.expect("it is sent");
        let error = receive(&socket, &store, TRUNCATE, &Intake::default(), |_| None, &Cell::new(0)).await;
        assert!(error.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>()).is_some(), "{error}");
        let mut datagram = [0; 8];
        let (count, _) = socket.recv_from(&mut datagram).await.expect("it is still there");
        assert_eq!(datagram.get(..count), Some(&b"next"[..]));
        disk.hold(false);
        closing.await.expect("it runs");
        before.synced().await.expect("what came before is kept");
    })
    .await;
}
