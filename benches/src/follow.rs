//! What following the sessions of a proxy costs: CPU of the proxy under many short sessions, alone and while a client
//! follows it: its page, and `kubectl portlane top`, whose inquiries come by the stream of an operator.
//!
//! The CPU of the sessions differs from one measurement to the next by several times what a follower takes. So the goal is
//! for what a follower takes of the threads that serve it, which no session uses, and of the other threads by a client that
//! reads the sessions many times as often.
//!
//! `cargo run --release -p portlane-benches --bin follow`; the results are in `docs/performance.md`.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_precision_loss, reason = "a bench that fails panics")]
#![allow(clippy::disallowed_methods, reason = "a load has a rate")]

#[path = "common/cpu.rs"]
mod cpu;
#[path = "follow/follower.rs"]
mod follower;
#[path = "common/image.rs"]
mod image;
#[path = "common/listener.rs"]
mod listener;
#[allow(dead_code, reason = "another bench sends changes")]
#[path = "common/operator.rs"]
mod operator;
#[path = "follow/used.rs"]
mod used;

use std::{
    net::{Shutdown, TcpStream},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use clap::Parser;
use harness::{Backend, Behaviour, Program, connect, free_port, round_trip};
use socket2::SockRef;

use self::{
    follower::{Follower, Kind, states},
    used::{Round, Used, serving},
};

/// Measure what following the sessions of a proxy costs.
#[derive(Clone, Copy, Debug, Parser)]
struct Args {
    /// Who follows. Default: all, one after the other.
    #[arg(long, value_enum)]
    follower: Option<Kind>,
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
/// How many times as often as usual one of the followers reads the sessions.
const OFTEN: u32 = 20;
/// The measurements of a round: how many times as often as usual a follower reads the sessions, if there is one.
const MEASURED: [Option<u32>; 3] = [None, Some(1), Some(OFTEN)];

/// A proxy and who follows it.
struct Bed {
    program: Program,
    port: u16,
    follower: Follower,
    /// The threads that serve the follower.
    serving: Vec<PathBuf>,
    _backend: Backend,
    _held: Vec<TcpStream>,
}

fn main() {
    let args = Args::parse();
    harness::raise_file_limit();
    for kind in Kind::ALL.into_iter().filter(|kind| args.follower.is_none_or(|wanted| wanted == *kind)) {
        measure(args, kind);
    }
}

/// Measures and prints the table of one follower.
fn measure(args: Args, kind: Kind) {
    let bed = Bed::start(kind, args.held);
    bed.measure(Args { seconds: WARM_UP, ..args }, Some(OFTEN));
    let (title, threads) = (kind.title(), kind.threads());
    println!("\n### {title}\n");
    println!("| round | alone | followed | ratio | of {threads} | of other threads | a follower takes |");
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
    fn start(kind: Kind, held: usize) -> Self {
        let (backend, port) = (Backend::start(Behaviour::Echo), free_port());
        let (program, follower) = kind.start(port, backend.port);
        let serving = serving(program.id(), kind.is_served_by_main());
        let open = |_| {
            let mut stream = connect(port).expect("a session");
            round_trip(&mut stream, b"x").expect("an echo");
            stream
        };
        let held = (0..held).map(open).collect();
        Self { program, port, follower, serving, _backend: backend, _held: held }
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

    /// CPU seconds of the proxy per second. If it is followed, its sessions are read so many times as often as usual.
    fn measure(&self, args: Args, times: Option<u32>) -> Used {
        let (port, follower, pid) = (self.port, &self.follower, self.program.id());
        let ended = AtomicBool::new(false);
        let stop = &ended;
        let stream = times.and_then(|_| follower.states());
        thread::scope(|scope| {
            let states = stream.as_ref().map(|stream| {
                let stream = stream.try_clone().expect("a handle");
                scope.spawn(move || states(stream))
            });
            let lists = times.map(|times| {
                let due = args.seconds * times / 2;
                (scope.spawn(move || lists(follower, REFRESH / times, stop)), due)
            });
            let (began, before) = (Instant::now(), Used::of(pid, &self.serving));
            let clients: Vec<_> = (0..CLIENTS).map(|at| scope.spawn(move || sessions(port, at, args))).collect();
            let results: Vec<_> = clients.into_iter().map(ScopedJoinHandle::join).collect();
            let (took, after) = (began.elapsed(), Used::of(pid, &self.serving));
            // Also after a client has failed: the scope ends with its last thread.
            stop.store(true, Relaxed);
            if let Some(stream) = &stream {
                let _ = stream.shutdown(Shutdown::Both);
            }
            assert!(results.iter().all(Result::is_ok), "a client has failed");
            if let Some(states) = states {
                let states = states.join().expect("a follower");
                assert!(states >= args.seconds / 2, "{states} states in {took:?}");
            }
            if let Some((lists, due)) = lists {
                let lists = lists.join().expect("a reader");
                assert!(lists >= due / 2, "{lists} lists of {due} in {took:?}");
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

/// Lists the sessions again and again, with this time from one list to the next, until the end. Returns how often.
fn lists(follower: &Follower, every: Duration, stop: &AtomicBool) -> u32 {
    let (mut count, mut due) = (0, Instant::now());
    while !stop.load(Relaxed) {
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait.min(NAP));
            continue;
        }
        follower.list();
        count += 1;
        due += every;
    }
    count
}
