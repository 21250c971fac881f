//! Who is measured when: each round measures each row with everything in turn, and rotates the order.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

/// Failed measurements after which something is measured no more: each may wait for minutes.
const FAILURES: usize = 4;

/// Measures the rows of a plan in rounds, and gives the values of each measurement to `keep`, with the number of its
/// round. No values: the measurement failed, which was printed, or was left out because others of this kind had failed.
pub(crate) fn take<R: Copy, K: Copy + Ord, V>(
    rounds: usize,
    plan: &[(R, Vec<K>)],
    name: impl Fn(R, K) -> String,
    measure: impl Fn(R, K) -> V,
    mut keep: impl FnMut(usize, R, K, Option<V>),
) {
    let began = Instant::now();
    let mut failures: BTreeMap<K, usize> = BTreeMap::new();
    for round in 0..rounds {
        for (row, kinds) in plan {
            for at in 0..kinds.len() {
                let Some(kind) = kinds.get((at + round) % kinds.len()).copied() else { continue };
                if failures.get(&kind).is_some_and(|failed| *failed >= FAILURES) {
                    keep(round, *row, kind, None);
                    continue;
                }
                let (minutes, name) = (began.elapsed().as_secs() / 60, name(*row, kind));
                eprintln!("{minutes} min, round {} of {rounds}: {name}", round + 1);
                let values = catch_unwind(AssertUnwindSafe(|| measure(*row, kind))).ok();
                if values.is_none() {
                    eprintln!("failed: {name}: see the message above");
                    *failures.entry(kind).or_default() += 1;
                }
                keep(round, *row, kind, values);
            }
        }
    }
}
