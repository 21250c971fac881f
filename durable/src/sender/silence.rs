//! How long a sink has given no word.

use durable_core::send::ANSWER_WITHIN;
use tokio::time::Instant;

use super::SessionError;

/// Since when a sink that owes a word has done nothing. Only what it does moves this, whatever else wakes a session.
#[derive(Default)]
pub(super) struct Silence {
    done: u64,
    since: Option<Instant>,
}

impl Silence {
    /// The sink has done so much in all, a number that never falls, and `owes` more or not. Returns whether its time
    /// begins anew.
    pub(super) fn hears(&mut self, done: u64, owes: bool, now: Instant) -> Result<bool, SessionError> {
        let is_more = done > self.done;
        self.done = done;
        match self.since.filter(|_| owes && !is_more) {
            Some(since) if now.duration_since(since) >= ANSWER_WITHIN => Err(SessionError::Silent(ANSWER_WITHIN)),
            Some(_) => Ok(false),
            None => {
                self.since = owes.then_some(now);
                Ok(true)
            }
        }
    }

    /// When its time is over, if it owes something.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + ANSWER_WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_sink_is_silent_when_it_does_nothing_for_a_minute_though_it_should() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        silence.hears(0, false, at(0)).expect("it owes nothing before the first message");
        assert_eq!(silence.due(), None);
        silence.hears(0, true, at(100)).expect("it owes from now on");
        silence.hears(5, true, at(159)).expect("it did more");
        let is_anew = silence.hears(5, true, at(218)).expect("that is less than a minute");
        assert!(!is_anew, "what wakes a session is not the sink");
        assert_eq!(silence.due(), Some(at(219)));
        let error = silence.hears(5, true, at(219)).expect_err("it is silent");
        assert_eq!(error.to_string(), "the sink was silent for 60 seconds");
    }
}
