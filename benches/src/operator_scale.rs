//! Scale of the operator: simulated proxies (real streams, real tokens) and `PortForward`s against a real API server.
//!
//! `cargo run --release -p portlane-benches --bin operator-scale`; the results are in `docs/performance.md`.
#![allow(clippy::expect_used, clippy::panic, reason = "a bench that fails panics")]
#![allow(clippy::cast_precision_loss, reason = "numbers are printed for people")]

mod scale;

use std::sync::Arc;

use clap::Parser;

use scale::{Bench, Layout, Row};

/// Measure the time from a change to the last report, and its cost in the operator.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Layouts to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "gateway,sidecar")]
    layouts: Vec<Layout>,
    /// Numbers of proxies to measure with.
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    proxies: Vec<usize>,
    /// Numbers of forwards to measure with, ascending.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
    forwards: Vec<usize>,
    /// Number of changes per measurement, one after the other.
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// Path of another operator to measure instead of the one in the image.
    #[arg(long)]
    operator: Option<std::path::PathBuf>,
    /// Instead, measure writes while a fleet grows from the first to the last number of proxies, with the last number
    /// of forwards.
    #[arg(long)]
    grow: bool,
    /// Instead, send reviews of this many pods to the webhook, with the last numbers of forwards and of proxies.
    #[arg(long, value_name = "PODS")]
    webhook: Option<usize>,
}

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    if args.grow {
        let (Some(from), Some(to)) = (args.proxies.first(), args.proxies.last()) else { return };
        let bench = Arc::new(Bench::start(Layout::Gateway, *from, args.operator.as_deref()));
        runtime.block_on(bench.grow(args.forwards.last().copied().unwrap_or(0), *to));
        return;
    }
    if let Some(pods) = args.webhook {
        let proxies = args.proxies.last().copied().unwrap_or(0);
        let bench = Bench::start(Layout::Sidecar, proxies, args.operator.as_deref());
        runtime.block_on(bench.webhook(args.forwards.last().copied().unwrap_or(0), pods));
        return;
    }
    let mut rows: Vec<Row> = Vec::new();
    for layout in args.layouts {
        for proxies in &args.proxies {
            let bench = Arc::new(Bench::start(layout, *proxies, args.operator.as_deref()));
            rows.extend(runtime.block_on(bench.clone().measure(&args.forwards, args.changes)));
        }
    }
    println!("{}", Row::HEAD);
    for row in rows {
        println!("{row}");
    }
}
