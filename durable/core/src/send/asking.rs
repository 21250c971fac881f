//! When the system is asked how much the kernel of a sink has acknowledged.

use std::time::Duration;

use super::{Silence, Silent};

/// No event tells of an acknowledgement, so the system is asked: soon after the last one, and then less and less often.
const FIRST: Duration = Duration::from_millis(1);
const LAST: Duration = Duration::from_millis(100);

/// When the system is asked next, and when the kernel of the sink was silent for too long. Serves one connection.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    silence: Silence,
    owes: bool,
    pause: Duration,
}

impl Asking {
    /// Takes the total of acknowledged bytes, which never falls, and whether the sink `owes` more.
    pub fn hears(&mut self, acknowledged: u64, owes: bool, now: Duration) -> Result<(), Silent> {
        self.owes = owes;
        if self.silence.hears(acknowledged, owes, now)? {
            self.pause = FIRST;
        }
        Ok(())
    }

    /// The pause before the system is asked again, if nothing else gives a reason to. `None`: the sink owes nothing.
    pub fn pause(&self) -> Option<Duration> {
        self.owes.then_some(self.pause)
    }

    /// Ends the pause. The next one is longer.
    pub fn waited(&mut self) {
        self.pause = self.pause.saturating_mul(2).min(LAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::ZERO;

    fn millis(asking: &Asking) -> Option<u128> {
        asking.pause().map(|pause| pause.as_millis())
    }

    #[test]
    fn nothing_is_asked_while_the_sink_owes_nothing() {
        let mut asking = Asking::default();
        assert_eq!((asking.hears(0, false, START), asking.pause()), (Ok(()), None));
        assert_eq!((asking.hears(0, true, START), millis(&asking)), (Ok(()), Some(1)));
        assert_eq!((asking.hears(9, false, START), asking.pause()), (Ok(()), None));
    }

    #[test]
    fn pauses_double_to_a_tenth_of_a_second_and_start_over_when_more_is_acknowledged() {
        let mut asking = Asking::default();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            asking.hears(0, true, START).expect("no time has passed");
            pauses.extend(millis(&asking));
            asking.waited();
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 100, 100]);
        asking.hears(1, true, START).expect("it did something");
        assert_eq!(millis(&asking), Some(1));
    }

    #[test]
    fn a_kernel_that_acknowledges_nothing_for_a_minute_is_silent_however_often_it_is_asked() {
        let mut asking = Asking::default();
        for second in 0..60 {
            assert_eq!(asking.hears(5, true, Duration::from_secs(second)), Ok(()), "second {second}");
        }
        assert_eq!(asking.hears(5, true, Duration::from_secs(60)), Err(Silent));
    }
}
