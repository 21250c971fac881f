//! A sink over RELP that answers when the test says so.

use durable::{Sink, Store};
use durable_core::intake::relp::Server;
use durable_core::intake::{Limits, Oversize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::disk::Disk;
use crate::sinks::{Loopback, send};
use crate::world::{append, figures, message, settings};

/// Messages of 4000 bytes: more than are read from the disk at once.
const ALL: usize = 40;
/// Messages without an answer.
const WINDOW: usize = 20;

/// One connection of the sink.
struct Peer {
    stream: TcpStream,
    server: Server,
    taken: usize,
    /// Transactions without an answer.
    waiting: Vec<u32>,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.expect("a connection");
        let server = Server::new(Limits { max_message_bytes: 4096, oversize: Oversize::Drop });
        Self { stream, server, taken: 0, waiting: Vec::new() }
    }

    /// Reads once, and answers no message. Returns whether the sender keeps the connection.
    async fn read(&mut self) -> bool {
        let mut buffer = vec![0; 1 << 16];
        let count = self.stream.read(&mut buffer).await.expect("the sender hears every answer");
        let (mut received, mut out) = (Vec::new(), Vec::new());
        self.server.feed(&buffer[..count], &mut received, &mut out).expect("the sender speaks RELP");
        self.stream.write_all(&out).await.expect("it is open");
        self.taken += received.len();
        self.waiting.extend(received.iter().map(|message| message.transaction));
        count > 0
    }

    /// Answers so many of the messages that wait.
    async fn answer(&mut self, count: usize) {
        let mut out = Vec::new();
        for transaction in self.waiting.drain(..count) {
            self.server.answer(transaction, &mut out);
        }
        self.stream.write_all(&out).await.expect("it is open");
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_costs_no_answer_to_those_before_it() {
    let disk = Disk::default();
    let store = Store::open(disk.clone(), settings()).expect("a log");
    for id in 0..ALL as u64 {
        let mut long = message(id);
        long.payload.resize(4000, b'.');
        append(&store, vec![long]).await;
    }
    let (listener, dial) = Loopback::listens().await;
    let test = Box::pin(async {
        let mut first = Peer::accept(&listener).await;
        while first.taken < WINDOW {
            assert!(first.read().await, "it has more to send");
        }
        disk.fail_reads(true);
        first.answer(WINDOW - 1).await;
        figures(&store, |figures| figures.failure.is_some()).await;
        loop {
            let waiting = first.waiting.len();
            first.answer(waiting).await;
            if !first.read().await {
                break;
            }
        }
        figures(&store, |figures| figures.cursor == first.taken as u64).await;
        // It reads nothing before the sink has answered its offers.
        disk.fail_reads(false);
        let mut second = Peer::accept(&listener).await;
        while first.taken + second.taken < ALL {
            assert!(second.read().await, "it has more to send");
            let waiting = second.waiting.len();
            second.answer(waiting).await;
        }
        second
    });
    let reported = send(&store, Sink::Relp { window: 20 }, &dial, test).await;
    assert_eq!((reported.delivered, reported.resent, reported.errors.len()), (ALL as u64, 0, 1), "{reported:?}");
    assert!(reported.errors[0].contains("input/output error"), "{reported:?}");
}
