//! A direction on real sockets: what streams is spliced, whichever task reads the socket, and passes urgent data.

mod full_sinks;
mod schedules;

use std::{
    cell::Cell,
    future::poll_fn,
    io::{Read, Write},
    net::{TcpListener as StdListener, TcpStream as StdStream},
    rc::Rc,
    time::Duration,
};

use tokio::{io::Interest, time::timeout};

use super::*;
use crate::{core::workers::turns::TURN_BYTES, fixtures::process, pipes::NoPipe, settings::Settings, sys::Socket};

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
    server: StdStream,
}

#[allow(clippy::expect_used, reason = "a test helper")]
impl Bed {
    fn streaming() -> Self {
        let process = process(&Settings::default(), None);
        Self::on(Worker::new(0, process, &Settings::default()))
    }

    /// A further stream of a worker.
    fn on(worker: Rc<Worker>) -> Self {
        let (client, from) = connection();
        let (server, to) = connection();
        let direction = Direction { streaming: true, streak: STREAM_AFTER, ..Direction::default() };
        Self { worker, direction, client, from, to, server }
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

    /// Polls the direction once, which moves nothing.
    async fn moves_nothing(&mut self) -> Poll<()> {
        poll_fn(|cx| {
            let none = |bytes: usize| assert_eq!(bytes, 0, "nothing is to be moved");
            Poll::Ready(self.direction.poll(cx, &self.worker, &Bucket::default(), (&self.from, &self.to), &none))
        })
        .await
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
    (outside, End::new(Socket::watch(inside).expect("a runtime")))
}

#[test]
fn a_direction_that_never_streamed_is_four_words() {
    assert!(Direction::default().streamed.is_none());
    assert!(size_of::<Direction>() <= 4 * size_of::<usize>(), "{} bytes", size_of::<Direction>());
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
    assert_eq!(bed.worker.process.pipes.spliced(), 1, "a stream counts once");
}

#[tokio::test]
async fn a_direction_streams_after_three_large_reads_although_none_is_full() {
    let mut bed = Bed { direction: Direction { doublings: 2, ..Direction::default() }, ..Bed::streaming() };
    for large in 1..=3 {
        assert!(!bed.direction.is_streaming() && bed.direction.read_size() == 64 << 10);
        bed.client.write_all(&bytes()[..40 << 10]).expect("room");
        bed.moves(40 << 10).await;
        assert_eq!(bed.direction.is_streaming(), large == 3);
    }
}

#[tokio::test]
async fn the_unsent_bytes_of_a_server_are_bounded_once_it_gets_a_stream_or_is_full() {
    let unbounded = async |direction| {
        let bed = Bed { direction, ..Bed::streaming() };
        SockRef::from(&bed.to.stream).set_tcp_notsent_lowat(0).expect("an option");
        bed.to.is_bounded.set(false);
        timeout(PATIENCE, bed.to.stream.ready(Interest::WRITABLE)).await.expect("in time").expect("a runtime");
        bed
    };
    let bound = |bed: &Bed| SockRef::from(&bed.to.stream).tcp_notsent_lowat().expect("an option");
    let mut stream = unbounded(Direction { doublings: 2, ..Direction::default() }).await;
    for _ in 0..3 {
        assert_eq!(bound(&stream), 0, "a session that ends before it is a stream needs no bound");
        stream.client.write_all(&bytes()[..40 << 10]).expect("room");
        stream.moves(40 << 10).await;
    }
    assert_eq!(bound(&stream), 128 << 10);
    let mut full = unbounded(Direction::default()).await;
    full.client.write_all(b"more").expect("room");
    timeout(PATIENCE, full.from.stream.ready(Interest::READABLE)).await.expect("in time").expect("a runtime");
    while full.to.stream.try_write(&bytes()).is_ok() {}
    assert_eq!(bound(&full), 0);
    assert!(full.moves_nothing().await.is_pending());
    assert_eq!(bound(&full), 128 << 10);
}

#[tokio::test]
async fn a_read_that_reports_a_reset_is_remembered() {
    let mut bed = Bed { direction: Direction::default(), ..Bed::streaming() };
    let (other, _) = connection();
    let client = std::mem::replace(&mut bed.client, other);
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(client);
    timeout(PATIENCE, bed.from.stream.ready(Interest::ERROR)).await.expect("in time").expect("a runtime");
    let _ = bed.moves_nothing().await;
    assert!(bed.from.reset_by_peer.get() && bed.direction.phase == Phase::Cut);
}

#[tokio::test]
async fn full_reads_that_are_small_are_no_stream() {
    let mut bed = Bed { direction: Direction::default(), ..Bed::streaming() };
    for _ in 0..4 {
        bed.direction.doublings = 0;
        bed.client.write_all(&bytes()[..SMALL_READ]).expect("room");
        bed.moves(SMALL_READ).await;
        assert!(!bed.direction.is_streaming());
    }
}

#[tokio::test]
async fn a_direction_without_bytes_in_its_pipe_leaves_it_to_others() {
    let mut bed = Bed::streaming();
    bed.client.write_all(&bytes()).expect("room");
    bed.moves(64 << 10).await;
    assert!(bed.direction.is_streaming() && bed.direction.pipe().is_none());
    assert_eq!(bed.worker.process.pipes.count(), 1, "the pipe that was lent");
}

#[tokio::test]
async fn a_stream_with_a_small_pipe_need_not_fill_it() {
    let mut bed = Bed::streaming();
    let pipes = bed.worker.process.pipes.clone();
    let mut lent: Vec<PooledPipe> = std::iter::from_fn(|| pipes.lend(0).ok()).collect();
    let small = lent.pop().expect("a pipe");
    assert_eq!(small.pipe().size, 64 << 10);
    pipes.take_back(small, 0);
    for _ in 0..=STREAM_AFTER {
        bed.client.write_all(&bytes()[..20 << 10]).expect("room");
        bed.moves(20 << 10).await;
        assert!(bed.direction.is_streaming(), "packets of 1.5 KB would fill the pipe with 23 KB");
    }
    assert_eq!(pipes.spliced(), 1);
    // Now a large pipe is lent again, and such splices are no stream.
    for pipe in lent {
        pipes.take_back(pipe, 0);
    }
    for _ in 0..STREAM_AFTER {
        bed.client.write_all(&bytes()[..20 << 10]).expect("room");
        bed.moves(20 << 10).await;
    }
    assert!(!bed.direction.is_streaming());
}

#[tokio::test]
async fn urgent_data_passes_a_stream() {
    let mut bed = Bed::streaming();
    bed.client.write_all(&bytes()).expect("room");
    SockRef::from(&bed.client).send_out_of_band(b"!").expect("urgent");
    bed.client.write_all(b"after").expect("room");
    bed.moves((64 << 10) + 6).await;
}

#[tokio::test]
async fn what_a_full_sink_leaves_is_held_until_it_is_written() {
    let mut bed = Bed::streaming();
    bed.direction = Direction::default();
    SockRef::from(&bed.to.stream).set_send_buffer_size(4096).expect("an option");
    bed.server.set_read_timeout(Some(PATIENCE)).expect("an option");
    let (limit, moved, message) = (Bucket::default(), Cell::new(0), [9; 8 << 10]);
    let mut sent = 0;
    while !bed.direction.blocked {
        bed.client.write_all(&message).expect("room");
        sent += message.len();
        timeout(PATIENCE, bed.from.stream.ready(Interest::READABLE)).await.expect("in time").expect("a runtime");
        poll_fn(|cx| {
            let count = |bytes| moved.set(moved.get() + bytes);
            let _ = bed.direction.poll(cx, &bed.worker, &limit, (&bed.from, &bed.to), &count);
            Poll::Ready(())
        })
        .await;
    }
    let budget = bed.worker.process.budget.clone();
    assert!(bed.direction.is_holding() && budget.held() > 0);
    assert_eq!(budget.held(), sent - moved.get(), "all that was read and not written");
    let mut server = bed.server.try_clone().expect("a socket");
    let all = std::thread::spawn(move || {
        let mut all = vec![0; sent];
        server.read_exact(&mut all).map(|()| all)
    });
    bed.moves(sent - moved.get()).await;
    let all = all.join().expect("no panic").expect("the bytes arrive");
    assert!(all.iter().all(|byte| *byte == 9));
    assert_eq!(budget.held(), 0);
}

// D9
#[tokio::test]
async fn a_poll_of_a_fast_stream_ends_after_256_kib() {
    let mut bed = Bed::streaming();
    let (mut client, server) = (&bed.client, &bed.server);
    client.set_write_timeout(Some(PATIENCE)).expect("an option");
    server.set_read_timeout(Some(PATIENCE)).expect("an option");
    client.write_all(&bytes()).expect("room");
    let (limit, all, largest) = (Bucket::default(), Cell::new(0), Cell::new(0));
    let mut most = 0;
    let polls = poll_fn(|cx| {
        let before = all.get();
        // What has arrived is taken, and as much follows: the stream never pauses.
        let count = |moved: usize| {
            let mut taken = vec![0; moved];
            let (mut source, mut sink) = (client, server);
            sink.read_exact(&mut taken).expect("what was counted");
            source.write_all(&taken).expect("room");
            all.set(all.get() + moved);
            largest.set(largest.get().max(moved));
        };
        let _ = bed.direction.poll(cx, &bed.worker, &limit, (&bed.from, &bed.to), &count);
        most = most.max(all.get() - before);
        if all.get() < 16 * POLL_BYTES { Poll::Pending } else { Poll::Ready(()) }
    });
    let worker = bed.worker.clone();
    let polls = async {
        tokio::select! { () = polls => {}, () = worker.turns.give() => {} }
    };
    timeout(PATIENCE, polls).await.expect("the bytes arrive");
    assert!(most < POLL_BYTES + largest.get(), "{most} bytes in one poll");
}

#[tokio::test]
async fn a_stream_waits_for_its_turn_and_small_messages_do_not() {
    let mut bed = Bed::streaming();
    let worker = bed.worker.clone();
    worker.turns.moved(TURN_BYTES);
    bed.client.write_all(&bytes()).expect("room");
    timeout(PATIENCE, bed.from.stream.ready(Interest::READABLE)).await.expect("in time").expect("a runtime");
    poll_fn(|cx| {
        let none = |_| panic!("the turn is used up");
        let _ = bed.direction.poll(cx, &bed.worker, &Bucket::default(), (&bed.from, &bed.to), &none);
        Poll::Ready(())
    })
    .await;
    assert!(bed.direction.waits_for_turn());
    let mut small = Bed { direction: Direction::default(), ..Bed::streaming() };
    small.worker.turns.moved(TURN_BYTES);
    small.client.write_all(b"small").expect("room");
    small.moves(5).await;
    let moves = async {
        tokio::select! { () = bed.moves(64 << 10) => {}, () = worker.turns.give() => {} }
    };
    timeout(PATIENCE, moves).await.expect("the stream is called");
    assert!(!bed.direction.waits_for_turn());
}

#[tokio::test]
async fn a_stream_that_can_move_nothing_waits_for_no_turn_and_so_counts_as_idle() {
    let mut silent = Bed::streaming();
    let worker = silent.worker.clone();
    worker.turns.moved(TURN_BYTES);
    assert!(silent.moves_nothing().await.is_pending());
    assert!(!silent.direction.waits_for_turn(), "its client is silent");
    silent.client.write_all(&bytes()).expect("room");
    let moves = async {
        tokio::select! { () = silent.moves(64 << 10) => {}, () = worker.turns.give() => {} }
    };
    timeout(PATIENCE, moves).await.expect("its bytes wake it");
    worker.turns.moved(TURN_BYTES);
    silent.direction.phase = Phase::Finished;
    assert!(silent.moves_nothing().await.is_ready());
    assert!(!silent.direction.waits_for_turn(), "it has finished");
    let mut full = Bed::streaming();
    full.worker.turns.moved(TURN_BYTES);
    timeout(PATIENCE, full.to.stream.ready(Interest::WRITABLE)).await.expect("in time").expect("a runtime");
    while full.to.stream.try_write(&bytes()).is_ok() {}
    full.direction.kept = Some(Box::new(Kept { bytes: Box::new([7_u8]), at: 0 }));
    assert!(full.moves_nothing().await.is_pending());
    assert!(!full.direction.waits_for_turn() && full.direction.blocked, "its server is full");
}

#[tokio::test]
async fn a_stream_that_is_copied_ends_when_messages_follow_and_they_wait_for_no_turn() {
    let mut bed = Bed::streaming();
    let pipes = bed.worker.process.pipes.clone();
    let lent: Vec<PooledPipe> = std::iter::from_fn(|| pipes.lend(0).ok()).collect();
    bed.client.write_all(&bytes()).expect("room");
    bed.moves(64 << 10).await;
    for _ in 0..STREAM_AFTER {
        bed.client.write_all(b"message").expect("room");
        bed.moves(7).await;
    }
    assert!(!bed.direction.is_streaming() && bed.direction.pipe().is_none());
    let copied: u64 = NoPipe::ALL.into_iter().map(|why| pipes.copied(why)).sum();
    assert_eq!((pipes.spliced(), copied), (0, 1));
    drop(lent);
}
