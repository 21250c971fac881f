//! A program that is killed again and again while a client sends to it over RELP, and an oracle at the sink that knows
//! what may come: no message that the client had an answer for is missing, none comes before one that was sent earlier,
//! and what the client sends again is within its window.

use std::{
    collections::VecDeque,
    env, io,
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use crate::{Backend, Behaviour, Program, connect, send_relp, serve_relp, until};

/// The number of kills of a long run.
const LONG: &str = "PORTLANE_KILLS";
/// Messages that are answered between two kills, or edits, at least.
pub const BETWEEN: u64 = 50;
/// Messages of the client without an answer.
pub const WINDOW: u64 = 32;

/// What the sink may be sent.
#[derive(Default)]
pub struct Oracle {
    /// The message that never came yet.
    pub next: u64,
    /// Messages that came, each time that they did.
    pub taken: u64,
    /// The last messages that came, as many as may come again. `None`: connections may overlap.
    last: Option<VecDeque<u64>>,
    /// How many messages may come again over the next connection.
    sink_window: usize,
    /// The most of them that came again over another connection.
    pub again: usize,
    /// What should not have come.
    pub faults: Vec<String>,
}

impl Oracle {
    /// That of connections that take turns, each of which may begin with so many messages that came over earlier ones.
    pub fn of_turns(sink_window: usize) -> Self {
        Self { last: Some(VecDeque::new()), sink_window, ..Self::default() }
    }

    /// A message comes after another one of the same connection, if there was one.
    pub fn take(&mut self, before: Option<u64>, number: u64) {
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
            if last.len() == self.sink_window {
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
pub fn number(text: &str) -> u64 {
    text.trim_start_matches("message ").parse().expect("a number")
}

/// Answers every message, and asks the oracle.
pub fn serve(stream: TcpStream, oracle: &Mutex<Oracle>) {
    let mut before = None;
    let take = |text: String| {
        let number = number(&text);
        oracle.lock().expect("unpoisoned").take(before, number);
        before = Some(number);
    };
    serve_relp(stream, || true, take);
}

/// A sink whose connections take turns: what a program sent that was killed is taken before what the next one sends.
/// `serve` takes the messages of a connection.
pub fn sink(oracle: &Arc<Mutex<Oracle>>, serve: fn(TcpStream, &Mutex<Oracle>)) -> Backend {
    let (asked, turn) = (oracle.clone(), Mutex::new(()));
    let serve = move |stream: TcpStream| {
        let _turn = turn.lock().expect("unpoisoned");
        serve(stream, &asked);
    };
    Backend::start(Behaviour::Run(Arc::new(serve)))
}

/// A client that sends numbered messages, and after a break those again that have no answer.
pub struct Client {
    ends: Arc<AtomicBool>,
    /// Every message before this one was answered.
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Client {
    /// Starts a client of this port, which may open later.
    pub fn start(port: u16) -> Self {
        Self::paced(port, |_| {})
    }

    /// As [`Client::start`]. `pace` returns once the message of this number may be sent. It must not wait for a message
    /// that has no answer.
    pub fn paced(port: u16, pace: impl Fn(u64) + Send + 'static) -> Self {
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
                is_done = session(stream, &answered, &ending, &pace).is_ok();
            }
        });
        Self { ends, acknowledged, thread }
    }

    /// Every message before this one was answered.
    pub fn answered(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    /// Ends the client. Returns how many messages were answered.
    pub fn stop(self) -> u64 {
        self.ends.store(true, Relaxed);
        self.thread.join().expect("the client does not panic");
        self.acknowledged.load(Relaxed)
    }
}

/// Sends until the client ends, and its last message is answered.
fn session(stream: TcpStream, acknowledged: &AtomicU64, ends: &AtomicBool, pace: &impl Fn(u64)) -> io::Result<()> {
    let (window, first) = (usize::try_from(WINDOW).expect("few"), acknowledged.load(Relaxed));
    let message = |number: u64| {
        pace(number);
        (!ends.load(Relaxed)).then(|| format!("message {number}"))
    };
    send_relp(stream, window, first, message, |through| acknowledged.store(through + 1, Relaxed))
}

/// As many kills as `PORTLANE_KILLS` says, or this many.
pub fn how_many(few: usize) -> usize {
    let long = env::var(LONG).ok().map(|number| number.parse::<usize>().expect("PORTLANE_KILLS is a number"));
    long.unwrap_or(few)
}

/// Kills the program that `run` starts so often, while the client sends. Fails unless each message that was answered
/// arrives, and the oracle expected all that came.
pub fn survive(kills: usize, client: Client, oracle: &Mutex<Oracle>, run: impl Fn() -> Program) {
    let arrived = || oracle.lock().expect("unpoisoned").next;
    let started = Instant::now();
    let mut program = run();
    for _ in 0..kills {
        let (answered, last) = (client.answered(), arrived());
        until("messages are answered, and others arrive", || {
            client.answered() >= answered + BETWEEN && arrived() > last
        });
        drop(program.kill());
        program = run();
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
}
