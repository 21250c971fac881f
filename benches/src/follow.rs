//! What following the sessions of a proxy costs: CPU of the proxy under many short sessions, alone and while a client
//! follows its page.
//!
//! The CPU of the sessions differs from one measurement to the next by several times what a follower takes. So the goal is
//! for what a follower takes of the control thread, which no session uses, and of the other threads by a client that reads
//! the sessions many times as often.
//!
//! `cargo run --release -p portlane-benches --bin follow`; the results are in `docs/performance.md`.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_precision_loss, reason = "a bench that fails panics")]
#![allow(clippy::disallowed_methods, reason = "a load has a rate")]

#[path = "common/cpu.rs"]
mod cpu;
#[path = "follow/used.rs"]
mod used;

use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use clap::Parser;
use harness::{Backend, Behaviour, Listener, Program, connect, forward, free_port, http_get, round_trip};
use socket2::SockRef;

use self::used::{Round, Used};

/// Measure what following the sessions of a proxy costs.
#[derive(Clone, Copy, Debug, Parser)]
struct Args {
    /// Short sessions per second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    sessions_per_second: u32,
    /// Sessions that stay open meanwhile.
    #[arg(long, default_value_t = 500)]
    held: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(4..=240))]
    seconds: u32,
    /// Number of rounds; each measures without a follower, with one, and with one that reads the sessions often.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
}

/// Clients that open sessions.
const CLIENTS: u32 = 4;
/// Time between two lists of sessions, as of `kubectl portlane top` and the page.
const REFRESH: Duration = Duration::from_secs(2);
/// Longest sleep of a thread that waits for the end of a measurement.
const NAP: Duration = Duration::from_millis(50);
/// Seconds of a run before the first round, which is not measured: what the proxy allocates once is no cost of a round.
const WARM_UP: u32 = 4;
/// The goal of the median of what a follower takes, relative to the CPU of the proxy alone.
const GOAL: f64 = 0.01;
/// How many times as often as a page one of the followers reads the sessions.
const OFTEN: u32 = 20;
/// The measurements of a round: how many times as often as a page a follower reads the sessions, if there is one.
const MEASURED: [Option<u32>; 3] = [None, Some(1), Some(OFTEN)];
/// Sessions that a list has, as the page asks for.
const LISTED: &str = "/conns?limit=500";

/// The proxy and its addresses.
struct Bed {
    program: Program,
    port: u16,
    admin: u16,
    _backend: Backend,
    _held: Vec<TcpStream>,
}

fn main() {
    let args = Args::parse();
    harness::raise_file_limit();
    let bed = Bed::start(args.held);
    bed.measure(Args { seconds: WARM_UP, ..args }, Some(OFTEN));
    println!("| round | alone | followed | ratio | of the control thread | of other threads | a follower takes |");
    println!("|---|---|---|---|---|---|---|");
    let rounds: Vec<Round> = (1..=args.rounds).map(|number| bed.round(args, number)).collect();
    let [least, median, most] = spread(rounds.iter().map(Round::ratio));
    println!("\nmedian of the ratios: ×{median:.3} [×{least:.3} to ×{most:.3}]");
    let [least, median, most] = spread(rounds.iter().map(Round::share));
    let verdict = if median <= GOAL { "reached" } else { "missed" };
    let [least, median, most, goal] = [least, median, most, GOAL].map(|share| share * 100.0);
    println!(
        "median of what a follower takes: {median:.2} % [{least:.2} to {most:.2}]; the goal of {goal} % is {verdict}"
    );
}

/// The least, the median and the most.
fn spread(numbers: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut all: Vec<f64> = numbers.collect();
    all.sort_by(f64::total_cmp);
    [all[0], all[all.len() / 2], all[all.len() - 1]]
}

impl Bed {
    fn start(held: usize) -> Self {
        let backend = Backend::start(Behaviour::Echo);
        let (port, health, admin) = (free_port(), free_port(), free_port());
        let manifest = forward("web", "accessLog: {mode: Disabled}", &[Listener::tcp("tcp", port).to(backend.port)]);
        let program = Program::run(&manifest, health, &["--admin-address", &format!("127.0.0.1:{admin}")]);
        let open = |_| {
            let mut stream = connect(port).expect("a session");
            round_trip(&mut stream, b"x").expect("an echo");
            stream
        };
        let held = (0..held).map(open).collect();
        Self { program, port, admin, _backend: backend, _held: held }
    }

    /// Measures and prints one round. The order rotates, so that what drifts favours none.
    fn round(&self, args: Args, number: u16) -> Round {
        let mut used = [Used::default(); MEASURED.len()];
        for turn in 0..MEASURED.len() {
            let at = (usize::from(number) + turn) % MEASURED.len();
            used[at] = self.measure(args, MEASURED[at]);
        }
        let [alone, followed, read_often] = used;
        let round = Round { alone, followed, read_often, times: OFTEN };
        let all = [alone.all(), followed.all(), round.of_control(), round.of_others()];
        let [alone, followed, control, others] = all.map(|seconds| seconds * 1000.0);
        let (ratio, share) = (round.ratio(), round.share() * 100.0);
        println!(
            "| {number} | {alone:.1} ms | {followed:.1} ms | ×{ratio:.3} | {control:.2} ms | {others:.2} ms | {share:.2} % |"
        );
        round
    }

    /// CPU seconds of the proxy per second. If it is followed, its sessions are read so many times as often as by a page.
    fn measure(&self, args: Args, times: Option<u32>) -> Used {
        let (port, admin, pid) = (self.port, self.admin, self.program.id());
        let ended = AtomicBool::new(false);
        let stop = &ended;
        let stream = times.map(|_| connect(admin).expect("the admin address listens"));
        thread::scope(|scope| {
            let page = stream.as_ref().zip(times).map(|(stream, times)| {
                let stream = stream.try_clone().expect("a handle");
                let states = scope.spawn(move || states(stream));
                (states, scope.spawn(move || lists(admin, REFRESH / times, stop)), args.seconds * times / 2)
            });
            let (began, before) = (Instant::now(), Used::of(pid));
            let clients: Vec<_> = (0..CLIENTS).map(|at| scope.spawn(move || sessions(port, at, args))).collect();
            let results: Vec<_> = clients.into_iter().map(ScopedJoinHandle::join).collect();
            let (took, after) = (began.elapsed(), Used::of(pid));
            // Also after a client has failed: the scope ends with its last thread.
            stop.store(true, Relaxed);
            if let Some(stream) = &stream {
                let _ = stream.shutdown(Shutdown::Both);
            }
            assert!(results.iter().all(Result::is_ok), "a client has failed");
            if let Some((states, lists, due)) = page {
                let (states, lists) = (states.join().expect("a follower"), lists.join().expect("a reader"));
                let has_followed = states >= args.seconds / 2 && lists >= due / 2;
                assert!(has_followed, "{states} states, {lists} lists in {took:?}");
            }
            let seconds = Duration::from_secs(args.seconds.into());
            assert!(took <= seconds.mul_f64(1.05), "this machine is too slow for the rate: it took {took:?}");
            after.since(before, took.as_secs_f64())
        })
    }
}

/// Opens the sessions of one client when they are due: each echoes a byte and is reset, so that no port stays in
/// `TIME_WAIT`.
fn sessions(port: u16, client: u32, args: Args) {
    let rate = (args.sessions_per_second / CLIENTS).max(1);
    let (began, all) = (Instant::now(), rate * args.seconds);
    for at in 0..all {
        // Clients take turns.
        let due = Duration::from_secs(1) * (at * CLIENTS + client) / (rate * CLIENTS);
        thread::sleep(due.saturating_sub(began.elapsed()));
        let mut stream = connect(port).expect("a session");
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
        round_trip(&mut stream, b"x").expect("an echo");
    }
}

/// Follows the states of the page until the connection is shut down. Returns their number.
fn states(mut stream: TcpStream) -> u32 {
    write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").expect("a request");
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.filter(|line| line.contains("data:")).fold(0, |count, _| count + 1)
}

/// Lists the sessions again and again, with this time from one list to the next, until the end. Returns how often.
fn lists(admin: u16, every: Duration, stop: &AtomicBool) -> u32 {
    let (mut count, mut due) = (0, Instant::now());
    while !stop.load(Relaxed) {
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait.min(NAP));
            continue;
        }
        let (status, _) = http_get(admin, LISTED).expect("a list");
        assert_eq!(status, 200, "{LISTED}");
        count += 1;
        due += every;
    }
    count
}
