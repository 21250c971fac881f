//! What is told when something that takes messages ends though it should go on. It begins again after a pause, so one
//! that always ends would be told once a second.

use std::cell::Cell;

use super::pace::Pace;

/// The pause before it begins again, in seconds.
pub const PAUSE: u64 = 1;

/// The ends of what takes the messages of one listener, at all of its sockets.
#[derive(Debug, Default)]
pub struct IntakeEnds {
    panics: Cell<u64>,
    panics_told: Pace,
}

impl IntakeEnds {
    /// How often it panicked.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.get()
    }

    /// Counts a panic at second `now`. Returns a line for the log if one is due.
    #[must_use]
    pub fn panicked(&self, now: u64) -> Option<String> {
        self.panics.set(self.panics.get() + 1);
        let count = self.panics_told.due(now, self.panics.get())?;
        Some(format!(
            "what takes messages has panicked {count} time(s), see standard error, and begins again after {PAUSE} s: \
             report this as a bug"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_all_counted_and_told_once_in_a_while() {
        let ends = IntakeEnds::default();
        let told = [0, 1, 9, 10].map(|now| ends.panicked(now).is_some());
        assert_eq!((told, ends.panics()), ([true, false, false, true], 4));
        assert!(ends.panicked(20).is_some_and(|line| line.contains("has panicked 1 time(s)")));
    }
}
