//! The byte path beside `HAProxy`, nginx and socat: bytes, round trips, connections, idle memory and datagrams, each in turn for
//! every subject, round after round, all on one CPU with one worker.
//!
//! `cargo run --release -p portlane-benches --bin byte-path`; `docs/performance.md` says what came out. Peers that are not
//! installed are left out; `cargo xtask setup node` installs `HAProxy` and nginx.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_precision_loss, reason = "a bench that cannot go on panics")]

mod load;
mod subject;
mod usage;

use std::collections::BTreeMap;

use clap::Parser;
use rustix::thread::{CpuSet, sched_setaffinity};

use self::{
    load::{Load, Measure},
    subject::{KINDS, Servers, Subject},
};

/// Measures the byte path beside other forwarders.
#[derive(Clone, Copy, Debug, Parser)]
struct Args {
    /// Rounds; of each measure the median is told.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Bytes of the bulk transfer, in MiB.
    #[arg(long, default_value_t = 1024)]
    mebibytes: usize,
    /// Round trips of 64 bytes, on one connection.
    #[arg(long, default_value_t = 20_000)]
    round_trips: usize,
    /// Connections, one after the other.
    #[arg(long, default_value_t = 5_000)]
    connections: usize,
    /// Connections that are idle at once.
    #[arg(long, default_value_t = 2_000)]
    idle: usize,
    /// Datagrams of 512 bytes, each sent back before the next.
    #[arg(long, default_value_t = 20_000)]
    datagrams: usize,
}

/// What was measured of one subject, round by round.
type Results = BTreeMap<(usize, Measure), Vec<f64>>;

fn main() {
    let args = Args::parse();
    let mut one = CpuSet::new();
    one.set(0);
    sched_setaffinity(None, &one).expect("the first CPU");
    let servers = Servers::start();
    let mut results = Results::new();
    for round in 1..=args.rounds {
        for (at, kind) in KINDS.iter().enumerate() {
            let Some(subject) = Subject::start(*kind, &servers) else { continue };
            eprintln!("round {round}: {}", kind.name());
            for (measure, value) in measures(args, &subject) {
                results.entry((at, measure)).or_default().push(value);
            }
        }
    }
    print(&results);
}

fn measures(args: Args, subject: &Subject) -> Vec<(Measure, f64)> {
    let load = Load { subject };
    let mut found = load.bulk(args.mebibytes);
    found.extend(load.round_trips(args.round_trips));
    found.extend(load.connections(args.connections));
    // A process for each connection is what socat is; two thousand of them say nothing new.
    found.extend(if subject.kind.forks() { Vec::new() } else { load.idle(args.idle) });
    found.extend(load.datagrams(args.datagrams));
    found
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// A row for each measure: the medians, and behind those of peers how many times ours they are.
fn print(results: &Results) {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
    println!("| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for measure in Measure::ALL {
        let of = |at: usize| results.get(&(at, measure)).and_then(|values| median(values));
        let own = of(0);
        let cells = (0..names.len()).map(|at| match (at, of(at), own) {
            (_, None, _) => String::new(),
            (0, Some(value), _) | (_, Some(value), None) => measure.show(value),
            (_, Some(value), Some(own)) => format!("{} (×{:.2})", measure.show(value), value / own),
        });
        println!("| {} | {} |", measure.name(), cells.collect::<Vec<_>>().join(" | "));
    }
}
