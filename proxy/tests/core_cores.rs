//! Sixty-four workers, simulated: how evenly long connections lie on them. `--nocapture` prints the numbers of ADR 0115.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use proxy::core::workers::hand_over;

/// Random numbers (`splitmix64`).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound as u64).expect("smaller than the bound")
    }
}

/// How connections come to workers.
#[derive(Clone, Copy, Debug)]
enum Dealt {
    /// Each worker has a socket, and the kernel chooses by a hash of the addresses (`SO_REUSEPORT`).
    Hash,
    /// One worker accepts, and hands over to another one with less load.
    One,
    /// Each worker has a socket, and hands over to another one with less load.
    All,
}

/// What came out, in thousandths.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// The most connections of a worker, of the mean.
    most: usize,
    /// Connections that were handed over, of all.
    moved: usize,
}

/// `live` connections on so many workers, after four times as many have ended in any order, each followed by another.
fn deal(dealt: Dealt, workers: usize, live: usize, seed: u64) -> Outcome {
    let mut dice = Dice(seed);
    let (mut loads, mut placed, mut moved) = (vec![0; workers], Vec::new(), 0);
    let all = live * 5;
    for _ in 0..all {
        if placed.len() == live {
            let ended: usize = placed.swap_remove(dice.below(live));
            loads[ended] -= 1;
        }
        let own = if matches!(dealt, Dealt::One) { 0 } else { dice.below(workers) };
        let chance = dice.roll();
        let chosen = match dealt {
            Dealt::Hash => own,
            Dealt::One | Dealt::All => hand_over::worker(own, workers, chance, |at| loads[at]),
        };
        moved += usize::from(chosen != own);
        loads[chosen] += 1;
        placed.push(chosen);
    }
    let most = loads.into_iter().max().unwrap_or_default();
    Outcome { most: most * workers * 1000 / live, moved: moved * 1000 / all }
}

/// The least even outcome of several simulations.
fn worst(dealt: Dealt, workers: usize, live: usize, seeds: u64) -> Outcome {
    let all: Vec<Outcome> = (1..=seeds).map(|seed| deal(dealt, workers, live, seed)).collect();
    let most = all.iter().map(|outcome| outcome.most).max().unwrap_or_default();
    let moved = all.iter().map(|outcome| outcome.moved).max().unwrap_or_default();
    println!("{workers} workers, {live} connections, {dealt:?}: most {most}, moved {moved} (thousandths)");
    Outcome { most, moved }
}

#[test]
fn a_thousand_connections_for_each_of_64_workers_lie_evenly() {
    let of = |dealt| worst(dealt, 64, 64_000, 3);
    let (by_hash, by_one, by_all) = (of(Dealt::Hash), of(Dealt::One), of(Dealt::All));
    assert!((1050..=1150).contains(&by_hash.most), "{by_hash:?}");
    assert!(by_one.most <= 1180 && by_one.moved >= 950, "one worker keeps an eighth more than others: {by_one:?}");
    assert!(by_all.most <= by_hash.most && by_all.moved <= 10, "hardly any has to move: {by_all:?}");
}

#[test]
fn ten_connections_for_each_of_64_workers_lie_better_than_by_the_hash_alone() {
    let of = |dealt| worst(dealt, 64, 640, 20);
    let (by_hash, by_one, by_all) = (of(Dealt::Hash), of(Dealt::One), of(Dealt::All));
    assert!(by_hash.most >= 2000, "{by_hash:?}");
    assert!(by_one.most <= 1700 && by_all.most <= 1600, "{by_one:?} {by_all:?}");
}

#[test]
fn one_thousand_connections_on_four_workers_stay_below_1_3_times_the_mean() {
    let of = |dealt| worst(dealt, 4, 1000, 100);
    let (by_hash, by_one, by_all) = (of(Dealt::Hash), of(Dealt::One), of(Dealt::All));
    assert!(by_hash.most <= 1300, "{by_hash:?}");
    assert!(by_one.most <= 1150 && by_all.most <= 1150, "{by_one:?} {by_all:?}");
}
