//! Time of `portlane validate` for many forwards in sidecars: each with a selector of its own, or all with one selector.
//!
//! `cargo run --release -p portlane-benches --bin validate`.
#![allow(clippy::expect_used, clippy::panic, reason = "a bench that fails panics")]

use std::{
    fmt::Write as _,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use clap::Parser;

/// Measure how the time of `portlane validate` depends on what forwards select.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Numbers of forwards to measure with.
    #[arg(long, value_delimiter = ',', default_value = "200,2000")]
    forwards: Vec<u16>,
    /// Number of runs; the median is printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// What the forwards select.
const SELECTORS: [(&str, &str); 3] =
    [("one each", "{matchLabels: {app: a#}}"), ("one label", "{matchLabels: {app: shop}}"), ("all pods", "{}")];

fn main() {
    let args = Args::parse();
    println!("| forwards | selectors | `portlane validate` | of the time with one each |\n|---|---|---|---|");
    for forwards in args.forwards {
        let mut first = None;
        for (name, selector) in SELECTORS {
            let manifest = manifest(forwards, selector);
            let mut times: Vec<Duration> = (0..args.rounds.max(1)).map(|_| validate(&manifest)).collect();
            times.sort();
            let median = times[times.len() / 2].as_secs_f64();
            let share = median / *first.get_or_insert(median);
            println!("| {forwards} | {name} | {median:.2} s | ×{share:.2} |");
        }
    }
}

/// Forwards on ports of their own.
fn manifest(forwards: u16, selector: &str) -> String {
    let mut text = String::new();
    for at in 0..forwards {
        let selector = selector.replace('#', &at.to_string());
        let port = 1024 + at;
        writeln!(
            text,
            "---\napiVersion: portlane.dev/v1alpha1\nkind: PortForward\nmetadata: {{name: f{at}, namespace: shop}}\nspec: \
             {{placement: {{sidecar: {{selector: {selector}}}}}, listeners: [{{name: l, protocol: TCP, port: {port}, \
             backends: [{{address: {{host: 192.0.2.1, port: 1}}}}]}}]}}"
        )
        .expect("text");
    }
    text
}

fn validate(manifest: &str) -> Duration {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("forwards.yaml");
    fs::write(&file, manifest).expect("written");
    let portlane = harness::binary("portlane");
    let began = Instant::now();
    let output = Command::new(portlane).arg("validate").arg("-f").arg(&file).output().expect("portlane runs");
    let took = began.elapsed();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    took
}
