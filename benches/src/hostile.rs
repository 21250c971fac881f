//! How much later things are while a hostile pod tries every door: the same operations without the attack and with it,
//! on a real node.
//!
//! `cargo run --release -p portlane-benches --bin hostile`; needs what the node tests need (docs/testing.md).
#![allow(clippy::expect_used, clippy::panic, reason = "a bench that fails panics")]

use std::time::{Duration, Instant};

use clap::Parser;
use harness::{Force, Held, Node, Operation, Outcomes, Siege, Toll, until};

/// Measure how much later things are while a hostile pod tries every door.
#[derive(Clone, Copy, Debug, Parser)]
struct Args {
    /// Minutes of the attack. The round that has begun by then is completed.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Minutes without an attack before it.
    #[arg(long, default_value_t = 5)]
    calm_minutes: u64,
    /// Clients at a usual door. In all there are about 40 times as many.
    #[arg(long, default_value_t = 160)]
    clients: usize,
    /// New connections per second of all clients, up to 1,000.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connects_per_second: u32,
}

/// Longest round of operations: each of them may wait for its deadline several times.
const ROUND: Duration = Duration::from_secs(1800);
/// How much later an operation may be under attack.
const LATE: Duration = Duration::from_secs(1);

fn main() {
    let args = Args::parse();
    let node = Node::start_released();
    let siege = Siege::prepare(&node);
    let calm = rounds(&siege, minutes(args.calm_minutes), || {});
    let longest = minutes(args.minutes) + ROUND;
    let force = Force { clients: args.clients, connects_per_second: args.connects_per_second, longest };
    let attack = siege.attack(force);
    until("all clients have begun", || attack.open() > 5 * args.clients);
    let attacked = rounds(&siege, minutes(args.minutes), || attack.aim(siege.doors()));
    let toll = attack.stop();
    let closed = siege.closed();
    print(&calm, &attacked);
    print_attack(&toll);
    println!("\nclosed by the doors of the pods that are left: {closed:?}");
    let refused = [calm.refused, attacked.refused].concat();
    let restarts = siege.restarts();
    assert!(refused.is_empty() && restarts.is_empty(), "refused: {refused:#?}; restarted: {restarts:#?}");
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// Does everything again and again for so long.
fn rounds(siege: &Siege<'_>, lasting: Duration, after_each: impl Fn()) -> Outcomes {
    let (mut outcomes, quick) = siege.meanwhile(|| {
        let (started, mut long) = (Instant::now(), Outcomes::default());
        while started.elapsed() < lasting {
            for operation in Operation::LONG {
                let outcome = siege.run(operation);
                eprintln!("{}: {outcome:?}", operation.name());
                long.add(operation, outcome);
                after_each();
            }
        }
        long
    });
    outcomes.merge(quick);
    outcomes
}

fn print(calm: &Outcomes, attacked: &Outcomes) {
    println!(
        "| operation | times | median | maximum | retries | times under attack | median | maximum | retries | later |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for operation in Operation::QUICK.into_iter().chain(Operation::LONG) {
        let (before, after) = (calm.median_and_most(operation), attacked.median_and_most(operation));
        let cells = |outcomes: &Outcomes, times| {
            format!("{} | {} | {}", outcomes.count(operation), show(times), outcomes.retries(operation))
        };
        let later = before.zip(after).map(|(before, after)| after.1.saturating_sub(before.1));
        let verdict =
            later.map_or_else(
                String::new,
                |later| {
                    if later > LATE { format!("**{}**", millis(later)) } else { millis(later) }
                },
            );
        println!("| {} | {} | {} | {verdict} |", operation.name(), cells(calm, before), cells(attacked, after));
    }
    println!("\nlater: the maximum under attack without the maximum before it; bold above {}", millis(LATE));
    println!("retries: attempts of clients before the one that succeeded, over all times");
    println!("refused: {} before, {} under attack", calm.refused.len(), attacked.refused.len());
    print_held("before", &calm.held);
    print_held("under attack", &attacked.held);
}

/// Prints what became of the session that was held.
fn print_held(when: &str, held: &Held) {
    let Held { echoes, slowest, breaks } = held;
    println!(
        "the session that was held, {when}: {echoes} echoes, the slowest {}, {} breaks",
        millis(*slowest),
        breaks.len()
    );
    for why in breaks {
        println!("- {why}");
    }
}

fn print_attack(toll: &Toll) {
    println!("\nmost connections at the same time: {}; connections in all:", toll.most_open);
    for (door, connections) in &toll.connections {
        println!("- {door}: {connections}");
    }
}

fn show(times: Option<(Duration, Duration)>) -> String {
    times.map_or_else(|| "– | –".to_owned(), |(median, most)| format!("{} | {}", millis(median), millis(most)))
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
