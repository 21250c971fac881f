//! Tunnels compared with rathole and frp: bytes, connections, round trips, and memory of what is idle.
//!
//! Each round measures every row with every tunnel in turn, in an order that each round rotates. Agent and server have
//! one CPU together; client and target have another one; all are in a network namespace of the bench's own. Portlane is
//! the static program of a release.
//!
//! `cargo run --release -p portlane-benches --bin tunnels`, as root; what is compared is in `docs/performance.md`.
//! Peers that cannot be built are left out, and the table says so.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_precision_loss, reason = "a bench that fails panics")]

#[path = "../byte_path/bytes.rs"]
mod bytes;
#[path = "../cpu.rs"]
mod cpu;
#[path = "../byte_path/host.rs"]
mod host;
mod load;
#[allow(dead_code, reason = "byte-path uses all of it")]
#[path = "../byte_path/measure.rs"]
mod measure;
mod memory;
#[path = "../byte_path/namespace.rs"]
mod namespace;
mod peers;
#[allow(dead_code, reason = "byte-path uses all of it")]
#[path = "../byte_path/poll.rs"]
mod poll;
#[allow(dead_code, reason = "byte-path uses all of it")]
#[path = "../byte_path/process.rs"]
mod process;
mod role;
mod rows;
mod run;
#[allow(dead_code, reason = "byte-path uses all of it")]
#[path = "../byte_path/servers.rs"]
mod servers;
#[path = "../byte_path/spread.rs"]
mod spread;
mod subject;
mod table;
#[allow(dead_code, reason = "byte-path uses all of it")]
#[path = "../byte_path/unit.rs"]
mod unit;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;

use self::{
    namespace::Cpus,
    peers::{FRP, Programs, RATHOLE},
    role::{Role, Servers},
    rows::Row,
    run::Bench,
    subject::Kind,
    table::{Cell, Results},
};

/// Failed measurements after which a tunnel is measured no more: each may wait for minutes.
const FAILURES: usize = 4;

/// Measure tunnels and compare them with others.
#[derive(Clone, Debug, Parser)]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    /// Rows to measure, separated by commas. Default: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Number of rounds; the table has the median, and the least and the most in brackets.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// The CPU of agent and server, and the CPU of client and target.
    #[arg(long, default_value = "0,1", value_name = "TUNNEL,LOAD")]
    cpus: Cpus,
    /// The program of Portlane, built before the bench entered its namespace.
    #[arg(long, hide = true)]
    built: Option<PathBuf>,
    /// The program of rathole.
    #[arg(long, hide = true)]
    rathole: Option<PathBuf>,
    /// The folder with the programs of frp.
    #[arg(long, hide = true)]
    frp: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(role) = args.role {
        role.play();
        return ExitCode::SUCCESS;
    }
    let done = match &args.built {
        None => enter(),
        Some(portlane) => measure(&args, portlane),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds what is measured, which may need the network, and runs this program again in a namespace. Returns on failure.
fn enter() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("tunnels needs root, for a network namespace of its own".to_owned());
    }
    let programs = Programs::build()?;
    let peers = [("--rathole", &programs.rathole), ("--frp", &programs.frp)];
    let mut further: Vec<(&str, &Path)> = vec![("--built", programs.portlane.as_path())];
    further.extend(peers.into_iter().filter_map(|(option, path)| Some((option, path.as_deref()?))));
    Err(namespace::reenter(&further))
}

fn measure(args: &Args, portlane: &Path) -> Result<(), String> {
    namespace::prepare()?;
    args.cpus.check()?;
    let programs = Programs { portlane: portlane.to_owned(), rathole: args.rathole.clone(), frp: args.frp.clone() };
    let absent: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| !programs.has(*kind)).collect();
    let (version, size) = (env!("CARGO_PKG_VERSION"), host::size(portlane));
    println!("{}; portlane {version}, static, {size}; rathole {RATHOLE}; frp {FRP}\n", host::facts());
    args.cpus.pin_load();
    let length = Duration::from_secs(args.seconds.into());
    let bench = Bench { programs, servers: Servers::start(), cpus: args.cpus, length };
    let rows: Vec<Row> = Row::ALL.into_iter().filter(|row| args.rows.is_empty() || args.rows.contains(row)).collect();
    let results = rounds(&bench, &rows, &absent, args.rounds.into());
    println!(
        "Medians of {} rounds of {} s, the least and the most in brackets; agent and server on CPU {}, client and target on \
         CPU {}; congestion control reno.\n",
        args.rounds, args.seconds, args.cpus.forwarder, args.cpus.load
    );
    println!("{}", results.table(&rows, &absent));
    for line in results.failures(args.rounds.into()) {
        println!("\n{line}");
    }
    Ok(())
}

/// Measures everything in rounds. A measurement that fails is reported and leaves no value.
fn rounds(bench: &Bench, rows: &[Row], absent: &[Kind], rounds: usize) -> Results {
    let (mut results, began) = (Results::default(), Instant::now());
    let mut failures: BTreeMap<Kind, usize> = BTreeMap::new();
    for round in 0..rounds {
        for row in rows.iter().copied() {
            let mut kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| row.suits(*kind)).collect();
            kinds.retain(|kind| !absent.contains(kind));
            let first = round % kinds.len();
            kinds.rotate_left(first);
            for kind in kinds {
                if failures.get(&kind).is_some_and(|failed| *failed >= FAILURES) {
                    results.fail(row, kind);
                    continue;
                }
                let (minutes, name) = (began.elapsed().as_secs() / 60, kind.name());
                eprintln!("{minutes} min, round {} of {rounds}: {}, {name}", round + 1, row.title());
                let Ok(values) = catch_unwind(AssertUnwindSafe(|| bench.measure(kind, row))) else {
                    eprintln!("{name} failed at {}: see the message above", row.title());
                    *failures.entry(kind).or_default() += 1;
                    results.fail(row, kind);
                    continue;
                };
                for (quantity, value) in values {
                    results.add(Cell { row, quantity, kind }, value);
                }
            }
        }
    }
    results
}
