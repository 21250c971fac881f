//! How often the configuration is written to disk.

use std::time::Duration;

/// Shortest pause between two writes.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest pause between two writes.
const LONGEST: Duration = Duration::from_secs(30);
/// A pause is at least this many times as long as the write before it.
const TIMES: u32 = 50;

/// The pause after a write that took this long. All listeners are written each time: a proxy of tens of thousands of them
/// would write without end while they change, on the CPU that applies the changes. So writing takes at most 2 % of a CPU,
/// beyond that once in 30 s. A write that failed is tried again after the longest pause.
#[must_use]
pub fn pause(took: Duration, is_written: bool) -> Duration {
    if is_written { took.saturating_mul(TIMES).clamp(SHORTEST, LONGEST) } else { LONGEST }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_with_the_write_within_bounds() {
        let millis = Duration::from_millis;
        for (took, expected) in [
            (Duration::ZERO, SHORTEST),
            (millis(20), SHORTEST),
            (millis(21), millis(1050)),
            (millis(100), millis(5000)),
            (millis(600), LONGEST),
            (millis(601), LONGEST),
            (Duration::MAX, LONGEST),
        ] {
            assert_eq!(pause(took, true), expected, "{took:?}");
        }
        assert_eq!(pause(Duration::ZERO, false), LONGEST);
        for took in (0..=600).map(millis) {
            assert!(took.as_secs_f64() <= 0.02 * (took + pause(took, true)).as_secs_f64(), "{took:?}");
        }
    }
}
