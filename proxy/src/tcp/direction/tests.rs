//! A direction on real sockets: what streams is spliced, whoever asks the socket, and passes urgent data.

use std::{
    cell::Cell,
    future::poll_fn,
    io::Write,
    net::{TcpListener as StdListener, TcpStream as StdStream},
    rc::Rc,
};

use tokio::time::timeout;

use super::*;
use crate::{
    clock::Clock,
    lives::Lives,
    log::{Level, Log, LogFormat},
    process::Process,
    settings::Settings,
};

/// Longest time for what a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a splice moves at once.
fn bytes() -> Vec<u8> {
    vec![7; 64 << 10]
}

/// A direction that streams, with its client and its server outside.
struct Bed {
    worker: Rc<Worker>,
    direction: Direction,
    client: StdStream,
    from: End,
    to: End,
    _server: StdStream,
}

#[allow(clippy::expect_used, reason = "a test helper")]
impl Bed {
    fn streaming() -> Self {
        let lives = Lives::new(Clock::start());
        let log = Log::start(LogFormat::Text, Level::Error, 1, Box::new(std::io::sink()), lives.guard("log"));
        let process = Process::new(&Settings::default(), None, lives.clone(), log.expect("a thread").0);
        let (client, from) = connection();
        let (server, to) = connection();
        let direction = Direction { streaming: true, streak: STREAM_AFTER, ..Direction::default() };
        Self { worker: Worker::new(0, process, &Settings::default()), direction, client, from, to, _server: server }
    }

    /// Polls the direction until it has moved so many bytes.
    async fn moves(&mut self, bytes: usize) {
        let (moved, limit) = (Cell::new(0), Bucket::default());
        let all = poll_fn(|cx| {
            let count = |bytes| moved.set(moved.get() + bytes);
            let _ = self.direction.poll(cx, &self.worker, &limit, (&self.from, &self.to), &count);
            if moved.get() < bytes { Poll::Pending } else { Poll::Ready(()) }
        });
        timeout(PATIENCE, all).await.expect("the bytes arrive");
        assert_eq!(moved.get(), bytes);
    }
}

/// A connection of which one end is outside.
#[allow(clippy::expect_used, reason = "a test helper")]
fn connection() -> (StdStream, End) {
    let listener = StdListener::bind("127.0.0.1:0").expect("a port");
    let outside = StdStream::connect(listener.local_addr().expect("an address")).expect("connects");
    let (inside, _) = listener.accept().expect("a connection");
    inside.set_nonblocking(true).expect("an option");
    crate::net::set_stream_options(&SockRef::from(&inside));
    (outside, End::new(TcpStream::from_std(inside).expect("a runtime")))
}

// D4
#[tokio::test]
async fn what_streams_stays_spliced_when_the_sweep_asks_the_socket() {
    let mut bed = Bed::streaming();
    for _ in 0..3 {
        bed.client.write_all(&bytes()).expect("room");
        bed.from.read_anyway.set(true);
        bed.moves(64 << 10).await;
        assert!(bed.direction.is_streaming() && !bed.from.read_anyway.get());
    }
}

#[tokio::test]
async fn a_direction_without_bytes_in_its_pipe_leaves_it_to_others() {
    let mut bed = Bed::streaming();
    bed.client.write_all(&bytes()).expect("room");
    bed.moves(64 << 10).await;
    assert!(bed.direction.is_streaming() && bed.direction.pipe.is_none());
    assert_eq!(bed.worker.process.pipes.usage().0, 1, "the pipe that was lent");
}

#[tokio::test]
async fn urgent_data_passes_a_stream() {
    let mut bed = Bed::streaming();
    bed.client.write_all(&bytes()).expect("room");
    SockRef::from(&bed.client).send_out_of_band(b"!").expect("urgent");
    bed.client.write_all(b"after").expect("room");
    bed.moves((64 << 10) + 6).await;
}
