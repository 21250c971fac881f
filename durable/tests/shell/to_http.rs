//! A sink over HTTP, on loopback.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use durable::{Format, HttpSettings, Kept, Sender, SenderEvent, Sink, Store};
use durable_core::send::ANSWER_WITHIN;
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, pause, resume, timeout};

use crate::sinks::{Loopback, Reported, send};
use crate::world::{append, figures, messages, open, payload, within};

const TAKEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
/// The sender hears nothing: the connection is closed.
const BREAK: &str = "";

/// A sink that answers as the test says, over one connection after another.
struct Server {
    listener: TcpListener,
    connections: Cell<usize>,
    /// The bodies that it has, whatever it answered.
    bodies: RefCell<Vec<String>>,
}

impl Server {
    async fn serve(&self, mut answer: impl FnMut(&str) -> String) {
        loop {
            let (mut stream, _) = self.listener.accept().await.expect("a connection");
            self.connections.set(self.connections.get() + 1);
            while let Some((head, body)) = request(&mut stream).await {
                assert!(head.starts_with("POST /in?a=b HTTP/1.1\r\n"), "{head}");
                assert!(head.contains("\r\nhost: sink.example:8080\r\n"), "{head}");
                assert!(head.contains("\r\ncontent-type: application/octet-stream\r\n"), "{head}");
                let answer = answer(&body);
                self.bodies.borrow_mut().push(body);
                if answer == BREAK || stream.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    }
}

/// The head and the body of the next request, if there is one.
async fn request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(request) = whole(&bytes) {
            return Some(request);
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// The head and the body of a request that has come to its end.
fn whole(bytes: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    (body.len() == length.parse::<usize>().expect("a number")).then(|| (format!("{head}\r\n"), body.to_owned()))
}

/// Batches of eight.
fn sink() -> Sink {
    Sink::Http(HttpSettings {
        path: "/in?a=b".to_owned(),
        format: Format::Raw,
        batch_bytes: 1 << 16,
        batch_messages: 8,
        linger: Duration::from_millis(1),
    })
}

/// Messages, and what a server made of them.
struct Run {
    _home: TempDir,
    count: u64,
    store: Store,
    server: Server,
    dial: Loopback,
}

impl Run {
    async fn new(count: u64) -> Self {
        let home = tempdir().expect("a folder");
        let store = open(home.path());
        within(append(&store, messages(0..count))).await;
        let (listener, dial) = Loopback::listens().await;
        let server = Server { listener, connections: Cell::new(0), bodies: RefCell::new(Vec::new()) };
        Self { _home: home, count, store, server, dial }
    }

    /// Sends all.
    async fn send(&self, answer: impl FnMut(&str) -> String) -> Reported {
        let test = Box::pin(async {
            select! {
                () = self.server.serve(answer) => panic!("it serves for ever"),
                _ = figures(&self.store, |figures| figures.cursor == self.count) => {}
            }
        });
        send(&self.store, sink(), &self.dial, test).await
    }
}

fn body(ids: impl IntoIterator<Item = u64>) -> String {
    let texts: Vec<_> = ids.into_iter().map(|id| String::from_utf8(payload(id)).expect("text")).collect();
    texts.join("\n")
}

#[tokio::test]
async fn a_batch_is_posted_again_after_a_failure_of_the_sink_and_after_a_break() {
    let run = Run::new(20).await;
    run.dial.refusals.set(1);
    let mut answers = ["HTTP/1.1 500 No\r\ncontent-length: 9\r\n\r\ndisk full", BREAK].map(str::to_owned).into_iter();
    let reported = run.send(|_| answers.next().unwrap_or_else(|| TAKEN.to_owned())).await;
    let first = body(0..8);
    assert_eq!(*run.server.bodies.borrow(), [first.clone(), first.clone(), first, body(8..16), body(16..20)]);
    assert_eq!(run.server.connections.get(), 2, "one connection is enough for many requests");
    assert_eq!((reported.delivered, reported.resent), (20, 16));
    let [away, failed, broke] = reported.errors.as_slice() else { panic!("{reported:?}") };
    assert!(away.contains("cannot reach the sink"), "{away}");
    assert!(failed.contains("answers 500") && failed.contains("disk full"), "{failed}");
    assert!(broke.contains("aborted a request"), "{broke}");
    assert!(reported.pauses.is_sorted_by(|one, next| one < next), "{reported:?}");
}

#[tokio::test]
async fn one_message_that_the_sink_refuses_is_put_aside_and_the_others_of_its_batch_are_delivered() {
    let run = Run::new(8).await;
    let refused = "HTTP/1.1 400 Bad Request\r\ncontent-length: 9\r\n\r\nno date: ";
    let reported = run.send(|body| if body.contains('5') { refused } else { TAKEN }.to_owned()).await;
    let expected = [body(0..8), body(0..4), body(4..6), body(4..5), body(5..6), body(6..8)];
    assert_eq!(*run.server.bodies.borrow(), expected);
    assert_eq!((reported.delivered, run.store.figures().dead_letters), (7, 1));
    assert!(reported.dead.len() == 1 && reported.dead[0].contains("answers 400"), "{reported:?}");
    assert!(reported.errors.is_empty() && run.server.connections.get() == 1, "{reported:?}");
}

#[tokio::test]
async fn an_answer_has_bounds_and_a_body_beyond_them_costs_the_connection_alone() {
    let run = Run::new(16).await;
    let long = "x".repeat(20_000);
    let answers = [
        format!("HTTP/1.1 200 OK\r\nx: {long}\r\ncontent-length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{long}"),
    ];
    let mut answers = answers.into_iter();
    let reported = run.send(|_| answers.next().unwrap_or_else(|| TAKEN.to_owned())).await;
    assert_eq!(*run.server.bodies.borrow(), [body(0..8), body(0..8), body(8..16)]);
    assert_eq!((run.server.connections.get(), reported.delivered, reported.resent), (3, 16, 8));
    assert!(reported.errors.len() == 1 && reported.errors[0].contains("aborted a request"), "{reported:?}");
}

#[tokio::test]
async fn a_sink_that_ends_the_connection_with_each_answer_is_no_failure() {
    let run = Run::new(16).await;
    let last = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let reported = run.send(|_| last.to_owned()).await;
    assert_eq!((run.server.connections.get(), reported.delivered, reported.resent), (2, 16, 0));
    assert!(reported.errors.is_empty(), "{reported:?}");
}

#[tokio::test]
async fn a_sink_that_never_answers_is_given_up_after_a_minute_and_gets_its_batch_again() {
    let run = Run::new(3).await;
    let (heard, mut told) = unbounded_channel();
    let enrich = |kept: Kept| kept.payload;
    let sender = Sender { dial: &run.dial, enrich, chance: || 0.0, sink: sink(), store: run.store.clone() };
    // The test may have ended.
    let sending = sender.run(move |event: &SenderEvent| drop(heard.send(event.clone())));
    let test = async {
        let (mut silent, _) = run.server.listener.accept().await.expect("a connection");
        request(&mut silent).await.expect("a request");
        // From here on only deadlines pass the time.
        pause();
        let began = Instant::now();
        let Some(SenderEvent::Ended { error, .. }) = told.recv().await else { panic!("it is told") };
        // The deadline began with the request, a moment before.
        let waited = began.elapsed();
        assert!(waited.abs_diff(ANSWER_WITHIN) < Duration::from_secs(5), "{waited:?}");
        assert!(error.contains("silent for 60 seconds"), "{error}");
        resume();
        let (mut second, _) = run.server.listener.accept().await.expect("another connection");
        let (_, posted) = request(&mut second).await.expect("a request");
        assert_eq!(posted, body(0..3));
        second.write_all(TAKEN.as_bytes()).await.expect("it is read");
        assert_eq!(told.recv().await, Some(SenderEvent::Resent { messages: 3 }));
        assert_eq!(told.recv().await, Some(SenderEvent::Delivered { messages: 3 }));
    };
    let test = Box::pin(async {
        select! {
            () = sending => panic!("it sends until the store is closed"),
            () = test => {}
        }
    });
    timeout(ANSWER_WITHIN * 5, test).await.expect("the test ends in time");
}
