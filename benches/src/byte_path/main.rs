//! The byte path compared with `HAProxy`, nginx, rinetd, socat, plain tokio and no forwarder: bytes, connections, round
//! trips, datagrams, memory, and changes beside traffic. And models of I/O, side by side.
//!
//! Each round measures every row with every forwarder in turn, in an order that each round rotates. The forwarder has
//! one CPU and one worker; client and servers have another CPU; all are in a network namespace of the bench's own.
//! Portlane is the static program of its image.
//!
//! `cargo run --release -p portlane-benches --bin byte-path`, as root; the results are in `docs/performance.md`. Peers
//! that are not installed are skipped: `cargo xtask setup node` installs `HAProxy` and nginx.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_precision_loss, reason = "a bench that fails panics")]

#[path = "../common/bytes.rs"]
mod bytes;
#[path = "../common/cpu.rs"]
mod cpu;
#[path = "../common/host.rs"]
mod host;
#[path = "../common/image.rs"]
mod image;
#[path = "../common/listener.rs"]
mod listener;
mod load;
mod machine;
#[path = "../common/measure.rs"]
mod measure;
#[path = "../common/namespace.rs"]
mod namespace;
#[allow(dead_code, reason = "another bench asks for sessions")]
#[path = "../common/operator.rs"]
mod operator;
#[path = "../common/poll.rs"]
mod poll;
#[path = "../common/ports.rs"]
mod ports;
#[path = "../common/process.rs"]
mod process;
mod profile;
mod roles;
mod rows;
mod run;
#[path = "../common/servers.rs"]
mod servers;
#[path = "../common/spread.rs"]
mod spread;
mod subject;
mod syscalls;
mod table;
#[allow(dead_code, reason = "durable uses all of it")]
#[path = "../common/train.rs"]
mod train;
mod train_socket;
#[path = "../common/turns.rs"]
mod turns;
#[allow(dead_code, reason = "each bench has units of its own")]
#[path = "../common/unit.rs"]
mod unit;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;

use self::{
    namespace::Cpus,
    roles::Role,
    rows::{Row, Section},
    run::Bench,
    subject::{Kind, Programs, Servers},
    table::{Cell, Results, print_calls, print_profiles},
};

/// Measure the byte path and compare it with other forwarders.
#[derive(Clone, Debug, Parser)]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    /// Rows and tables to measure, separated by commas. Default: all.
    #[arg(long, value_delimiter = ',', value_parser = row_name)]
    rows: Vec<String>,
    /// Number of rounds; tables have the median, and the least and the most in brackets.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// The CPU of the forwarder, and the CPU of client and servers.
    #[arg(long, default_value = "0,1", value_name = "FORWARDER,LOAD")]
    cpus: Cpus,
    /// Measure Portlane as it is built for the libc of this machine, too.
    #[arg(long)]
    glibc: bool,
    /// Count the system calls of each forwarder with strace instead of measuring.
    #[arg(long)]
    syscalls: bool,
    /// Sample with perf where the CPU time of each forwarder goes instead of measuring.
    #[arg(long, conflicts_with = "syscalls")]
    profile: bool,
    /// The program of the image, built before the bench entered its namespace.
    #[arg(long, hide = true)]
    built: Option<PathBuf>,
    /// The same for the libc of this machine.
    #[arg(long, hide = true)]
    built_glibc: Option<PathBuf>,
}

/// Names for `--rows`: the rows of the first table, and the other tables.
fn names() -> Vec<&'static str> {
    let rows = Row::COMPARED.into_iter().map(Row::name);
    rows.chain(Section::ALL.into_iter().skip(1).map(Section::name)).collect()
}

fn row_name(text: &str) -> Result<String, String> {
    if names().contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("expected some of {}", names().join(", ")))
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(role) = args.role {
        role.play();
        return ExitCode::SUCCESS;
    }
    let done = match &args.built {
        None => enter(&args),
        Some(shipped) => measure(&args, shipped),
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
fn enter(args: &Args) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("byte-path needs root, for a network namespace of its own".to_owned());
    }
    let programs = Programs::build(args.glibc)?;
    let mut further: Vec<(&str, &Path)> = vec![("--built", programs.shipped.as_path())];
    if let Some(glibc) = &programs.glibc {
        further.push(("--built-glibc", glibc.as_path()));
    }
    Err(namespace::reenter(&further))
}

fn measure(args: &Args, shipped: &Path) -> Result<(), String> {
    namespace::prepare()?;
    args.cpus.check()?;
    let programs = Programs { shipped: shipped.to_owned(), glibc: args.built_glibc.clone() };
    let compared = Kind::compared(args.glibc);
    let missing: Vec<Kind> = compared.iter().copied().filter(|kind| machine::is_missing(*kind)).collect();
    for kind in &missing {
        eprintln!("{} is not installed: skipped", kind.name());
    }
    println!("{}\n", machine::facts(&programs, &compared));
    args.cpus.pin_load();
    let length = Duration::from_secs(args.seconds.into());
    let bench = Bench { programs, servers: Servers::start(), cpus: args.cpus, length };
    let plan = plan(args, &missing);
    if args.syscalls {
        let found = once_each(&plan, "strace", Row::has_calls_of_operations, |kind, row| bench.system_calls(kind, row));
        print_calls(&found);
        return Ok(());
    }
    if args.profile {
        let found = once_each(&plan, "perf", Row::has_operations, |kind, row| bench.profile(kind, row));
        print_profiles(&found);
        return Ok(());
    }
    let results = rounds(&bench, &plan, args.rounds.into());
    println!(
        "Medians of {} rounds of {} s, the least and the most in brackets; the forwarder on CPU {}, client and servers on \
         CPU {}; congestion control reno.",
        args.rounds, args.seconds, args.cpus.forwarder, args.cpus.load
    );
    for section in Section::ALL {
        let kinds: Vec<Kind> = section.kinds(args.glibc).into_iter().filter(|kind| !missing.contains(kind)).collect();
        results.print(section, &kinds);
    }
    results.print_failures(args.rounds.into());
    Ok(())
}

/// A row of a table, and the forwarders that it is measured with.
struct Planned {
    section: Section,
    row: Row,
    kinds: Vec<Kind>,
}

fn plan(args: &Args, missing: &[Kind]) -> Vec<Planned> {
    let mut plan = Vec::new();
    for section in Section::ALL {
        for row in section.rows().iter().copied() {
            let name = if section == Section::Compared { row.name() } else { section.name() };
            if !args.rows.is_empty() && !args.rows.iter().any(|wanted| wanted == name) {
                continue;
            }
            let kinds = section.kinds(args.glibc).into_iter();
            let kinds = kinds.filter(|kind| section.has(row, *kind) && !missing.contains(kind)).collect();
            plan.push(Planned { section, row, kinds });
        }
    }
    plan
}

/// Measures everything in rounds.
fn rounds(bench: &Bench, plan: &[Planned], rounds: usize) -> Results {
    let mut results = Results::default();
    let turns: Vec<_> = plan.iter().map(|it| ((it.section, it.row), it.kinds.clone())).collect();
    let name = |(_, row): (Section, Row), kind: Kind| format!("{}, {}", row.name(), kind.name());
    turns::take(
        rounds,
        &turns,
        name,
        |(_, row), kind| bench.measure(kind, row),
        |_, (section, row), kind, values| {
            let Some(values) = values else { return results.fail(section, row, kind) };
            for (quantity, value) in values {
                results.add(Cell { section, row, kind, quantity }, value);
            }
        },
    );
    results
}

/// Watches each forwarder with a tool, once for each row of the first table that suits the tool.
fn once_each<T>(
    plan: &[Planned],
    tool: &str,
    suits: impl Fn(Row) -> bool,
    watch: impl Fn(Kind, Row) -> T,
) -> BTreeMap<(Row, Kind), T> {
    let mut found = BTreeMap::new();
    if std::process::Command::new(tool).arg("-h").output().is_err() {
        eprintln!("{tool} is not installed: nothing is measured");
        return found;
    }
    for Planned { row, kinds, .. } in plan.iter().filter(|it| it.section == Section::Compared && suits(it.row)) {
        for kind in kinds.iter().copied().filter(|kind| *kind != Kind::Direct && !kind.forks()) {
            eprintln!("{tool}: {}, {}", row.name(), kind.name());
            if let Ok(of_row) = catch_unwind(AssertUnwindSafe(|| watch(kind, *row))) {
                found.insert((*row, kind), of_row);
            }
        }
    }
    found
}
