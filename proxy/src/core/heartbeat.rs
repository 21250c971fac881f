//! Which threads have stopped giving signs of life.

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

/// Names of those that have been silent for longer than [`LONGEST_SILENCE`] at `now` (seconds of the process clock).
#[must_use]
pub fn hung<'a>(now: u64, beats: impl IntoIterator<Item = Beat<'a>>) -> Vec<&'a str> {
    let is_silent = |beat: &Beat<'a>| now.saturating_sub(beat.at) > LONGEST_SILENCE;
    beats.into_iter().filter(is_silent).map(|beat| beat.name).collect()
}
