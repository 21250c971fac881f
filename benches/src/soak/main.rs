//! A soak: mixed load and changes for half an hour, while memory, files and sockets of the proxy are sampled from outside.
//! They must not grow, every byte must be right, and nothing must be left when the load has ended.
//!
//! The proxy is the static program of its image, in a network namespace of the bench's own, with clients and backends in
//! the process of the bench.
//!
//! `cargo run --release -p portlane-benches --bin soak`, as root; `docs/performance.md` says what it does.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_precision_loss, reason = "a bench that fails panics")]

mod backends;
mod changes;
#[path = "../common/cpu.rs"]
#[allow(dead_code, reason = "other benches measure CPU")]
mod cpu;
mod exchange;
mod flat;
#[path = "../common/host.rs"]
mod host;
#[path = "../common/image.rs"]
mod image;
#[path = "../common/listener.rs"]
mod listener;
mod load;
#[allow(dead_code, reason = "byte-path uses all of it")]
#[path = "../common/measure.rs"]
mod measure;
#[allow(dead_code, reason = "other benches pin processes to CPUs")]
#[path = "../common/namespace.rs"]
mod namespace;
#[allow(dead_code, unused_imports, reason = "byte-path uses all of it")]
#[path = "../common/poll.rs"]
mod poll;
#[path = "../common/ports.rs"]
mod ports;
#[allow(dead_code, reason = "byte-path uses all of it")]
#[path = "../common/process.rs"]
mod process;
mod proxy;
mod random;
mod sample;
mod shared;
#[allow(dead_code, reason = "each bench has units of its own")]
#[path = "../common/unit.rs"]
mod unit;
mod vanish;
mod verdict;
mod weather;

use std::{
    fmt::Display,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use harness::until;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::timeout,
};

use self::{
    backends::{FIRST, SECOND},
    changes::Changer,
    exchange::{Exchange, finish, open},
    flat::Quiet,
    load::Kind,
    proxy::{IDLE, Proxy},
    random::Random,
    sample::Sample,
    shared::Shared,
};

/// Time between two samples.
const EVERY: Duration = Duration::from_secs(10);
/// Samples for each line of the table.
const LINE: u64 = 6;
/// Longest time until the load has ended: a client may be idle for as long as the proxy lets it.
const END: Duration = Duration::from_secs(180);
/// Longest time after that until nothing of the load is left: idle flows, and sessions of clients that vanished.
const REST: Duration = IDLE.saturating_mul(4);
/// Pause before a sample without load.
const SETTLE: Duration = Duration::from_secs(1);
/// Longest wait for the echo of a datagram before the load.
const DATAGRAM: Duration = Duration::from_millis(100);
/// Resends after which a connection to a client that vanished has ended: seconds, not a quarter of an hour.
const RESENDS: &str = "6";
/// Threads of clients and backends.
const THREADS: usize = 2;

/// Run mixed load and changes for long, and see whether the proxy grows.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Minutes of load.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=10_000))]
    minutes: u64,
    /// Decides what clients do and what changes. Default: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Worker threads of the proxy.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// The program of the image, built before the bench entered its namespace.
    #[arg(long, hide = true)]
    built: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.built {
        None => enter(),
        Some(program) => soak(&args, program),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the proxy, which may need the network, and runs this program again in a namespace. Returns on failure.
fn enter() -> Result<bool, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("soak needs root, for a network namespace of its own".to_owned());
    }
    let program = image::proxy()?;
    Err(namespace::reenter(&[("--built", program.as_path())]))
}

fn soak(args: &Args, program: &Path) -> Result<bool, String> {
    namespace::prepare()?;
    namespace::set("net/ipv4/tcp_retries2", RESENDS)?;
    let seed = args.seed.unwrap_or_else(any_seed);
    println!("{}; portlane-proxy {}, static, {}", host::facts(), env!("CARGO_PKG_VERSION"), host::size(program));
    println!("{} minutes, {} workers, seed {seed}\n", args.minutes, args.workers);
    let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let bed = Bed {
        runtime: runtime.map_err(|error| format!("no runtime: {error}"))?,
        shared: Arc::new(Shared::new()),
        proxy: Arc::new(Proxy::start(program, args.workers)?),
        seed,
    };
    let before = bed.prepare();
    let began = Instant::now();
    let tasks = bed.begin();
    let samples = bed.watch(began, args.minutes);
    bed.end(tasks);
    let after = bed.settle(before, began);
    Ok(verdict::print(&samples, &bed.shared, before, after))
}

/// A seed from the clock.
fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    random::mixed(u64::from(now.subsec_nanos()) ^ now.as_secs()) >> 32
}

/// The proxy, and what is around it.
struct Bed {
    runtime: Runtime,
    shared: Arc<Shared>,
    proxy: Arc<Proxy>,
    seed: u64,
}

impl Bed {
    /// Starts the backends, and waits until the proxy forwards to them and nothing of that is left.
    fn prepare(&self) -> Quiet {
        for backend in [FIRST, SECOND] {
            self.backend(backends::serve(backend));
        }
        self.backend(backends::echo());
        let (shared, random) = (Arc::clone(&self.shared), Random::of_task(self.seed, 0));
        self.backend(async move { backends::fail(&shared, random).await });
        let ports = self.proxy.ports;
        until("the proxy is ready", || {
            harness::http_get(ports.health, "/readyz").is_ok_and(|(status, _)| status == 200)
        });
        for port in [ports.steady, ports.replaced] {
            until("the proxy forwards", || self.runtime.block_on(is_served(port)));
        }
        until("the proxy forwards datagrams", || is_echoed(ports.datagrams));
        until("the first sessions have ended", || self.sample(Instant::now()).live == 0);
        // The last connection for the metrics has ended, too.
        poll::rest(SETTLE);
        self.sample(Instant::now()).quiet()
    }

    /// Runs a backend, whose end is a fault.
    fn backend(&self, serve: impl Future<Output = std::io::Result<()>> + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            if let Err(error) = serve.await {
                shared.fault("a backend", &error);
            }
        });
    }

    /// Begins the load and the changes.
    fn begin(&self) -> Vec<JoinHandle<()>> {
        let ports = self.proxy.ports;
        let mut task = 0;
        let mut next = || {
            task += 1;
            (Arc::clone(&self.shared), Random::of_task(self.seed, task))
        };
        let mut tasks = Vec::new();
        for (kind, places) in Kind::ALL {
            for _ in 0..places {
                let (shared, random) = next();
                tasks.push(self.runtime.spawn(kind.run(ports, shared, random)));
            }
        }
        let (shared, random) = next();
        tasks.push(self.runtime.spawn(vanish::run(ports, shared, random)));
        let (shared, random) = next();
        tasks.push(self.runtime.spawn(Changer::new(Arc::clone(&self.proxy), shared, random).run()));
        tasks
    }

    /// Samples the proxy while the load runs, and prints the table.
    fn watch(&self, began: Instant, minutes: u64) -> Vec<Sample> {
        println!("{}", Sample::heading());
        let count = minutes * 60 / EVERY.as_secs();
        let mut samples = Vec::new();
        for (at, due) in (1..=count).zip(std::iter::successors(Some(began + EVERY), |due| Some(*due + EVERY))) {
            poll::rest(due.saturating_duration_since(Instant::now()));
            let sample = self.sample(began);
            if at.is_multiple_of(LINE) {
                println!("{}", sample.line());
            }
            samples.push(sample);
        }
        samples
    }

    /// Stops the load and waits for its end.
    fn end(&self, tasks: Vec<JoinHandle<()>>) {
        self.shared.stop();
        let deadline = Instant::now() + END;
        for task in tasks {
            let left = deadline.saturating_duration_since(Instant::now());
            let fault: Box<dyn Display> = match self.runtime.block_on(async { timeout(left, task).await }) {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => Box::new(error),
                Err(error) => Box::new(error),
            };
            self.shared.fault("a task of the load", &*fault);
        }
    }

    /// Waits until nothing of the load is left, or for long enough. Prints the last line of the table.
    fn settle(&self, before: Quiet, began: Instant) -> Quiet {
        let deadline = Instant::now() + REST;
        loop {
            let sample = self.sample(began);
            if sample.quiet().left(before).is_empty() || Instant::now() >= deadline {
                println!("{}", sample.line());
                return sample.quiet();
            }
            poll::rest(SETTLE);
        }
    }

    fn sample(&self, began: Instant) -> Sample {
        Sample::take(self.proxy.id(), self.proxy.ports.health, &self.shared, began)
    }
}

/// Whether a backend answers at this port.
async fn is_served(port: u16) -> bool {
    let Ok(mut stream) = open(port).await else { return false };
    let exchange = Exchange { seed: 1, up: 100, down: 100, pause: 0 };
    exchange.run(&mut stream, false).await.is_ok() && finish(stream).await.is_ok()
}

fn is_echoed(port: u16) -> bool {
    let answered = || -> std::io::Result<usize> {
        let client = UdpSocket::bind("127.0.0.1:0")?;
        client.set_read_timeout(Some(DATAGRAM))?;
        client.send_to(b"x", ("127.0.0.1", port))?;
        client.recv(&mut [0; 8])
    };
    answered().is_ok_and(|length| length == 1)
}
