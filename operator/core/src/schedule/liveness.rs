//! Finds loops that hang, among those that a replica depends on.

use std::time::Duration;

/// The longest time between two beats of a loop. The driver iterates four times a second, the loop of the leader
/// election at least once in six seconds, and servers and loops that wait beat every five seconds. A loop that sends
/// requests beats before and after each of them, and their deadlines are shorter than this: an API server that does not
/// answer must not restart an operator. An iteration that translates the largest measured world takes less than this.
pub const SILENCE: Duration = Duration::from_secs(25);

/// The last beat of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse<'a> {
    /// Name of the loop.
    pub name: &'a str,
    /// Time of the beat.
    pub last: Duration,
    /// The longest permitted time between two beats.
    pub patience: Duration,
}

/// Names the loops that hang, with the time since their last beats; `None` if no loop hangs.
#[must_use]
pub fn complaint(pulses: &[Pulse<'_>], now: Duration) -> Option<String> {
    let silent = |pulse: &Pulse<'_>| {
        let silence = now.saturating_sub(pulse.last);
        (silence > pulse.patience).then(|| format!("{} has not made progress for {} s", pulse.name, silence.as_secs()))
    };
    let silent: Vec<String> = pulses.iter().filter_map(silent).collect();
    (!silent.is_empty()).then(|| silent.join(", "))
}
