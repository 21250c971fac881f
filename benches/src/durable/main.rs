//! Durable forwarding compared with rsyslog and syslog-ng: messages that are taken while the sink is away, and their
//! delivery once it is there; bytes on the disk; the start with a backlog.
//!
//! Each round measures every row with every forwarder in turn, in an order that each round rotates. The forwarder has
//! one CPU; senders and sink have another one; all are in a network namespace of the bench's own. Portlane is the
//! static program of a release.
//!
//! `cargo run --release -p portlane-benches --bin durable`, as root; what is compared is in `docs/performance.md`.
//! Peers that are not there are left out, and the table says so.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_precision_loss, reason = "a bench that fails panics")]

#[path = "../common/cache.rs"]
mod cache;
#[path = "../common/cpu.rs"]
mod cpu;
#[path = "../common/host.rs"]
mod host;
mod load;
#[allow(dead_code, reason = "byte-path uses all of it")]
#[path = "../common/measure.rs"]
mod measure;
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
mod rows;
mod run;
mod sink;
#[path = "../common/sockets.rs"]
mod sockets;
#[path = "../common/spread.rs"]
mod spread;
mod subject;
mod table;
#[path = "../common/train.rs"]
mod train;
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
    namespace::Cpus,
    peers::Programs,
    rows::{Kind, Row},
    run::Bench,
    table::{Cell, Results},
};

const GIB: u64 = 1 << 30;
/// Receive buffers of TCP: the least, the usual and the most. What waits in them when the senders end is taken in the
/// measured time, and with a sync for each message that takes long.
const BUFFERS: &str = "4096 131072 131072";

/// Measure durable forwarding and compare it with rsyslog and syslog-ng.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Rows to measure, separated by commas. Default: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Number of rounds; the table has the median, and the least and the most in brackets.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds for which messages are sent in one measurement.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// GiB of messages that wait in the row `start`. rsyslog needs a multiple of it on the disk.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100))]
    backlog: u64,
    /// Folder for the logs, on the disk that is to be measured. What is made in it is removed.
    #[arg(long, default_value = "/var/tmp", value_name = "DIR")]
    folder: PathBuf,
    /// The CPU of the forwarder, and the CPU of senders and sink.
    #[arg(long, default_value = "0,1", value_name = "FORWARDER,LOAD")]
    cpus: Cpus,
    /// The program of Portlane, built before the bench entered its namespace.
    #[arg(long, hide = true)]
    built: Option<PathBuf>,
    /// The folder under which syslog-ng is installed or unpacked.
    #[arg(long, hide = true)]
    syslog_ng: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
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

/// Gets what is measured, which may need the network, and runs this program again in a namespace. Returns on failure.
fn enter() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("durable needs root, for a network namespace of its own".to_owned());
    }
    let (portlane, syslog_ng) = (cache::portlane()?, cache::told("syslog-ng", peers::syslog_ng()));
    let mut further: Vec<(&str, &Path)> = vec![("--built", portlane.as_path())];
    further.extend(syslog_ng.as_deref().map(|folder| ("--syslog-ng", folder)));
    Err(namespace::reenter(&further))
}

fn measure(args: &Args, portlane: &Path) -> Result<(), String> {
    namespace::prepare()?;
    namespace::set("net/ipv4/tcp_rmem", BUFFERS)?;
    args.cpus.check()?;
    let file_system = peers::file_system(&args.folder)?;
    let programs = Programs::find(portlane, args.syslog_ng.as_deref());
    let facts = [host::facts(), file_system, programs.facts()].join("; ");
    println!("{facts}\n");
    args.cpus.pin_load();
    let rows: Vec<Row> = Row::ALL.into_iter().filter(|row| args.rows.is_empty() || args.rows.contains(row)).collect();
    let absent: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| !programs.has(*kind)).collect();
    let bench = Bench {
        programs,
        cpus: args.cpus,
        length: Duration::from_secs(args.seconds.into()),
        backlog: args.backlog * GIB,
        folder: args.folder.clone(),
    };
    let results = rounds(&bench, &rows, &absent, args.rounds.into());
    println!(
        "Medians of {} rounds of {} s, the least and the most in brackets; a backlog of {} GiB; the forwarder on CPU {}, \
         senders and sink on CPU {}; congestion control reno.\n",
        args.rounds, args.seconds, args.backlog, args.cpus.forwarder, args.cpus.load
    );
    println!("{}", results.table(&rows, &absent));
    for line in results.failures(args.rounds.into()) {
        println!("\n{line}");
    }
    Ok(())
}

/// Measures everything in rounds.
fn rounds(bench: &Bench, rows: &[Row], absent: &[Kind], rounds: usize) -> Results {
    let mut results = Results::default();
    let has = |row: Row, kind: Kind| row.suits(kind) && !absent.contains(&kind) && bench.programs.speaks(row, kind);
    let kinds = |row: Row| Kind::ALL.into_iter().filter(|kind| has(row, *kind)).collect();
    let plan: Vec<(Row, Vec<Kind>)> = rows.iter().map(|row| (*row, kinds(*row))).collect();
    let name = |row: Row, kind: Kind| format!("{}, {}", row.title(), kind.name());
    turns::take(
        rounds,
        &plan,
        name,
        |row, kind| bench.measure(kind, row),
        |round, row, kind, values| match values {
            Some(values) => {
                for (quantity, value) in values {
                    results.add(Cell { row, quantity, kind }, round, value);
                }
            }
            None => results.fail(row, kind),
        },
    );
    results
}
