//! Permutations that keep neighbours apart: the turns of entries by their weights.

/// A permutation of `0..total` that scatters neighbours: steps by a number near the golden ratio and coprime to
/// `total`.
pub(super) fn scattered(position: u64, total: u64, step: u64) -> u64 {
    let product = u128::from(position) * u128::from(step) % u128::from(total.max(1));
    u64::try_from(product).unwrap_or(0)
}

/// The step of [`scattered`].
pub(super) fn step_of(total: u64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a starting point for the search; any value in 1..=total works"
    )]
    let mut step = ((total as f64 * 0.618) as u64).max(1);
    while gcd(step, total) != 1 {
        step += 1;
    }
    step
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
