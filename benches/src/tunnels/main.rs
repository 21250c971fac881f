//! Tunnels compared with rathole and frp: bytes, connections, round trips, and memory of what is idle; and how a herd of
//! agents of Portlane comes back after its server was killed.
//!
//! Each round measures every row with every tunnel in turn, in an order that each round rotates. Agent and server have
//! one CPU together; client and target have another one; all are in a network namespace of the bench's own. Portlane is
//! the static program of a release.
//!
//! `cargo run --release -p portlane-benches --bin tunnels`, as root; what is compared is in `docs/performance.md`.
//! Peers that cannot be built are left out, and the table says so.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_precision_loss, reason = "a bench that fails panics")]

#[path = "../common/bytes.rs"]
mod bytes;
#[path = "../common/cache.rs"]
mod cache;
#[path = "../common/cpu.rs"]
mod cpu;
mod herd;
#[path = "../common/host.rs"]
mod host;
mod kind;
mod load;
#[allow(dead_code, reason = "byte-path uses all of it")]
#[path = "../common/measure.rs"]
mod measure;
mod memory;
#[path = "../common/namespace.rs"]
mod namespace;
mod peers;
#[allow(dead_code, reason = "byte-path uses all of it")]
#[path = "../common/poll.rs"]
mod poll;
#[path = "../common/ports.rs"]
mod ports;
#[allow(dead_code, reason = "byte-path uses all of it")]
#[path = "../common/process.rs"]
mod process;
mod role;
mod rows;
mod run;
#[allow(dead_code, reason = "byte-path uses all of it")]
#[path = "../common/servers.rs"]
mod servers;
#[allow(dead_code, reason = "durable uses all of it")]
#[path = "../common/sockets.rs"]
mod sockets;
#[path = "../common/spread.rs"]
mod spread;
mod subject;
mod table;
#[path = "../common/turns.rs"]
mod turns;
#[allow(dead_code, reason = "each bench has units of its own")]
#[path = "../common/unit.rs"]
mod unit;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;

use self::{
    kind::Kind,
    namespace::Cpus,
    peers::{FRP, Programs, RATHOLE},
    role::{Role, Servers},
    rows::Row,
    run::Bench,
    table::{Cell, Results},
};

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
    /// Number of agents of the herd. A server admits at most 1,024.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1024))]
    agents: u16,
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
    let rows: Vec<Row> = Row::ALL.into_iter().filter(|row| args.rows.is_empty() || args.rows.contains(row)).collect();
    if rows.contains(&Row::Herd) {
        herd::raise_file_limit(args.agents)?;
    }
    let programs = Programs { portlane: portlane.to_owned(), rathole: args.rathole.clone(), frp: args.frp.clone() };
    let absent: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| !programs.has(*kind)).collect();
    let (version, size) = (env!("CARGO_PKG_VERSION"), host::size(portlane));
    println!("{}; portlane {version}, static, {size}; rathole {RATHOLE}; frp {FRP}\n", host::facts());
    args.cpus.pin_load();
    let length = Duration::from_secs(args.seconds.into());
    let bench = Bench { programs, servers: Servers::start(), cpus: args.cpus, length, agents: args.agents };
    let results = rounds(&bench, &rows, &absent, args.rounds.into());
    println!(
        "Medians of {} rounds of {} s, the least and the most in brackets; agent and server on CPU {}, client and target on \
         CPU {}; congestion control reno.\n",
        args.rounds, args.seconds, args.cpus.forwarder, args.cpus.load
    );
    if rows.contains(&Row::Herd) {
        println!("The herd has {} agents, all on CPU {}.\n", args.agents, args.cpus.load);
    }
    println!("{}", results.table(&rows, &absent));
    for line in results.failures(args.rounds.into()) {
        println!("\n{line}");
    }
    Ok(())
}

/// Measures everything in rounds.
fn rounds(bench: &Bench, rows: &[Row], absent: &[Kind], rounds: usize) -> Results {
    let mut results = Results::default();
    let kinds = |row: Row| Kind::ALL.into_iter().filter(|kind| row.suits(*kind) && !absent.contains(kind)).collect();
    let plan: Vec<(Row, Vec<Kind>)> = rows.iter().map(|row| (*row, kinds(*row))).collect();
    let name = |row: Row, kind: Kind| format!("{}, {}", row.title(), kind.name());
    turns::take(
        rounds,
        &plan,
        name,
        |row, kind| bench.measure(kind, row),
        |_, row, kind, values| match values {
            Some(values) => {
                for (quantity, value) in values {
                    results.add(Cell { row, quantity, kind }, value);
                }
            }
            None => results.fail(row, kind),
        },
    );
    results
}
