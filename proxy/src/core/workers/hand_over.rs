//! The worker that runs a connection: the one that accepted it, or another with clearly less load.

/// Returns the worker, of `workers`, for a connection that worker `own` has accepted. `load` is the number of
/// connections of a worker, including those on their way to it.
///
/// Two other workers are considered, drawn by `chance`: the cost does not grow with the number of workers, and workers
/// that accept at the same time do not all choose the same one.
#[must_use]
pub fn worker(own: usize, workers: usize, chance: u64, load: impl Fn(usize) -> usize) -> usize {
    let others = workers.saturating_sub(1);
    if others == 0 {
        return own;
    }
    let drawn = |chance: u64, of: usize| usize::try_from(chance % of.max(1) as u64).unwrap_or(0);
    let first = drawn(chance, others);
    let second = (first + 1 + drawn(chance >> 32, others - 1)) % others;
    // Positions among the others skip the own one.
    let [one, two] = [first, second].map(|at| if at < own { at } else { at + 1 });
    let lighter = if load(two) < load(one) { two } else { one };
    let here = load(own);
    // Handing over wakes another thread, so the difference has to be worth it.
    if load(lighter) + 2 + here / 8 < here { lighter } else { own }
}
