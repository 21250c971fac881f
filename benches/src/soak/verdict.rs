//! What a run says: what became of memory, files and sockets, what is left after the load, and what went wrong.

use std::sync::atomic::Ordering::Relaxed;

use crate::{
    flat::{Point, Quiet, Slack, Trend},
    sample::Sample,
    shared::Shared,
    unit::MIB,
};

/// Files more than the load moves. A spliced stream has two pipes with two ends each.
const FILES: f64 = 4.0;
/// Sockets in `CLOSE_WAIT` more than the load moves.
const SOCKETS: f64 = 2.0;
/// Of so many datagrams one may be lost.
const DATAGRAMS: u64 = 1000;

/// What is judged.
struct Quantity {
    name: &'static str,
    value: fn(&Sample) -> f64,
    slack: Slack,
}

const QUANTITIES: [Quantity; 3] = [
    Quantity { name: "RssAnon, MiB", value: |sample| sample.anon, slack: Slack::Memory },
    Quantity { name: "files", value: |sample| sample.files as f64, slack: Slack::Load(FILES) },
    Quantity { name: "CLOSE_WAIT", value: |sample| sample.states.close_wait as f64, slack: Slack::Load(SOCKETS) },
];

/// Prints the verdict. Whether all is well.
pub(crate) fn print(samples: &[Sample], shared: &Shared, before: Quiet, after: Quiet) -> bool {
    println!("\n| | second quarter | last quarter | at most | per hour | |\n|---|---|---|---|---|---|");
    let mut is_well = true;
    for quantity in QUANTITIES {
        let (line, is_flat) = quantity.judge(samples);
        println!("{line}");
        is_well &= is_flat;
    }
    let left = after.left(before);
    let left_words = if left.is_empty() { "nothing".to_owned() } else { left.join("; ") };
    println!("\nLeft after the load: {left_words}.");
    let (datagrams, lost) = (shared.datagrams.load(Relaxed), shared.lost.load(Relaxed));
    println!("Datagrams: {datagrams}, of which {lost} lost.");
    let (count, faults) = shared.faults();
    println!("Faults: {count}.");
    for fault in &faults {
        println!("- {fault}");
    }
    is_well &= left.is_empty() && count == 0 && lost * DATAGRAMS <= datagrams;
    println!("\nVerdict: {}.", if is_well { "flat" } else { "**not flat**, or not all well" });
    is_well
}

impl Quantity {
    /// A line of the table, and whether this quantity is flat.
    fn judge(&self, samples: &[Sample]) -> (String, bool) {
        let point = |sample: &Sample| Point { second: sample.second, value: (self.value)(sample) };
        let points: Vec<Point> = samples.iter().map(point).collect();
        let Some(trend) = Trend::of(&points, self.slack) else {
            return (format!("| {} | | | | | too few samples |", self.name), false);
        };
        let unit = if self.slack == Slack::Memory { MIB } else { 1.0 };
        let shown = [trend.before, trend.after, trend.most, trend.per_hour].map(|value| format!("{:.2}", value / unit));
        let verdict = if trend.is_flat() { "flat" } else { "**grows**" };
        (format!("| {} | {} | {verdict} |", self.name, shown.join(" | ")), trend.is_flat())
    }
}
