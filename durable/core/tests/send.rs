//! Sinks answer in any order, late or not at all, and connections break: each message is delivered at
//! least once and in order, and none is skipped.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod sinks;

use std::time::Duration;

use durable_core::intake::Framing;
use durable_core::send::{Format, Http, HttpAnswer, HttpSettings, Outgoing, Relp, Tcp, Verdict};
use proptest::prelude::*;
use sinks::{MESSAGES, Oracle, is_poison, message, number};

/// Steps that finish what random steps began: far more than are needed.
const ROUNDS: usize = 100;
/// What the kernel of a TCP sink holds.
const KERNEL_BYTES: usize = 200;

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    /// So many bytes come to the sink.
    Arrive(usize),
    /// The sink answers one of the messages that it got, or reads so many bytes.
    Answer(usize),
    /// So many bytes of its answers come back.
    Return(usize),
    PutAside,
    Break,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1_usize..8).prop_map(Step::Push),
        6 => (1_usize..300).prop_map(Step::Arrive),
        6 => (0_usize..100).prop_map(Step::Answer),
        6 => (1_usize..40).prop_map(Step::Return),
        3 => Just(Step::PutAside),
        1 => Just(Step::Break),
    ];
    proptest::collection::vec(step, 0..80)
}

/// Takes up to `count` of the first bytes.
fn take(bytes: &mut Vec<u8>, count: usize) -> Vec<u8> {
    bytes.drain(..count.min(bytes.len())).collect()
}

struct RelpWorld {
    oracle: Oracle,
    relp: Relp,
    next: u64,
    there: Vec<u8>,
    arrived: Vec<u8>,
    /// Transactions without an answer, and their answers.
    unanswered: Vec<(String, &'static str)>,
    back: Vec<u8>,
}

impl RelpWorld {
    fn new() -> Self {
        let mut there = Vec::new();
        let relp = Relp::open(6, &mut there);
        let (arrived, unanswered, back) = (Vec::new(), Vec::new(), Vec::new());
        Self { oracle: Oracle::new(true), relp, next: 0, there, arrived, unanswered, back }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Push(count) => {
                for _ in 0..count.min(self.relp.room()) {
                    if self.next < MESSAGES {
                        self.relp.push(message(self.next), &mut self.there);
                        self.next += 1;
                    }
                }
            }
            Step::Arrive(count) => {
                self.arrived.extend(take(&mut self.there, count));
                self.read();
            }
            Step::Answer(which) if !self.unanswered.is_empty() => {
                let (transaction, answer) = self.unanswered.remove(which % self.unanswered.len());
                self.back.extend_from_slice(format!("{transaction} rsp {} {answer}\n", answer.len()).as_bytes());
            }
            Step::Answer(_) => {}
            Step::Return(count) => {
                let bytes = take(&mut self.back, count);
                let mut verdicts = Vec::new();
                self.relp.received(&bytes, &mut verdicts).expect("the sink keeps to the protocol");
                self.oracle.hears(verdicts);
            }
            Step::PutAside => self.oracle.put_aside(),
            Step::Break => {
                self.next = self.oracle.broke();
                for bytes in [&mut self.there, &mut self.arrived, &mut self.back] {
                    bytes.clear();
                }
                self.unanswered.clear();
                self.relp = Relp::open(6, &mut self.there);
            }
        }
    }

    /// The sink reads its whole frames.
    fn read(&mut self) {
        while let Some((transaction, command, data, length)) = frame(&self.arrived) {
            self.arrived.drain(..length);
            let answer = if command == "open" {
                "200 OK\nrelp_version=0\ncommands=syslog"
            } else if is_poison(number(&data)) {
                "500 not this one"
            } else {
                self.oracle.gets(number(&data));
                "200 OK"
            };
            self.unanswered.push((transaction, answer));
        }
    }
}

/// The transaction, the command and the data of the first frame, and its length.
fn frame(bytes: &[u8]) -> Option<(String, String, Vec<u8>, usize)> {
    let text = std::str::from_utf8(bytes).expect("text");
    let mut words = text.splitn(4, ' ');
    let (transaction, command, length) = (words.next()?, words.next()?, words.next()?);
    let rest = words.next()?;
    let length: usize = length.parse().expect("a length");
    let data = rest.get(..length)?;
    let used = text.len() - rest.len() + length + 1;
    assert_eq!(text.get(used - 1..used)?, "\n");
    Some((transaction.to_owned(), command.to_owned(), data.as_bytes().to_vec(), used))
}

struct TcpWorld {
    oracle: Oracle,
    tcp: Tcp,
    next: u64,
    there: Vec<u8>,
    /// Acknowledged, and not read by the sink.
    kernel: Vec<u8>,
    acknowledged: u64,
    line: Vec<u8>,
}

impl TcpWorld {
    fn new() -> Self {
        let (there, kernel, line) = (Vec::new(), Vec::new(), Vec::new());
        // What the kernel holds, one message that the sink has read in part, and one that is cut off.
        let tcp = Tcp::new(Framing::Newline, KERNEL_BYTES + 2 * 60);
        Self { oracle: Oracle::new(false), tcp, next: 0, there, kernel, acknowledged: 0, line }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Push(count) => {
                for _ in 0..count.min(self.tcp.room()) {
                    if self.next < MESSAGES {
                        let Outgoing { number, mut payload } = message(self.next);
                        if is_poison(number) {
                            payload.push(b'\n');
                            payload.push(b'x');
                        }
                        self.tcp.push(Outgoing { number, payload }, &mut self.there);
                        self.next += 1;
                    }
                }
            }
            Step::Arrive(count) => {
                let bytes = take(&mut self.there, count.min(KERNEL_BYTES - self.kernel.len()));
                self.acknowledged += bytes.len() as u64;
                self.kernel.extend(bytes);
                let mut verdicts = Vec::new();
                self.tcp.acknowledged(self.acknowledged, &mut verdicts);
                self.oracle.hears(verdicts);
            }
            Step::Answer(count) | Step::Return(count) => {
                for byte in take(&mut self.kernel, count) {
                    if byte == b'\n' {
                        self.oracle.gets(number(&self.line));
                        self.line.clear();
                    } else {
                        self.line.push(byte);
                    }
                }
            }
            Step::PutAside => self.oracle.put_aside(),
            Step::Break => {
                self.next = self.oracle.broke();
                for bytes in [&mut self.there, &mut self.kernel, &mut self.line] {
                    bytes.clear();
                }
                self.acknowledged = 0;
                self.tcp.connected(self.next, &mut self.there);
            }
        }
    }
}

struct HttpWorld {
    oracle: Oracle,
    http: Http,
    next: u64,
    now: Duration,
}

impl HttpWorld {
    fn new() -> Self {
        Self { oracle: Oracle::new(true), http: http(), next: 0, now: Duration::ZERO }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Push(count) => {
                for _ in 0..count.min(self.http.room()) {
                    if self.next < MESSAGES {
                        self.http.push(message(self.next), self.now);
                        self.next += 1;
                    }
                }
            }
            Step::Arrive(count) => self.now += Duration::from_millis(count as u64),
            // One in three is lost, or answered by a sink that is not well.
            Step::Answer(chance) | Step::Return(chance) => {
                self.post(if chance.is_multiple_of(3) { chance / 3 % 3 } else { 3 });
            }
            Step::PutAside => self.oracle.put_aside(),
            Step::Break => {
                self.next = self.oracle.broke();
                self.http = http();
            }
        }
    }

    fn post(&mut self, how: usize) {
        let (mut body, mut verdicts) = (Vec::new(), Vec::new());
        let count = self.http.post(self.now, &mut body, &mut verdicts);
        if count > 0 {
            let numbers: Vec<u64> = body.split(|byte| *byte == b'\n').map(number).collect();
            assert_eq!(numbers.len(), count);
            let refused = numbers.iter().any(|number| is_poison(*number));
            // 0: it does not get the request. 1: it is not well. 2: its answer is lost.
            if how > 1 && !refused {
                for number in &numbers {
                    self.oracle.gets(*number);
                }
            }
            let status = match how {
                1 => 503,
                _ if refused => 422,
                _ => 200,
            };
            if how == 0 || how == 2 {
                self.http.failed(self.now, 0.5);
            } else {
                let answer = HttpAnswer { status, retry_after: None, body: b"" };
                self.http.answered(&answer, self.now, 0.5, &mut verdicts);
            }
        }
        self.oracle.hears(verdicts);
    }
}

fn http() -> Http {
    Http::new(HttpSettings {
        format: Format::Raw,
        batch_bytes: 500,
        batch_messages: 8,
        linger: Duration::from_millis(200),
    })
}

/// All that is needed to get on.
static ROUND: [Step; 6] =
    [Step::Push(8), Step::Arrive(40_000), Step::Answer(1), Step::Answer(100), Step::Return(1000), Step::PutAside];

/// Nothing breaks any more.
fn finish() -> impl Iterator<Item = Step> {
    ROUND.iter().cycle().take(ROUNDS * ROUND.len()).cloned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn relp_delivers_every_message_in_order_whatever_the_order_of_answers_and_breaks(steps in steps()) {
        let mut world = RelpWorld::new();
        for step in steps.into_iter().chain(finish()) {
            world.step(&step);
        }
        prop_assert!(world.oracle.is_done() && world.oracle.has_all());
    }

    #[test]
    fn tcp_delivers_every_message_in_order_though_breaks_lose_what_the_sink_has_not_read(steps in steps()) {
        let mut world = TcpWorld::new();
        for step in steps.into_iter().chain(finish()) {
            world.step(&step);
        }
        prop_assert!(world.oracle.is_done() && world.oracle.has_all());
        prop_assert!(!world.tcp.waits());
    }

    #[test]
    fn http_delivers_every_message_in_order_whatever_the_answers(steps in steps()) {
        let mut world = HttpWorld::new();
        for step in steps.into_iter().chain(finish()) {
            world.step(&step);
        }
        prop_assert!(world.oracle.is_done() && world.oracle.has_all());
    }

    #[test]
    fn no_bytes_of_a_relp_sink_make_the_cursor_pass_what_it_did_not_answer(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "1", "2", "3", "0", " ", "\n", "rsp", "6 200 OK", "200 OK\n", "6", "serverclose 0\n", "syslog", "999999999",
            "2 rsp 6 200 OK\n", "3 rsp 7 500 no!\n", "9 rsp 6 200 OK\n", "\u{0}",
        ]), 0..24),
    ) {
        let mut relp = Relp::open(8, &mut Vec::new());
        let offers = "200 OK\nrelp_version=0\ncommands=syslog";
        let opened = format!("1 rsp {} {offers}\n", offers.len());
        relp.received(opened.as_bytes(), &mut Vec::new()).expect("it opens");
        for number in 0..3 {
            relp.push(message(number), &mut Vec::new());
        }
        let mut verdicts = Vec::new();
        for piece in pieces {
            if relp.received(piece.as_bytes(), &mut verdicts).is_err() {
                break;
            }
        }
        // Nothing can answer the third message, whose transaction is 4.
        let first_two = |verdict: &Verdict| match verdict {
            Verdict::Delivered { through } => *through < 2,
            Verdict::Poison { number, .. } => *number < 2,
        };
        prop_assert!(verdicts.iter().all(first_two), "{:?}", verdicts);
    }
}
