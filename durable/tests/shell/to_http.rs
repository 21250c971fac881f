//! A sink over HTTP, on loopback.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use durable::{Format, HttpSettings, Sink, Store};
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;

use crate::sinks::{Loopback, Told, send};
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
        host: "sink.example:8080".to_owned(),
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
    async fn send(&self, answer: impl FnMut(&str) -> String) -> Told {
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
    let told = run.send(|_| answers.next().unwrap_or_else(|| TAKEN.to_owned())).await;
    let first = body(0..8);
    assert_eq!(*run.server.bodies.borrow(), [first.clone(), first.clone(), first, body(8..16), body(16..20)]);
    assert_eq!(run.server.connections.get(), 2, "one connection is enough for many requests");
    assert_eq!((told.delivered, told.resent), (20, 16));
    let [away, failed, broke] = told.errors.as_slice() else { panic!("{told:?}") };
    assert!(away.contains("cannot reach the sink"), "{away}");
    assert!(failed.contains("answers 500") && failed.contains("disk full"), "{failed}");
    assert!(broke.contains("broke a request off"), "{broke}");
    assert!(told.pauses.is_sorted_by(|one, next| one < next), "{told:?}");
}

#[tokio::test]
async fn one_message_that_the_sink_refuses_is_put_aside_and_the_others_of_its_batch_are_delivered() {
    let run = Run::new(8).await;
    let refused = "HTTP/1.1 400 Bad Request\r\ncontent-length: 9\r\n\r\nno date: ";
    let told = run.send(|body| if body.contains('5') { refused } else { TAKEN }.to_owned()).await;
    let expected = [body(0..8), body(0..4), body(4..6), body(4..5), body(5..6), body(6..8)];
    assert_eq!(*run.server.bodies.borrow(), expected);
    assert_eq!((told.delivered, run.store.figures().dead_letters), (7, 1));
    assert!(told.dead.len() == 1 && told.dead[0].contains("answers 400"), "{told:?}");
    assert!(told.errors.is_empty() && run.server.connections.get() == 1, "{told:?}");
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
    let told = run.send(|_| answers.next().unwrap_or_else(|| TAKEN.to_owned())).await;
    assert_eq!(*run.server.bodies.borrow(), [body(0..8), body(0..8), body(8..16)]);
    assert_eq!((run.server.connections.get(), told.delivered, told.resent), (3, 16, 8));
    assert!(told.errors.len() == 1 && told.errors[0].contains("broke a request off"), "{told:?}");
}

#[tokio::test]
async fn a_sink_that_ends_the_connection_with_each_answer_is_no_failure() {
    let run = Run::new(16).await;
    let last = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let told = run.send(|_| last.to_owned()).await;
    assert_eq!((run.server.connections.get(), told.delivered, told.resent), (2, 16, 0));
    assert!(told.errors.is_empty(), "{told:?}");
}
