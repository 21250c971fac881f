//! A thousand agents lose their endpoint at one moment, and dial another one, which takes so many a second.

#![allow(clippy::expect_used, reason = "tests")]

mod chance;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use chance::Chance;
use tunnel_core::Dialler;

const AGENTS: usize = 1000;
/// Handshakes that an endpoint takes within any second. It closes other connections at once.
const RATE: usize = 200;
const SECOND: Duration = Duration::from_secs(1);

/// How it went.
struct Return {
    /// When the last agent was back.
    last: Duration,
    /// Connections, with those that were closed at once.
    attempts: usize,
}

fn come_back(seed: u64) -> Return {
    let mut chance = Chance::new(seed);
    let mut diallers = vec![Dialler::default(); AGENTS];
    let mut attempts = BinaryHeap::new();
    for (agent, dialler) in diallers.iter_mut().enumerate() {
        // The carrier that is lost was there for a minute.
        let pause = dialler.pause(Some(Duration::from_secs(60)), chance.part());
        attempts.push(Reverse((pause, agent)));
    }
    let mut within_a_second = VecDeque::new();
    let mut outcome = Return { last: Duration::ZERO, attempts: 0 };
    while let Some(Reverse((now, agent))) = attempts.pop() {
        outcome.attempts += 1;
        while within_a_second.front().is_some_and(|at| *at + SECOND <= now) {
            within_a_second.pop_front();
        }
        if within_a_second.len() < RATE {
            within_a_second.push_back(now);
            outcome.last = now;
        } else {
            attempts.push(Reverse((now + diallers[agent].pause(None, chance.part()), agent)));
        }
    }
    outcome
}

#[test]
fn a_thousand_agents_are_back_within_ten_seconds_at_an_endpoint_that_takes_two_hundred_a_second() {
    for seed in 0..50 {
        let outcome = come_back(seed);
        assert!(outcome.last <= 10 * SECOND, "seed {seed}: the last one after {:?}", outcome.last);
        assert!(outcome.attempts <= 6 * AGENTS, "seed {seed}: {} connections", outcome.attempts);
    }
}

#[test]
fn agents_that_are_always_closed_at_once_dial_once_in_five_seconds_in_the_end() {
    for seed in 0..10 {
        let mut chance = Chance::new(seed);
        let mut dialler = Dialler::default();
        let mut closed_at_once = |_| dialler.pause(Some(Duration::ZERO), chance.part());
        let (growing, grown) = (0..30, 0..1000);
        let begin: Duration = growing.map(&mut closed_at_once).sum();
        let pauses: Duration = grown.map(&mut closed_at_once).sum();
        assert!(begin < 160 * SECOND, "seed {seed}: {begin:?}");
        assert!(pauses > 4500 * SECOND && pauses < 5500 * SECOND, "seed {seed}: {pauses:?}");
    }
}
