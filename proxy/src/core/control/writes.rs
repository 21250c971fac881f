//! How often state is written to disk.

use std::time::Duration;

/// Shortest pause between two writes.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest pause between two writes, and the pause after a failure.
pub const LONGEST: Duration = Duration::from_secs(30);
/// A pause is at least this many times as long as the write before it.
const TIMES: u32 = 50;

/// The pause after a write that took this long. Each write covers all listeners: a proxy of tens of thousands of them
/// would write without end while they change, on the CPU that applies the changes. So writing takes at most 2 % of a
/// CPU, or happens only once in 30 s. A failed write is retried after the longest pause.
#[must_use]
pub fn pause(took: Duration, is_written: bool) -> Duration {
    if is_written { took.saturating_mul(TIMES).clamp(SHORTEST, LONGEST) } else { LONGEST }
}

/// The content of a small file. It is written when it differs from the wanted content: one write at a time, immediately
/// after the previous write, or after a failure once the longest pause is over. Times are since the process started.
#[derive(Debug)]
pub struct Writes<T> {
    /// The present content.
    persisted: T,
    /// The content of the write under way.
    under_way: Option<T>,
    /// No write begins before this time.
    not_before: Duration,
}

impl<T: PartialEq> Writes<T> {
    /// Starts with this content in the file.
    #[must_use]
    pub fn new(persisted: T) -> Self {
        Self { persisted, under_way: None, not_before: Duration::ZERO }
    }

    /// Whether the file has the wanted content, and no write under way would change it.
    #[must_use]
    pub fn are_done(&self, wanted: &T) -> bool {
        self.under_way.is_none() && *wanted == self.persisted
    }

    /// Sets the wanted content. Returns it if a write has to begin now.
    #[must_use]
    pub fn begin(&mut self, wanted: T, now: Duration) -> Option<&T> {
        if self.under_way.is_some() || now < self.not_before || wanted == self.persisted {
            return None;
        }
        let under_way = self.under_way.insert(wanted);
        Some(&*under_way)
    }

    /// Ends the write under way. A file is written whole or not at all: after a failure it has its old content.
    pub fn end(&mut self, is_written: bool, now: Duration) {
        let Some(written) = self.under_way.take() else { return };
        if is_written {
            self.persisted = written;
        } else {
            self.not_before = now.saturating_add(LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn what_changes_during_a_write_is_written_when_the_write_ends() {
        let mut writes = Writes::new(0);
        assert!(writes.are_done(&0) && writes.begin(0, NOW).is_none());
        assert_eq!(writes.begin(1, NOW), Some(&1));
        assert!(writes.begin(2, NOW).is_none(), "one write at a time");
        assert!(!writes.are_done(&1), "a write is under way");
        writes.end(true, NOW);
        assert!(writes.are_done(&1) && !writes.are_done(&2));
        assert_eq!(writes.begin(2, NOW), Some(&2));
        writes.end(true, NOW);
        assert!(writes.are_done(&2) && writes.begin(2, NOW).is_none());
    }

    #[test]
    fn what_could_not_be_written_is_tried_again_after_the_longest_pause() {
        let mut writes = Writes::new(0);
        assert_eq!(writes.begin(1, NOW), Some(&1));
        writes.end(false, NOW);
        assert!(!writes.are_done(&1));
        let almost = NOW + LONGEST.checked_sub(Duration::from_millis(1)).expect("a pause");
        assert!(writes.begin(1, almost).is_none() && writes.begin(2, almost).is_none());
        assert_eq!(writes.begin(1, NOW + LONGEST), Some(&1));
        writes.end(true, NOW + LONGEST);
        assert!(writes.are_done(&1));
        assert_eq!(writes.begin(2, NOW + LONGEST), Some(&2), "no pause follows a success");
    }

    #[test]
    fn after_a_failure_the_file_has_what_it_had() {
        let mut writes = Writes::new(0);
        assert_eq!(writes.begin(1, NOW), Some(&1));
        writes.end(false, NOW);
        assert!(writes.are_done(&0));
        writes.end(true, NOW);
        assert!(writes.are_done(&0), "no write was under way");
    }

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
