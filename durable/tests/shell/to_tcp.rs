//! A sink over plain TCP, on loopback.

use std::net::SocketAddr;
use std::path::Path;

use durable::intake::Framing;
use durable::{Folder, Sink, Store, StoreSettings};
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::sinks::{Loopback, lines, send};
use crate::world::{append, figures, message, messages, open, payload, settings, within};

/// A rewind of two short messages.
const NEWLINE: Sink = Sink::Tcp { framing: Framing::Newline, rewind_bytes: 64 };
/// Messages that are more than may be unacknowledged.
const LONG: u64 = 512;

fn texts(ids: impl IntoIterator<Item = u64>) -> Vec<String> {
    ids.into_iter().map(|id| String::from_utf8(payload(id)).expect("text")).collect()
}

#[tokio::test]
async fn a_message_over_tcp_is_delivered_when_its_last_byte_is_acknowledged_and_a_break_rewinds() {
    let home = tempdir().expect("a folder");
    let store = open(home.path());
    within(append(&store, messages(0..10))).await;
    let (listener, dial) = Loopback::listens().await;
    dial.refusals.set(1);
    // Ten bytes for each message: the last one, and half of the one before it.
    dial.unacknowledged.set(Some(15));
    let test = Box::pin(async {
        let (mut first, _) = listener.accept().await.expect("a connection");
        assert_eq!(lines(&mut first, 10).await, texts(0..10));
        figures(&store, |figures| figures.cursor == 8).await;
        drop(first);
        let (mut second, _) = listener.accept().await.expect("a connection");
        assert_eq!(lines(&mut second, 4).await, texts(6..10));
        assert_eq!(store.figures().cursor, 8, "15 of these bytes are not acknowledged, either");
        dial.unacknowledged.set(Some(0));
        second
    });
    let reported = send(&store, NEWLINE, &dial, test).await;
    assert_eq!((reported.delivered, reported.resent, store.figures().backlog()), (10, 4, 0));
    assert!(reported.errors[0].contains("cannot reach the sink"), "{reported:?}");
    assert_eq!(reported.errors[1..], ["the sink closes the connection"]);
}

#[tokio::test]
async fn a_message_that_a_framing_cannot_carry_does_not_hold_the_others() {
    for dead_bytes in [1 << 16, 0] {
        let home = tempdir().expect("a folder");
        let folder = Folder::open(home.path()).expect("a folder");
        let store = Store::open(folder, StoreSettings { dead_bytes, ..settings() }).expect("a log");
        let mut three = messages(0..3);
        three[1].payload = b"two\nlines".to_vec();
        within(append(&store, three)).await;
        let (listener, dial) = Loopback::listens().await;
        let test = Box::pin(async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            assert_eq!(lines(&mut stream, 2).await, texts([0, 2]));
            stream
        });
        let reported = send(&store, NEWLINE, &dial, test).await;
        assert_eq!((reported.delivered, reported.resent, store.figures().backlog()), (2, 0, 0));
        let (reasons, others) =
            if dead_bytes > 0 { (reported.dead, reported.dropped) } else { (reported.dropped, reported.dead) };
        assert!(reasons.len() == 1 && reasons[0].contains("OctetCounting"), "{reasons:?}");
        assert!(others.is_empty(), "{others:?}");
        let figures = store.figures();
        assert_eq!(figures.dead_letters + figures.dropped.dead, 1, "{figures:?}");
    }
}

#[tokio::test]
async fn a_sink_that_closes_an_idle_connection_is_no_failure_and_gets_the_rewind_with_the_next_message() {
    let home = tempdir().expect("a folder");
    let store = open(home.path());
    within(append(&store, messages(0..2))).await;
    let (listener, dial) = Loopback::listens().await;
    let test = Box::pin(async {
        let (mut first, _) = listener.accept().await.expect("a connection");
        assert_eq!(lines(&mut first, 2).await, texts(0..2));
        figures(&store, |figures| figures.cursor == 2).await;
        first.shutdown().await.expect("it is open");
        assert_eq!(first.read(&mut [0]).await.expect("it is open"), 0, "the sender closes its end");
        append(&store, messages(2..3)).await;
        let (mut second, _) = listener.accept().await.expect("a connection");
        assert_eq!(lines(&mut second, 3).await, texts(0..3));
        second
    });
    let reported = send(&store, NEWLINE, &dial, test).await;
    assert!(reported.delivered == 3 && reported.resent == 2 && reported.errors.is_empty(), "{reported:?}");
}

/// 2 MiB of long lines.
async fn filled(home: &Path) -> Store {
    let mut large = settings();
    large.log.max_bytes = 1 << 24;
    let store = Store::open(Folder::open(home).expect("a folder"), large).expect("a log");
    for id in 0..LONG {
        let mut long = message(id);
        long.payload.resize(4096, b'.');
        drop(store.append(vec![long]).await.expect("room"));
    }
    store
}

/// Reads all lines of [`filled`], in order.
async fn read_filled(stream: &mut TcpStream) {
    let read = lines(stream, usize::try_from(LONG).expect("few")).await;
    for (id, line) in read.iter().enumerate() {
        assert!(line.len() == 4096 && line.starts_with(&format!("message {id}.")), "{id}: {line}");
    }
}

#[tokio::test]
async fn a_backlog_beyond_what_may_be_unacknowledged_goes_in_order() {
    let home = tempdir().expect("a folder");
    let store = within(filled(home.path())).await;
    let (listener, dial) = Loopback::listens().await;
    let test = Box::pin(async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        read_filled(&mut stream).await;
        stream
    });
    let reported = send(&store, NEWLINE, &dial, test).await;
    assert_eq!((reported.delivered, reported.resent, reported.errors.len()), (LONG, 0, 0), "{reported:?}");
}

#[cfg_attr(not(target_os = "linux"), ignore = "asks Linux")]
#[tokio::test]
async fn what_the_system_of_a_sink_has_acknowledged_and_the_sink_never_read_is_sent_again() {
    let home = tempdir().expect("a folder");
    let store = within(filled(home.path())).await;
    // A sink whose system takes a small part of it.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(1 << 16).expect("it is not bound");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let listener = socket.listen(1).expect("it is bound");
    let dial = Loopback::new(listener.local_addr().expect("it is bound"));
    dial.unacknowledged.set(None);
    let test = Box::pin(async {
        let (first, _) = listener.accept().await.expect("a connection");
        let taken = figures(&store, |figures| figures.cursor > 0).await;
        assert!(taken.cursor < LONG / 2, "{taken:?}");
        drop(first);
        let (mut second, _) = listener.accept().await.expect("a connection");
        read_filled(&mut second).await;
        second
    });
    let all = Sink::Tcp { framing: Framing::Newline, rewind_bytes: 1 << 23 };
    let reported = send(&store, all, &dial, test).await;
    assert!(reported.delivered == LONG && reported.resent > 0 && reported.errors.len() == 1, "{reported:?}");
}
