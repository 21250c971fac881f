//! `portlane run` is killed again and again (SIGKILL) while a client sends over RELP. An oracle at the sink knows what
//! may come: no message that the client had an answer for is missing, none comes before one that was sent earlier, what
//! the client sends again is within its window, and what the next program sends again is within that of the sink, which
//! is one request over HTTP.

use std::{
    collections::VecDeque,
    env,
    io::{self, BufReader, Write as _},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use harness::{Backend, Behaviour, Listener, connect, forward, free_port, send_relp, serve_relp, until};
use tempfile::tempdir;

use super::{
    http::{posted, status},
    run,
};

/// Kills in the `pure` tier, with a sink over RELP.
const KILLS: usize = 20;
/// The same with a sink over HTTP.
const KILLS_OVER_HTTP: usize = 6;
/// The number of kills of a long run.
const LONG: &str = "PORTLANE_KILLS";
/// Messages that are answered between two kills, or edits, at least.
pub(super) const BETWEEN: u64 = 50;
/// Messages of the client without an answer.
const WINDOW: u64 = 32;
/// Messages of the program without an answer of the sink: the window of RELP, or a request of HTTP.
const SINK_WINDOW: usize = 128;

/// What the sink may be sent.
#[derive(Default)]
pub(super) struct Oracle {
    /// The message that never came yet.
    pub(super) next: u64,
    taken: u64,
    /// The last messages that came, as many as the program may have sent without an answer. `None`: connections may
    /// overlap.
    last: Option<VecDeque<u64>>,
    /// The most of them that came again over another connection.
    again: usize,
    pub(super) faults: Vec<String>,
}

impl Oracle {
    /// That of connections that take turns.
    fn of_turns() -> Self {
        Self { last: Some(VecDeque::new()), ..Self::default() }
    }

    /// A message comes after another one of the same connection, if there was one.
    fn take(&mut self, before: Option<u64>, number: u64) {
        if number > self.next {
            self.faults.push(format!("{number} came, and {} never did", self.next));
        }
        if before.is_some_and(|before| !follows(before, number)) {
            self.faults.push(format!("{number} came after {before:?}"));
        }
        if before.is_none() {
            self.begin(number);
        }
        if let Some(last) = &mut self.last {
            if last.len() == SINK_WINDOW {
                last.pop_front();
            }
            last.push_back(number);
        }
        self.next = self.next.max(number + 1);
        self.taken += 1;
    }

    /// A connection begins with this message: one that an earlier program had no answer for, or the next one.
    fn begin(&mut self, number: u64) {
        let Some(last) = &self.last else {
            return;
        };
        match last.iter().rev().position(|came| *came == number) {
            Some(behind) => self.again = self.again.max(behind + 1),
            None if last.back().is_none_or(|last| follows(*last, number)) => {}
            None => {
                let faults = &mut self.faults;
                faults.push(format!("a connection begins with {number}, more than a window before {:?}", last.back()));
            }
        }
    }
}

/// Whether a message may be in the log behind this one: each program that was killed has the client send its window
/// again, and then continue from there.
const fn follows(before: u64, number: u64) -> bool {
    number <= before + 1 && number + WINDOW > before
}

/// The number of a message.
fn number(text: &str) -> u64 {
    text.trim_start_matches("message ").parse().expect("a number")
}

/// Answers every message, and asks the oracle.
pub(super) fn serve(stream: TcpStream, oracle: &Mutex<Oracle>) {
    let mut before = None;
    let take = |text: String| {
        let number = number(&text);
        oracle.lock().expect("unpoisoned").take(before, number);
        before = Some(number);
    };
    serve_relp(stream, || true, take);
}

/// A client that sends numbered messages, and after a break those again that have no answer.
pub(super) struct Client {
    ends: Arc<AtomicBool>,
    /// Every message before this one was answered.
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Client {
    pub(super) fn start(port: u16) -> Self {
        let (ends, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (ending, answered) = (ends.clone(), acknowledged.clone());
        let thread = thread::spawn(move || {
            let mut is_done = false;
            while !is_done {
                let mut connection = None;
                until("the port takes connections", || {
                    connection = connect(port).ok();
                    connection.is_some()
                });
                let stream = connection.expect("just seen");
                // The program is killed in the middle of it.
                is_done = session(stream, &answered, &ending).is_ok();
            }
        });
        Self { ends, acknowledged, thread }
    }

    pub(super) fn answered(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    /// Ends the client. Returns how many messages were answered.
    pub(super) fn stop(self) -> u64 {
        self.ends.store(true, Relaxed);
        self.thread.join().expect("the client does not panic");
        self.acknowledged.load(Relaxed)
    }
}

/// Sends until the client ends, and its last message is answered.
fn session(stream: TcpStream, acknowledged: &AtomicU64, ends: &AtomicBool) -> io::Result<()> {
    let (window, first) = (usize::try_from(WINDOW).expect("few"), acknowledged.load(Relaxed));
    let message = |number: u64| (!ends.load(Relaxed)).then(|| format!("message {number}"));
    send_relp(stream, window, first, message, |through| acknowledged.store(through + 1, Relaxed))
}

/// As [`serve`], over HTTP: each request has messages in lines.
fn serve_http(stream: TcpStream, oracle: &Mutex<Oracle>) {
    let (mut before, mut requests) = (None, BufReader::new(stream));
    while let Some(body) = posted(&mut requests) {
        for text in body.lines() {
            let number = number(text);
            oracle.lock().expect("unpoisoned").take(before, number);
            before = Some(number);
        }
        // The program is killed in the middle of it.
        if requests.get_mut().write_all(status(200, "").as_bytes()).is_err() {
            return;
        }
    }
}

/// As many kills as `PORTLANE_KILLS` says, or this many.
fn kills(few: usize) -> usize {
    let long = env::var(LONG).ok().map(|number| number.parse::<usize>().expect("PORTLANE_KILLS is a number"));
    long.unwrap_or(few)
}

#[test]
fn every_message_that_was_answered_arrives_in_order_however_often_the_program_is_killed() {
    survive(kills(KILLS), &format!("{{relp: {{windowMessages: {SINK_WINDOW}}}}}"), serve);
}

#[test]
fn every_message_that_was_answered_arrives_over_http_and_no_more_than_a_request_comes_again_for_each_kill() {
    let send = format!("{{http: {{format: Raw, batchMessages: {SINK_WINDOW}, lingerMillis: 0}}}}");
    survive(kills(KILLS_OVER_HTTP), &send, serve_http);
}

/// Kills the program so often. `send` says how it sends messages to its sink, and `serve` takes those of a connection.
fn survive(kills: usize, send: &str, serve: fn(TcpStream, &Mutex<Oracle>)) {
    let (port, health, data) = (free_port(), free_port(), tempdir().expect("a folder"));
    let (oracle, turn) = (Arc::new(Mutex::new(Oracle::of_turns())), Mutex::new(()));
    let asked = oracle.clone();
    // What a program sent that was killed is taken before what the next one sends.
    let sink = move |stream: TcpStream| {
        let _turn = turn.lock().expect("unpoisoned");
        serve(stream, &asked);
    };
    let sink = Backend::start(Behaviour::Run(Arc::new(sink)));
    // A client that is quicker than the sink waits, and nothing is dropped.
    let durable = format!(
        "durable: {{framing: Relp, syncMillis: 0, whenFull: Block, store: {{disk: {{maxBytes: 16777216}}}}, \
         send: {send}}}"
    );
    let manifests = forward("f", "", &[Listener::tcp("l", port).to(sink.port).with(&durable)]);
    let arrived = || oracle.lock().expect("unpoisoned").next;
    let started = Instant::now();
    let mut program = run(&manifests, health, data.path());
    let client = Client::start(port);
    for _ in 0..kills {
        let (answered, last) = (client.answered(), arrived());
        until("messages are answered, and others arrive", || {
            client.answered() >= answered + BETWEEN && arrived() > last
        });
        drop(program.kill());
        program = run(&manifests, health, data.path());
    }
    let answered = client.stop();
    until("every message that was answered arrives", || arrived() >= answered);
    let oracle = oracle.lock().expect("unpoisoned");
    eprintln!(
        "{kills} kills in {:?}: {answered} messages were answered, and {} arrived, of which {} came again, no more than \
         {} over one connection",
        started.elapsed(),
        oracle.taken,
        oracle.taken - oracle.next,
        oracle.again
    );
    assert!(oracle.faults.is_empty(), "{} faults: {:?}", oracle.faults.len(), oracle.faults.iter().take(8));
    let windows = SINK_WINDOW as u64 + WINDOW;
    assert!(oracle.taken - oracle.next <= kills as u64 * windows, "more than both windows for each kill");
}
