//! How long a sink has been silent.

use std::time::Duration;

use super::ANSWER_WITHIN;

/// A sink that owes an answer has done nothing for [`ANSWER_WITHIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sink was silent for {} seconds", ANSWER_WITHIN.as_secs())]
pub struct Silent;

/// The time since which a sink that owes an answer has done nothing. Only progress of the sink moves it, whatever else
/// wakes a session.
#[derive(Clone, Debug, Default)]
pub struct Silence {
    done: u64,
    since: Option<Duration>,
}

impl Silence {
    /// Takes the total that the sink has done, which never falls, and whether it `owes` more. Returns whether the time
    /// of the sink starts again.
    ///
    /// # Errors
    /// The time of the sink is over.
    pub fn hears(&mut self, done: u64, owes: bool, now: Duration) -> Result<bool, Silent> {
        let is_more = done > self.done;
        self.done = done;
        match self.since.filter(|_| owes && !is_more) {
            Some(since) if now.saturating_sub(since) >= ANSWER_WITHIN => Err(Silent),
            Some(_) => Ok(false),
            None => {
                self.since = owes.then_some(now);
                Ok(true)
            }
        }
    }

    /// When the time of the sink is over, if it owes an answer.
    pub fn due(&self) -> Option<Duration> {
        self.since.map(|since| since.saturating_add(ANSWER_WITHIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_is_silent_when_it_does_nothing_for_a_minute_though_it_should() {
        let mut silence = Silence::default();
        let at = Duration::from_secs;
        assert_eq!((silence.hears(0, false, at(0)), silence.due()), (Ok(true), None), "it owes nothing");
        assert_eq!(silence.hears(0, true, at(100)), Ok(true), "it owes from now on");
        assert_eq!(silence.hears(5, true, at(159)), Ok(true), "it did more");
        assert_eq!(silence.hears(5, true, at(218)), Ok(false), "what wakes a session is not the sink");
        assert_eq!(silence.due(), Some(at(219)));
        let error = silence.hears(5, true, at(219)).expect_err("it is silent");
        assert_eq!(error.to_string(), "the sink was silent for 60 seconds");
    }
}
