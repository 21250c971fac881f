//! What following the sessions of a proxy costs: CPU of the proxy under many short sessions, alone and while a client
//! follows its page.
//!
//! `cargo run --release -p portlane-benches --bin follow`; the results are in `docs/performance.md`.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_precision_loss, reason = "a bench that fails panics")]
#![allow(clippy::disallowed_methods, reason = "a load has a rate")]

#[path = "common/cpu.rs"]
mod cpu;

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

use self::cpu::cpu_seconds;

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
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(4..=240))]
    seconds: u32,
    /// Number of rounds; each measures without and with a follower.
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
/// The goal of the median of the ratios.
const GOAL: f64 = 1.01;
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
    bed.measure(Args { seconds: WARM_UP, ..args }, true);
    let mut ratios = Vec::new();
    println!("| round | CPU per second, alone | CPU per second, followed | ratio |\n|---|---|---|---|");
    for round in 1..=args.rounds {
        // The order rotates, so that what drifts favours neither.
        let (alone, followed) = if round % 2 == 1 {
            let alone = bed.measure(args, false);
            (alone, bed.measure(args, true))
        } else {
            let followed = bed.measure(args, true);
            (bed.measure(args, false), followed)
        };
        let ratio = followed / alone;
        ratios.push(ratio);
        println!("| {round} | {:.1} ms | {:.1} ms | ×{ratio:.3} |", alone * 1000.0, followed * 1000.0);
    }
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    let median = ratios[ratios.len() / 2];
    let verdict = if median <= GOAL { "reached" } else { "missed" };
    println!("\nmedian of the ratios: ×{median:.3} [×{least:.3} to ×{most:.3}]; the goal of ×{GOAL:.2} is {verdict}");
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

    /// CPU seconds of the proxy per second.
    fn measure(&self, args: Args, is_followed: bool) -> f64 {
        let (port, admin, pid) = (self.port, self.admin, self.program.id());
        let (ended, expected) = (AtomicBool::new(false), args.seconds / 2);
        let stop = &ended;
        let stream = is_followed.then(|| connect(admin).expect("the admin address listens"));
        thread::scope(|scope| {
            let follower = stream.as_ref().map(|stream| {
                let stream = stream.try_clone().expect("a handle");
                (scope.spawn(move || states(stream)), scope.spawn(move || lists(admin, stop)))
            });
            let (began, before) = (Instant::now(), cpu_seconds(pid));
            let clients: Vec<_> = (0..CLIENTS).map(|at| scope.spawn(move || sessions(port, at, args))).collect();
            let results: Vec<_> = clients.into_iter().map(ScopedJoinHandle::join).collect();
            let (took, used) = (began.elapsed(), cpu_seconds(pid) - before);
            // Also after a client has failed: the scope ends with its last thread.
            stop.store(true, Relaxed);
            if let Some(stream) = &stream {
                let _ = stream.shutdown(Shutdown::Both);
            }
            assert!(results.iter().all(Result::is_ok), "a client has failed");
            if let Some((states, lists)) = follower {
                let (states, lists) = (states.join().expect("a follower"), lists.join().expect("a reader"));
                assert!(states >= expected && lists >= expected / 2, "{states} states, {lists} lists in {took:?}");
            }
            let seconds = Duration::from_secs(args.seconds.into());
            assert!(took <= seconds.mul_f64(1.05), "this machine is too slow for the rate: it took {took:?}");
            used / took.as_secs_f64()
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

/// Lists the sessions again and again until the end. Returns how often.
fn lists(admin: u16, stop: &AtomicBool) -> u32 {
    let (mut count, mut due) = (0, Instant::now());
    while !stop.load(Relaxed) {
        if Instant::now() < due {
            thread::sleep(NAP);
            continue;
        }
        let (status, _) = http_get(admin, LISTED).expect("a list");
        assert_eq!(status, 200, "{LISTED}");
        count += 1;
        due += REFRESH;
    }
    count
}
