//! Threads that have stopped giving signs of life.

use std::time::Duration;

/// Longest silence of a thread that counts as alive, in seconds. Threads beat once a second.
pub const LONGEST_SILENCE: u64 = 20;

/// The last sign of life of a thread or task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat<'a> {
    /// Name of the thread or task.
    pub name: &'a str,
    /// Time of the sign, in seconds of the process clock.
    pub at: u64,
}

/// Names of the threads and tasks that have been silent for longer than [`LONGEST_SILENCE`] at `now` (seconds of the
/// process clock).
#[must_use]
pub fn hung<'a>(now: u64, beats: impl IntoIterator<Item = Beat<'a>>) -> Vec<&'a str> {
    let is_silent = |beat: &Beat<'a>| now.saturating_sub(beat.at) > LONGEST_SILENCE;
    beats.into_iter().filter(is_silent).map(|beat| beat.name).collect()
}

/// A round of the watching thread is late if it comes this much after the one before: the whole process was stopped,
/// and silence proves nothing.
const LATE: Duration = Duration::from_secs(5);

/// Decides in which rounds of the watching thread silence counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judge {
    was_late: bool,
}

impl Judge {
    /// Whether silence counts in a round this long after the one before. Only the first of consecutive late rounds is
    /// excused: a process that is always late must not excuse its threads for ever.
    #[must_use]
    pub fn counts(&mut self, after: Duration) -> bool {
        let is_late = after > LATE;
        let was_late = std::mem::replace(&mut self.was_late, is_late);
        !is_late || was_late
    }
}
