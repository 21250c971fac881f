//! Changes of one listener beside traffic: what the traffic notices, and how soon a change takes effect.

use std::{
    net::TcpStream,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use harness::{connect, round_trip, until};
use socket2::SockRef;

use crate::{
    measure::percentile,
    operator::Operator,
    poll::rest,
    process::prefer_this_thread,
    rows::Quantity,
    servers::port,
    subject::{Documents, Ports, Subject, Variant, flip},
};

/// Pause between two messages of a paced stream, and between two new connections.
const PACE: Duration = Duration::from_millis(1);
/// Bytes of a message of a paced stream.
const MESSAGES: [usize; 2] = [64, 16 << 10];
/// Length of the traffic without changes, and of that with changes, in measurements.
const LENGTHS: u32 = 2;
/// Pause between two looks for the effect of a change.
const LOOK: Duration = Duration::from_micros(200);
/// Longest wait for the effect of a change.
const EFFECT: Duration = Duration::from_secs(10);

/// What the traffic noticed.
#[derive(Default)]
struct Traffic {
    stop: AtomicBool,
    broken: AtomicU64,
    refused: AtomicU64,
    corrupt: AtomicU64,
    /// The longest time from when a message was due until its answer.
    stall: Mutex<Duration>,
}

/// Runs traffic without changes, and then with changes for as long: of two maxima, that of the longer time is larger.
pub(crate) fn changes_beside_traffic(subject: &Subject, variant: Variant, length: Duration) -> Vec<(Quantity, f64)> {
    let change: Box<dyn Fn(bool) -> Instant> = match subject.operator() {
        Some(operator) => Box::new(by_stream(operator, subject.ports, variant)),
        None => Box::new(by_file(subject, variant)),
    };
    let traffic = Traffic::default();
    let (shared, echo, flip) = (&traffic, subject.ports.echo, subject.ports.flip);
    let (calm, mut effects) = thread::scope(|scope| {
        for bytes in MESSAGES {
            scope.spawn(move || shared.stream(echo, bytes));
            // A session of the listener that changes keeps its server.
            scope.spawn(move || shared.stream(flip, bytes));
        }
        scope.spawn(move || shared.knock(echo));
        // Ends the threads also if a change takes no effect.
        let _stop = Stop(&shared.stop);
        rest(length * LENGTHS);
        let calm = shared.take_stall();
        (calm, edit(flip, &*change, length * LENGTHS))
    });
    if let Some(operator) = subject.operator() {
        until("the report of the last change", || operator.is_applied());
    }
    let count = |counter: &AtomicU64| counter.load(Relaxed) as f64;
    vec![
        (Quantity::Edits, effects.len() as f64),
        (Quantity::Broken, count(&traffic.broken)),
        (Quantity::Refused, count(&traffic.refused)),
        (Quantity::Corrupt, count(&traffic.corrupt)),
        (Quantity::CalmStall, calm.as_secs_f64()),
        (Quantity::Stall, traffic.take_stall().as_secs_f64()),
        (Quantity::EffectP50, percentile(&mut effects, 500).as_secs_f64()),
        (Quantity::EffectP99, percentile(&mut effects, 990).as_secs_f64()),
    ]
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// How a change is made by a document, which Portlane reads whole. The call returns when the change began.
fn by_file(subject: &Subject, variant: Variant) -> impl Fn(bool) -> Instant {
    let documents = Documents::new(variant, subject.ports);
    move |is_there| {
        subject.write_configuration(if is_there { &documents.there } else { &documents.here });
        let changed = Instant::now();
        subject.replace_configuration();
        // A changed file counts when two looks have seen the same state of it.
        subject.hang_up();
        rest(PACE);
        subject.hang_up();
        changed
    }
}

/// How an operator makes a change: it sends the listener, and no other. The call returns when the change began.
fn by_stream(operator: &Operator, ports: Ports, variant: Variant) -> impl Fn(bool) -> Instant {
    let [here, there] = [port::ECHO, port::NEXT].map(|to| flip(variant, ports, to));
    move |is_there| {
        let (id, offer) = if is_there { there.clone() } else { here.clone() };
        let changed = Instant::now();
        operator.push(id, offer);
        changed
    }
}

/// Changes the server of one listener again and again. The time from each change until a new connection to its port
/// notices it.
fn edit(port: u16, change: &dyn Fn(bool) -> Instant, lasting: Duration) -> Vec<Duration> {
    let (began, mut effects) = (Instant::now(), Vec::new());
    let mut is_there = false;
    while began.elapsed() < lasting {
        is_there = !is_there;
        let answer = if is_there { b'y' } else { b'x' };
        let changed = change(is_there);
        while ask(port) != Some(answer) {
            assert!(changed.elapsed() < EFFECT, "a change took no effect within {EFFECT:?}");
            rest(LOOK);
        }
        effects.push(changed.elapsed());
    }
    effects
}

/// The answer of the server that a new connection reaches.
fn ask(port: u16) -> Option<u8> {
    let mut stream = connect(port).ok()?;
    let answer = round_trip(&mut stream, b"x").ok();
    reset(&stream);
    answer?.first().copied()
}

/// Leaves no port in `TIME_WAIT`.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

impl Traffic {
    /// A stream at a fixed pace. A message that is late delays the following ones, which count from when they were due.
    fn stream(&self, port: u16, bytes: usize) {
        prefer_this_thread();
        let Ok(mut stream) = connect(port) else {
            self.refused.fetch_add(1, Relaxed);
            return;
        };
        let _ = stream.set_nodelay(true);
        let mut due = Instant::now();
        for number in 0_u64.. {
            if self.stop.load(Relaxed) {
                return;
            }
            due += PACE;
            rest(due.saturating_duration_since(Instant::now()));
            let message: Vec<u8> = number.to_le_bytes().into_iter().cycle().take(bytes).collect();
            match round_trip(&mut stream, &message) {
                Ok(answer) if answer == message => self.answered(due.elapsed()),
                Ok(_) => {
                    self.corrupt.fetch_add(1, Relaxed);
                }
                Err(_) => {
                    self.broken.fetch_add(1, Relaxed);
                    return;
                }
            }
        }
    }

    /// New connections at a fixed pace.
    fn knock(&self, port: u16) {
        prefer_this_thread();
        while !self.stop.load(Relaxed) {
            if ask(port) != Some(b'x') {
                self.refused.fetch_add(1, Relaxed);
            }
            rest(PACE);
        }
    }

    fn answered(&self, after: Duration) {
        let mut stall = self.stall.lock().expect("unpoisoned");
        *stall = after.max(*stall);
    }

    fn take_stall(&self) -> Duration {
        let mut stall = self.stall.lock().expect("unpoisoned");
        std::mem::take(&mut *stall)
    }
}
