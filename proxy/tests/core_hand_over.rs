//! Which worker runs a connection.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use proptest::prelude::*;
use proxy::core::workers::hand_over::worker;

/// A random number for each connection (`splitmix64`).
fn chance(n: u64) -> u64 {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The loads after worker `own` has accepted this many connections, all of which stay.
fn accept(mut loads: Vec<usize>, own: usize, connections: u64) -> Vec<usize> {
    for n in 1..=connections {
        let chosen = worker(own, loads.len(), chance(n), |at| loads[at]);
        loads[chosen] += 1;
    }
    loads
}

#[test]
fn a_worker_without_peers_keeps_everything() {
    assert_eq!(worker(0, 1, 7, |_| 1000), 0);
    // While it drains, a worker knows no others.
    assert_eq!(worker(3, 0, 7, |_| 1000), 3);
}

#[test]
fn a_small_difference_is_not_worth_a_hand_over() {
    for n in 0..100 {
        assert_eq!(worker(1, 4, chance(n), |at| if at == 1 { 18 } else { 14 }), 1);
        assert_ne!(worker(1, 4, chance(n), |at| if at == 1 { 19 } else { 14 }), 1);
    }
}

#[test]
fn the_two_that_are_considered_differ_and_the_own_worker_is_none_of_them() {
    // The worker with the least load, if it is considered.
    let chosen = |own: usize, chance: u64, idle: usize| {
        worker(own, 4, chance, |at| [50, 0, 100][usize::from(at == idle) + 2 * usize::from(at == own)])
    };
    let considered = |own: usize, chance: u64| {
        (0..4).filter(|idle| *idle != own && chosen(own, chance, *idle) == *idle).collect::<Vec<_>>()
    };
    // The lower half of the chance draws the first, and the upper half how far behind it the second is.
    for (upper, lower, by_first, by_second) in [
        (0, 0, [1, 2], [0, 2]),
        (0, 1, [2, 3], [2, 3]),
        (0, 2, [1, 3], [0, 3]),
        (1, 2, [1, 3], [0, 3]),
        (2, 1, [1, 2], [0, 2]),
    ] {
        let chance = (upper << 32) | lower;
        assert_eq!(considered(0, chance), by_first, "{upper}, {lower}");
        assert_eq!(considered(1, chance), by_second, "{upper}, {lower}");
    }
}

// D13
#[test]
fn a_batch_spreads_over_idle_peers() {
    let mut loads = vec![0; 8];
    loads[2] = 100;
    let after = accept(loads, 2, 16);
    assert_eq!(after[2], 100);
    assert!(after.iter().all(|load| *load == 100 || (1..=4).contains(load)), "{after:?}");
}

#[test]
fn connections_that_one_worker_accepts_end_up_on_all() {
    for workers in [2, 3, 8, 64] {
        let after = accept(vec![0; workers], 0, 10_000);
        let fair = 10_000 / workers;
        assert!(after.iter().all(|load| (fair * 3 / 4..=fair * 5 / 4).contains(load)), "{after:?}");
    }
}

/// Which connection ends.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Any,
    Oldest,
    Newest,
}

/// Four workers and their long connections.
struct Four {
    loads: Vec<usize>,
    /// The worker of each connection, in the order in which they came.
    placed: Vec<usize>,
    rolls: u64,
    /// The worker that accepts, and how many more in a row.
    accepts: (usize, u64),
    /// The most that a worker accepts in a row.
    run: u64,
}

impl Four {
    fn roll(&mut self, bound: u64) -> usize {
        self.rolls = self.rolls.wrapping_add(1);
        usize::try_from(chance(self.rolls) % bound).expect("small")
    }

    fn arrive(&mut self) {
        if self.accepts.1 == 0 {
            self.accepts = (self.roll(4), 1 + self.roll(self.run) as u64);
        }
        self.accepts.1 -= 1;
        self.rolls = self.rolls.wrapping_add(1);
        let chosen = worker(self.accepts.0, 4, chance(self.rolls), |at| self.loads[at]);
        self.loads[chosen] += 1;
        self.placed.push(chosen);
    }

    fn end(&mut self, ends: Ends) {
        let at = match ends {
            Ends::Any => self.roll(self.placed.len() as u64),
            Ends::Oldest => 0,
            Ends::Newest => self.placed.len() - 1,
        };
        let ended = self.placed.remove(at);
        self.loads[ended] -= 1;
    }

    /// Whether no worker has more than 1.3 times the mean.
    fn are_fair(&self) -> bool {
        self.loads.iter().all(|load| load * 10 * 4 <= self.placed.len() * 13)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whichever worker accepts, and however many in a row, while 1,000 are there and while up to 500 more come and go.
    #[test]
    fn no_worker_has_over_1_3_times_the_mean_of_a_thousand_long_connections(
        rolls in any::<u64>(),
        run in 1..=1000_u64,
        ends in prop_oneof![Just(Ends::Any), Just(Ends::Oldest), Just(Ends::Newest)],
        more in 0..=500_usize,
    ) {
        let mut four = Four { loads: vec![0; 4], placed: Vec::new(), rolls, accepts: (0, 0), run };
        (0..1000).for_each(|_| four.arrive());
        prop_assert!(four.are_fair(), "{:?}", four.loads);
        (0..more).for_each(|_| four.arrive());
        (0..more).for_each(|_| four.end(ends));
        prop_assert!(four.are_fair(), "{:?}", four.loads);
        for _ in 0..2000 {
            four.end(ends);
            four.arrive();
        }
        prop_assert!(four.are_fair(), "{:?}", four.loads);
    }
}

#[test]
fn those_that_arrive_level_what_ends_have_left_uneven() {
    // All connections of three workers have ended, and moved nobody.
    for own in 0..4 {
        let after = accept(vec![250, 0, 0, 0], own, 750);
        assert!(after.iter().all(|load| load * 10 <= 250 * 13), "{after:?}");
    }
}
