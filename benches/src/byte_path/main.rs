//! The byte path compared with `HAProxy`, nginx and socat: bulk bytes, round trips, connections, idle memory and
//! datagrams. Every round measures each subject in turn, on one CPU and with one worker.
//!
//! `cargo run --release -p portlane-benches --bin byte-path`; the results are in `docs/performance.md`. Peers that are
//! not installed are skipped; `cargo xtask setup node` installs `HAProxy` and nginx.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_precision_loss, reason = "a bench that fails panics")]

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

/// Measure the byte path and compare it with other forwarders.
#[derive(Clone, Copy, Debug, Parser)]
struct Args {
    /// Number of rounds; the median of each measure is printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Size of the bulk transfer, in MiB.
    #[arg(long, default_value_t = 1024)]
    mebibytes: usize,
    /// Number of round trips of 64 bytes, on one connection.
    #[arg(long, default_value_t = 20_000)]
    round_trips: usize,
    /// Number of connections, one after the other.
    #[arg(long, default_value_t = 5_000)]
    connections: usize,
    /// Number of simultaneous idle connections.
    #[arg(long, default_value_t = 2_000)]
    idle: usize,
    /// Number of datagrams of 512 bytes, each sent after the answer to the previous one, and of those of 1200 bytes in
    /// bursts and in trains.
    #[arg(long, default_value_t = 20_000)]
    datagrams: usize,
}

/// Results by subject and measure, one value per round.
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
    // socat forks a process for each connection; memory of two thousand processes would say nothing about forwarding.
    found.extend(if subject.kind.forks() { Vec::new() } else { load.idle(args.idle) });
    found.extend(load.datagrams(args.datagrams));
    for measure in [Measure::BurstCpu, Measure::TrainCpu] {
        found.extend(load.bursts(args.datagrams, measure));
    }
    found
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Prints a row for each measure: the medians, and for peers the ratio to Portlane's.
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
