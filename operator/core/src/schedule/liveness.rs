//! Finds the loops that hang among those that a replica depends on.

use std::time::Duration;

/// Longest silence of a loop. The driver iterates four times a second, the loop of the leader election at least once in
/// six seconds, and servers and loops that wait beat every five seconds. An iteration that translates the largest
/// measured world takes less than this.
pub const SILENCE: Duration = Duration::from_secs(25);
/// The longest time for which a loop that waits for answers of other processes gives signs of life. Its requests have
/// deadlines of 10 to 40 s, and a round has several of them: an API server that does not answer must not restart an
/// operator.
pub const ROUND: Duration = Duration::from_secs(300);

/// The last sign of life of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse<'a> {
    /// Name of the loop.
    pub name: &'a str,
    /// Time of the sign.
    pub last: Duration,
    /// Longest silence of the loop.
    pub patience: Duration,
}

/// Names the loops that hang, with the length of their silence; `None` if no loop hangs.
#[must_use]
pub fn complaint(pulses: &[Pulse<'_>], now: Duration) -> Option<String> {
    let silent = |pulse: &Pulse<'_>| {
        let silence = now.saturating_sub(pulse.last);
        (silence > pulse.patience).then(|| format!("{} has not made progress for {} s", pulse.name, silence.as_secs()))
    };
    let silent: Vec<String> = pulses.iter().filter_map(silent).collect();
    (!silent.is_empty()).then(|| silent.join(", "))
}
