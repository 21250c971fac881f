//! Log lines about an intake of messages that ends though it should keep running. It restarts after a pause, so one
//! that always ends would be logged once a second.

use std::{cell::Cell, fmt::Display};

use crate::core::logging::pace::Pace;

/// The pause before an intake restarts, in seconds.
pub const PAUSE: u64 = 1;

/// The ends of the intakes of one listener, at all of its sockets.
#[derive(Debug, Default)]
pub struct IntakeEnds {
    panics: Cell<u64>,
    panics_told: Pace,
    failures: Cell<u64>,
    failures_told: Pace,
}

impl IntakeEnds {
    /// How often an intake panicked.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.get()
    }

    /// Counts a panic at second `now`. Returns a line for the log if one is due.
    #[must_use]
    pub fn panicked(&self, now: u64) -> Option<String> {
        self.panics.set(self.panics.get() + 1);
        self.panics_told.due(now, self.panics.get()).map(panics)
    }

    /// The line about panics that no line has reported, if one is due at second `now`: the last ones of a flood would
    /// wait for the next one. Those in the last seconds of a listener get no line, only the metric.
    #[must_use]
    pub fn rest(&self, now: u64) -> Option<String> {
        self.panics_told.rest(now, self.panics.get()).map(panics)
    }

    /// Counts a socket that could not be read, at second `now`. Returns a line for the log if one is due.
    #[must_use]
    pub fn failed(&self, now: u64, error: &dyn Display) -> Option<String> {
        self.failures.set(self.failures.get() + 1);
        let times = proxy_api::count(self.failures_told.due(now, self.failures.get())?, "time");
        Some(format!("cannot read messages from the socket, {times}, will retry every {PAUSE} s: {error}"))
    }
}

fn panics(count: u64) -> String {
    let times = proxy_api::count(count, "time");
    format!(
        "the intake of messages has panicked {times}, see standard error, and restarts after {PAUSE} s: report \
         this as a bug"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_cannot_be_read_is_told_once_in_a_while_with_how_often_that_was() {
        let ends = IntakeEnds::default();
        let told: Vec<(u64, String)> =
            (0..=20).filter_map(|now| ends.failed(now, &"gone").map(|line| (now, line))).collect();
        let line = |times| format!("cannot read messages from the socket, {times}, will retry every 1 s: gone");
        assert_eq!(told, [(0, line("1 time")), (10, line("10 times")), (20, line("10 times"))]);
        assert_eq!(ends.panics(), 0);
    }

    #[test]
    fn panics_are_all_counted_and_told_beside_what_else_fails() {
        let ends = IntakeEnds::default();
        assert!(ends.failed(0, &"gone").is_some());
        let told = [0, 1, 9, 10].map(|now| ends.panicked(now).is_some());
        assert_eq!((told, ends.panics()), ([true, false, false, true], 4));
        assert!(ends.panicked(20).is_some_and(|line| line.contains("has panicked 1 time,")));
    }

    #[test]
    fn the_last_panics_of_a_flood_are_told_without_another_one_and_once() {
        let ends = IntakeEnds::default();
        assert_eq!(ends.rest(0), None, "there was none");
        let told = [0, 1, 2].map(|now| ends.panicked(now).is_some());
        assert_eq!((told, ends.rest(9)), ([true, false, false], None), "it is too early");
        assert!(ends.rest(10).is_some_and(|line| line.contains("has panicked 2 times,")));
        assert_eq!((ends.rest(11), ends.rest(100)), (None, None));
        assert!(ends.panicked(100).is_some_and(|line| line.contains("has panicked 1 time,")));
        assert_eq!(ends.rest(200), None, "it is logged");
    }
}
