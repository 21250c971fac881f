//! The sink is away while a client sends at a bounded rate, and comes back. An oracle at the sink, which remembers no
//! message, knows what may come: every message that the client had an answer for, in order.

use std::{
    env,
    io::{self, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use durable_core::intake::{
    Limits, Oversize,
    relp::{Received, Server},
};
use harness::{Backend, Behaviour, Listener, connect, forward, free_port, send_relp, until, until_within};
use tempfile::tempdir;

use super::{figure, run};

/// Time without a sink in the `pure` tier.
const AWAY: Duration = Duration::from_millis(800);
/// The seconds of a longer time.
const LONG: &str = "PORTLANE_AWAY_SECONDS";
/// The client waits for this time after so many messages, and has no more without an answer: at most 500 messages a
/// second.
const ROUND: u64 = 10;
const PAUSE: Duration = Duration::from_millis(20);
/// What makes messages as long as lines of a log.
const FILLER: &str = "................................................................................";
/// Longest pause between two attempts at a sink, and time to spare, beside the time in which messages were kept.
const RETRIES: Duration = Duration::from_secs(60);
/// What the program may grow by, however much it keeps.
const GROWTH: u64 = 8 << 20;

/// What the sink may be sent.
#[derive(Default)]
struct Oracle {
    is_away: bool,
    /// The message that never came yet.
    next: u64,
    taken: u64,
    faults: u64,
    first_fault: Option<String>,
}

impl Oracle {
    /// A message comes after another one of the same connection, if there was one. What a connection that broke had no
    /// answer for comes again on the next one.
    fn take(&mut self, before: Option<u64>, number: u64) {
        if number > self.next || before.is_some_and(|before| number != before + 1) {
            self.faults += 1;
            let next = self.next;
            self.first_fault.get_or_insert_with(|| format!("{number} came after {before:?}, and {next} was the next"));
        }
        self.next = self.next.max(number + 1);
        self.taken += 1;
    }
}

/// A sink that comes and goes.
struct Sink {
    port: u16,
    oracle: Arc<Mutex<Oracle>>,
    backend: Option<Backend>,
}

impl Sink {
    fn start() -> Self {
        let mut sink = Self { port: free_port(), oracle: Arc::default(), backend: None };
        sink.comes();
        sink
    }

    fn comes(&mut self) {
        self.oracle.lock().expect("unpoisoned").is_away = false;
        let asked = self.oracle.clone();
        let serve = move |stream: TcpStream| serve(stream, &asked);
        self.backend = Some(Backend::start_on(self.port, Behaviour::Run(Arc::new(serve))));
    }

    /// Takes nothing from here on.
    fn goes(&mut self) {
        self.oracle.lock().expect("unpoisoned").is_away = true;
        self.backend = None;
    }

    /// Every message before this one has arrived.
    fn arrived(&self) -> u64 {
        self.oracle.lock().expect("unpoisoned").next
    }
}

/// Answers every message, and asks the oracle. What comes while the sink is away is not taken.
fn serve(mut stream: TcpStream, oracle: &Mutex<Oracle>) {
    let mut server = Server::new(Limits { max_message_bytes: 1024, oversize: Oversize::Drop });
    let (mut buffer, mut before) = ([0; 4096], None);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let (mut received, mut out) = (Vec::new(), Vec::new());
        server.feed(&buffer[..count], &mut received, &mut out).expect("portlane speaks RELP");
        let mut asked = oracle.lock().expect("unpoisoned");
        if asked.is_away {
            return;
        }
        for Received { transaction, payload } in received {
            let text = String::from_utf8(payload).expect("text");
            let number: u64 = text.split(' ').nth(1).expect("two words").parse().expect("a number");
            asked.take(before, number);
            before = Some(number);
            server.answer(transaction, &mut out);
        }
        drop(asked);
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

/// A client that sends numbered messages at a bounded rate.
struct Client {
    ends: Arc<AtomicBool>,
    /// Every message before this one was answered.
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

impl Client {
    fn start(port: u16) -> Self {
        let mut connection = None;
        until("the port takes connections", || {
            connection = connect(port).ok();
            connection.is_some()
        });
        let stream = connection.expect("just seen");
        let (ends, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (ending, answered) = (ends.clone(), acknowledged.clone());
        let thread = thread::spawn(move || send(stream, &answered, &ending));
        Self { ends, acknowledged, thread }
    }

    fn answered(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    /// Ends the client. Returns how many messages were answered, which are all that it has sent.
    fn stop(self) -> u64 {
        self.ends.store(true, Relaxed);
        self.thread.join().expect("the client does not panic").expect("its connection does not break");
        self.acknowledged.load(Relaxed)
    }
}

/// Sends until the client ends, and its last message is answered.
fn send(stream: TcpStream, acknowledged: &AtomicU64, ends: &AtomicBool) -> io::Result<()> {
    let message = |number: u64| {
        if number.is_multiple_of(ROUND) {
            thread::park_timeout(PAUSE);
        }
        (!ends.load(Relaxed)).then(|| format!("message {number} {FILLER}"))
    };
    let window = usize::try_from(ROUND).expect("few");
    send_relp(stream, window, 0, message, |through| acknowledged.store(through + 1, Relaxed))
}

/// A bit less than a second, or as many seconds as `PORTLANE_AWAY_SECONDS` says.
#[test]
fn a_sink_that_was_away_gets_every_message_in_order_and_what_was_kept_costs_no_memory() {
    let long = env::var(LONG).ok().map(|number| number.parse::<u64>().expect("PORTLANE_AWAY_SECONDS is a number"));
    let away = long.map_or(AWAY, Duration::from_secs);
    let (port, health, data) = (free_port(), free_port(), tempdir().expect("a folder"));
    let mut sink = Sink::start();
    // A client for which the log has no room waits, and nothing is dropped.
    let durable = "durable: {framing: Relp, syncMillis: 0, whenFull: Block, send: {relp: {}}}";
    let program = run(&forward("f", "", &[Listener::tcp("l", port).to(sink.port).with(durable)]), health, data.path());
    let client = Client::start(port);
    let limit = away.saturating_add(RETRIES);
    let kept = |sink: &Sink| client.answered().saturating_sub(sink.arrived());
    // The code that keeps messages, and that sends what was kept, is in memory after this.
    until("messages arrive", || sink.arrived() > 0);
    sink.goes();
    until("messages are kept", || kept(&sink) >= 20);
    sink.comes();
    until("they have arrived", || kept(&sink) == 0);

    let begin = program.resident_bytes();
    sink.goes();
    let (arrived, started) = (sink.arrived(), Instant::now());
    until_within(limit, "the sink was away for long enough", || kept(&sink) >= 20 && started.elapsed() >= away);
    assert_eq!(sink.arrived(), arrived, "the sink is away");
    let (kept_at_most, disk) = (kept(&sink), figure(health, "log_bytes", "l", "").unwrap_or(0));
    let full = program.resident_bytes();
    sink.comes();
    until_within(limit, "the sink has what was kept", || sink.arrived() >= arrived + kept_at_most);
    let answered = client.stop();
    until_within(limit, "every message has arrived", || sink.arrived() >= answered);
    let end = program.resident_bytes();

    let oracle = sink.oracle.lock().expect("unpoisoned");
    eprintln!(
        "{answered} messages, of which {kept_at_most} waited for a sink that was away for {away:?}, with {disk} bytes on \
         disk; {} came again. Memory in bytes: {begin:?} at the begin, {full:?} with the full log, {end:?} at the end",
        oracle.taken - answered
    );
    assert_eq!((oracle.faults, &oracle.first_fault), (0, &None));
    let grown = begin.zip(end).map_or(0, |(begin, end)| end.saturating_sub(begin));
    assert!(grown <= GROWTH, "{grown}");
}
