//! An hour of faults on a virtual clock, from a seed: connections are cut at any byte, freeze in one direction or both,
//! thaw late or never, both ends restart, and the network fails for longer than the grace period. Streams and flows
//! come and go all the while.
//!
//! What is read is what was written, each stream ends as its writer ended it unless an end has lost the session, no
//! stream stalls for longer than it takes to find a carrier dead and to dial again, memory stays within its bound, and
//! nothing is left in the end.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod chance;
mod world;

use std::time::Duration;

use world::World;
use world::ledger::Seen;

const HOUR: Duration = Duration::from_secs(3600);

/// Prints the seed if the run fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed of the hour that failed: {}", self.0);
        }
    }
}

/// Each of these must happen in any hour: otherwise the run would prove little.
fn check(run: &Seen) {
    let happened = [run.cuts, run.freezes, run.restarts, run.resumed, run.late, run.refused, run.datagrams];
    assert!(happened.iter().all(|count| *count > 0), "{run:?}");
    assert!(run.carriers > 100 && run.cuts > 50, "{run:?}");
    assert!(run.finished > 500 && run.reset > 50, "{run:?}");
    assert!(run.bytes > 10_000_000, "{run:?}");
}

fn hour(seed: u64) {
    let _named = Named(seed);
    check(&World::new(seed, HOUR).run());
}

#[test]
fn streams_are_whole_and_end_as_they_should_through_an_hour_of_faults_1() {
    hour(1);
}

#[test]
fn streams_are_whole_and_end_as_they_should_through_an_hour_of_faults_2() {
    hour(2);
}

#[test]
fn streams_are_whole_and_end_as_they_should_through_an_hour_of_faults_3() {
    hour(3);
}

#[test]
fn streams_are_whole_and_end_as_they_should_through_an_hour_of_faults_4() {
    hour(4);
}
