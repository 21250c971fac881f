//! A direction against a model of bytes: whatever is written, read and switched, and in whatever order, what arrives is
//! what was sent, and ends are passed on.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{
    io::{self, ErrorKind},
    iter,
    net::Shutdown,
    sync::LazyLock,
    thread::{self, JoinHandle},
};

use proptest::prelude::*;
use tokio::{runtime::Builder, task::yield_now};

use super::*;

/// Most bytes that a step writes or reads.
pub(super) const CHUNK: usize = 64 << 10;
/// Steps before the end.
const STEPS: usize = 40;
/// More pipes than the budget allows.
const ALL_PIPES: usize = 100;
/// Send buffer of the sink: small enough that a server that reads nothing is full within a few steps.
pub(super) const SINK: usize = 32 << 10;

/// What clients send, from its beginning: random bytes (`xorshift`), so that lost, repeated and exchanged ones are seen.
pub(super) static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut x = 1_u32;
    let random = iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x.to_le_bytes()[1]
    });
    random.take((STEPS + 1) * CHUNK).collect()
});

/// What happens before the direction is polled again.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The client writes up to so many bytes.
    Write(usize),
    /// The server reads up to so many bytes.
    Read(usize),
    /// The direction counts as a stream, or not.
    Stream(bool),
    /// Others have so many pipes, or all.
    Others(usize),
    /// The budget has room, or none.
    Room(bool),
    /// The sweep asks the socket.
    Ask,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..=CHUNK).prop_map(Step::Write),
        1 => (1..100_usize).prop_map(Step::Write),
        3 => (1..=CHUNK).prop_map(Step::Read),
        2 => any::<bool>().prop_map(Step::Stream),
        2 => prop_oneof![Just(0_usize), 1..24_usize, Just(ALL_PIPES)].prop_map(Step::Others),
        1 => any::<bool>().prop_map(Step::Room),
        1 => Just(Step::Ask),
    ]
}

/// How the direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    ClientFinishes,
    ClientResets,
    ServerResets,
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![Just(Ending::ClientFinishes), Just(Ending::ClientResets), Just(Ending::ServerResets)]
}

/// A direction under way, and the bytes so far.
struct Passage {
    bed: Bed,
    /// Pipes that others have.
    lent: Vec<PooledPipe>,
    sent: usize,
    moved: usize,
    received: usize,
}

impl Passage {
    fn new() -> Self {
        let bed = Bed { direction: Direction::default(), ..Bed::streaming() };
        for outside in [&bed.client, &bed.server] {
            outside.set_nonblocking(true).expect("an option");
            outside.set_nodelay(true).expect("an option");
        }
        let sink = SockRef::from(&bed.to.stream);
        sink.set_tcp_nodelay(true).expect("an option");
        sink.set_send_buffer_size(SINK).expect("an option");
        Self { bed, lent: Vec::new(), sent: 0, moved: 0, received: 0 }
    }

    fn take(&mut self, step: Step) {
        let (direction, process) = (&mut self.bed.direction, &self.bed.worker.process);
        match step {
            Step::Write(bytes) => self.write(bytes),
            Step::Read(bytes) => self.read(bytes),
            Step::Stream(streams) => {
                direction.streaming = streams;
                direction.streak = if streams { STREAM_AFTER } else { 0 };
            }
            Step::Others(count) => {
                let kept = count.min(self.lent.len());
                for pipe in self.lent.drain(kept..) {
                    process.pipes.take_back(pipe, 0);
                }
                self.lent.extend(iter::from_fn(|| process.pipes.lend(0).ok()).take(count - kept));
            }
            Step::Room(there) => {
                process.budget.resize(if there { Settings::default().held_bytes } else { 0 });
            }
            Step::Ask => self.bed.from.read_anyway.set(true),
        }
    }

    fn write(&mut self, bytes: usize) {
        match self.bed.client.write(&BYTES[self.sent..self.sent + bytes]) {
            Ok(written) => self.sent += written,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }

    fn read(&mut self, bytes: usize) {
        let mut buffer = vec![0; bytes];
        match self.bed.server.read(&mut buffer) {
            Ok(read) => {
                assert!(read > 0, "an end before that of the client");
                assert!(buffer[..read] == BYTES[self.received..self.received + read], "other bytes than were sent");
                self.received += read;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }

    /// Polls the direction once, and lets the runtime look at the sockets.
    async fn poll(&mut self) {
        let Bed { worker, direction, from, to, .. } = &mut self.bed;
        let (worker, ends) = (&**worker, (&*from, &*to));
        let (limit, moved) = (Bucket::default(), Cell::new(0));
        let polled = poll_fn(|cx| {
            let count = |bytes| moved.set(moved.get() + bytes);
            Poll::Ready(direction.poll(cx, worker, &limit, ends, &count))
        });
        assert!(polled.await.is_pending(), "nobody has ended");
        self.moved += moved.get();
        yield_now().await;
    }

    /// Ends one side, and waits until the direction has passed that on. From here on only what wakes it has it polled, and
    /// the server reads whatever comes.
    async fn end(self, ending: Ending) {
        let Self { bed, lent: _lent, sent, moved, received } = self;
        let Bed { worker, mut direction, mut client, from, to, server } = bed;
        let (reader, phase) = match ending {
            Ending::ClientFinishes => {
                client.shutdown(Shutdown::Write).expect("connected");
                (Some(read_on(server)), Phase::Finished)
            }
            Ending::ClientResets => {
                reset(client);
                (Some(read_on(server)), Phase::Cut)
            }
            Ending::ServerResets => {
                reset(server);
                // Without bytes nobody would learn of it. If there is no room for this one, there are others.
                let _ = client.write(&BYTES[..1]);
                (None, Phase::Dead)
            }
        };
        let (limit, moved) = (Bucket::default(), Cell::new(moved));
        let count = |bytes| moved.set(moved.get() + bytes);
        let ends = poll_fn(|cx| direction.poll(cx, &worker, &limit, (&from, &to), &count));
        timeout(PATIENCE, ends).await.expect("the end is passed on");
        assert_eq!(direction.phase, phase);
        assert!(direction.kept.is_none() && direction.pipe().is_none());
        assert_eq!(worker.process.budget.held(), 0);
        let Some(reader) = reader else { return };
        if ending == Ending::ClientResets {
            // Such an end is for the relay to pass on; with a FIN, all bytes arrive before it.
            to.clean.set(true);
            drop(to);
        } else {
            assert_eq!(moved.get(), sent, "everything is passed on before the FIN");
        }
        let rest = reader.join().expect("no panic").expect("bytes and a FIN");
        assert!(rest == BYTES[received..moved.get()], "other bytes than were sent");
    }
}

fn reset(stream: StdStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(stream);
}

/// Reads to the end on a thread of its own.
pub(super) fn read_on(mut server: StdStream) -> JoinHandle<io::Result<Vec<u8>>> {
    server.set_nonblocking(false).expect("an option");
    server.set_read_timeout(Some(PATIENCE)).expect("an option");
    thread::spawn(move || {
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).map(|_| rest)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bytes_arrive_as_they_were_sent_and_so_does_the_end(
        steps in prop::collection::vec(step(), 0..=STEPS),
        ending in ending(),
    ) {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut passage = Passage::new();
            let worker = passage.bed.worker.clone();
            let all = async move {
                for step in steps {
                    passage.take(step);
                    passage.poll().await;
                }
                passage.end(ending).await;
            };
            tokio::select! { () = all => {}, () = worker.turns.give() => {} }
        });
    }
}
