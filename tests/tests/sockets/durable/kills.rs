//! `portlane run` is killed again and again (SIGKILL) while a client sends over RELP. An oracle at the sink knows what
//! may come: no message that the client had an answer for is missing, none comes before one that was sent earlier, and
//! what the client sends again is within its window.

use std::{
    env, io,
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

use super::run;

/// Kills in the `pure` tier.
const KILLS: usize = 20;
/// The number of kills of a long run.
const LONG: &str = "PORTLANE_KILLS";
/// Messages that are answered between two kills, or edits, at least.
pub(super) const BETWEEN: u64 = 50;
/// Messages of the client without an answer.
const WINDOW: u64 = 32;

/// What the sink may be sent.
#[derive(Default)]
pub(super) struct Oracle {
    /// The message that never came yet.
    pub(super) next: u64,
    taken: u64,
    pub(super) faults: Vec<String>,
}

impl Oracle {
    /// A message comes after another one of the same connection, if there was one.
    fn take(&mut self, before: Option<u64>, number: u64) {
        if number > self.next {
            self.faults.push(format!("{number} came, and {} never did", self.next));
        }
        // Each program that was killed has the client send its window again, and then continues from there.
        if before.is_some_and(|before| number > before + 1 || number + WINDOW < before + 1) {
            self.faults.push(format!("{number} came after {before:?}"));
        }
        self.next = self.next.max(number + 1);
        self.taken += 1;
    }
}

/// Answers every message, and asks the oracle.
pub(super) fn serve(stream: TcpStream, oracle: &Mutex<Oracle>) {
    let mut before = None;
    let take = |text: String| {
        let number: u64 = text.trim_start_matches("message ").parse().expect("a number");
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

/// Twenty kills, or as many as `PORTLANE_KILLS` says.
#[test]
fn every_message_that_was_answered_arrives_in_order_however_often_the_program_is_killed() {
    let long = env::var(LONG).ok().map(|number| number.parse::<usize>().expect("PORTLANE_KILLS is a number"));
    let kills = long.unwrap_or(KILLS);
    let (port, health, data) = (free_port(), free_port(), tempdir().expect("a folder"));
    let oracle = Arc::<Mutex<Oracle>>::default();
    let asked = oracle.clone();
    let sink = Backend::start(Behaviour::Run(Arc::new(move |stream: TcpStream| serve(stream, &asked))));
    // A client that is quicker than the sink waits, and nothing is dropped.
    let durable = "durable: {framing: Relp, syncMillis: 0, whenFull: Block, store: {disk: {maxBytes: 16777216}}, send: {relp: {}}}";
    let manifests = forward("f", "", &[Listener::tcp("l", port).to(sink.port).with(durable)]);
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
        "{kills} kills in {:?}: {answered} messages were answered, and {} arrived, with those that came again",
        started.elapsed(),
        oracle.taken
    );
    assert!(oracle.faults.is_empty(), "{} faults: {:?}", oracle.faults.len(), oracle.faults.iter().take(8));
}
