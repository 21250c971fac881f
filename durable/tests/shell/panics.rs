//! Panics in a connection that sends messages.

use std::cell::Cell;
use std::future::{poll_fn, ready};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Poll;

use durable::intake::{Framing, Hold, Intake, Limits, Oversize, Protocol, receive};
use tempfile::tempdir;
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;
use tokio::select;
use tokio::task::yield_now;

use crate::port::{Port, settings_of};
use crate::world::{open, within};

/// Panics when the connection that has it ends.
struct Panics;

impl Drop for Panics {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "as the test wants");
    }
}

#[tokio::test]
async fn a_connection_that_panics_is_counted_and_others_are_served() {
    let is_first = AtomicBool::new(true);
    let intake = Intake::default().holding(move |_: IpAddr| {
        let held: Hold = if is_first.swap(false, Relaxed) { Box::new(Panics) } else { Box::new(()) };
        ready(Some(held))
    });
    let port = Port { intake, ..Port::new().await };
    let test = async {
        drop(port.connect().await);
        port.until(|figures| figures.panics == 1 && figures.connections == 0).await;
        let mut sender = port.connect().await;
        sender.write_all(b"one\n").await.expect("it is read");
        assert_eq!(port.texts(1).await, ["one"]);
        assert_eq!(port.intake.figures().panics, 1);
    };
    port.serve(settings_of(Protocol::Framed(Framing::Newline)), test).await;
}

#[tokio::test]
async fn datagrams_that_are_read_with_one_that_panics_are_counted_as_lost_and_those_that_come_then_are_taken() {
    const LIMITS: Limits = Limits { max_message_bytes: 8, oversize: Oversize::Drop };
    let home = tempdir().expect("a folder");
    let store = open(home.path());
    let calls = AtomicU64::new(0);
    let intake = Intake::guarded(move |_| {
        assert!(calls.fetch_add(1, Relaxed) != 4, "as the test wants");
        true
    });
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("it is bound");
    let sender = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    // Those that are dropped are counted already, and are not counted once more. Linux gives all with one call.
    let behind = u64::from(cfg!(target_os = "linux"));
    for datagram in ["one", "", "much too long", "two", "panics", "three"] {
        sender.send_to(datagram.as_bytes(), address).await.expect("it is sent");
    }
    within(async {
        let counted = Cell::new(0);
        let mut serving = pin!(receive(&socket, &store, LIMITS, &intake, |_| None, &counted));
        let panicked = poll_fn(|context| {
            match catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(context).is_ready())) {
                Ok(false) => Poll::Pending,
                Ok(true) => Poll::Ready(false),
                Err(_) => Poll::Ready(true),
            }
        });
        assert!(panicked.await, "the socket failed");
        let figures = intake.figures();
        assert_eq!((figures.lost, figures.empty, figures.too_long, figures.messages), (3 + behind, 1, 1, 0));
        sender.send_to(b"four", address).await.expect("it is sent");
        select! {
            error = receive(&socket, &store, LIMITS, &intake, |_| None, &counted) => panic!("the socket failed: {error}"),
            () = async {
                while intake.figures().messages < 2 - behind {
                    yield_now().await;
                }
            } => {}
        }
        assert_eq!((intake.figures().messages, intake.figures().lost), (2 - behind, 3 + behind));
    })
    .await;
}
