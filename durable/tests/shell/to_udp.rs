//! A sink over UDP, on loopback.

use durable::{Folder, Sink, Store};
use tempfile::tempdir;
use tokio::net::UdpSocket;

use crate::sinks::{Loopback, send};
use crate::world::{append, messages, settings, within};

#[tokio::test]
async fn datagrams_go_in_order_once_the_sink_is_reached_and_one_that_is_too_long_is_put_aside() {
    let home = tempdir().expect("a folder");
    let mut large = settings();
    large.log.max_bytes = 1 << 23;
    large.log.max_message_bytes = 70_000;
    large.dead_bytes = 1 << 23;
    let store = Store::open(Folder::open(home.path()).expect("a folder"), large).expect("a log");
    let mut three = messages(0..3);
    three[1].payload = vec![b'.'; 66_000];
    within(append(&store, three)).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let dial = Loopback::new(socket.local_addr().expect("it is bound"));
    dial.refusals.set(2);
    let test = Box::pin(async {
        let mut buffer = [0; 100];
        for expected in ["message 0", "message 2"] {
            let count = socket.recv(&mut buffer).await.expect("a datagram");
            assert_eq!(String::from_utf8_lossy(&buffer[..count]), expected);
        }
    });
    let reported = send(&store, Sink::Udp, &dial, test).await;
    assert_eq!((reported.delivered, reported.resent, store.figures().backlog()), (2, 0, 0));
    assert!(reported.dead.len() == 1 && reported.dead[0].contains("66000 bytes are too long"), "{reported:?}");
    assert!(reported.errors.len() == 2 && reported.pauses[1] > reported.pauses[0], "{reported:?}");
}
