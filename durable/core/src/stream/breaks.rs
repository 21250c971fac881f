//! The pauses before a stream is read again.

use std::time::Duration;

use super::PAUSE;

/// The pause while reading fails again and again.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// The breaks in reading one stream.
#[derive(Debug, Default)]
pub struct Breaks {
    failed_before: bool,
}

/// The consequence of a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// The pause before the stream is read again.
    pub pause: Duration,
    /// Whether the break is reported as a failure.
    pub is_failure: bool,
}

impl Breaks {
    /// Takes the end of reading, because it `failed` or the connection changed. A single failure is not reported, as a
    /// restart of the server causes one.
    pub fn ends(&mut self, failed: bool) -> Break {
        let is_failure = failed && self.failed_before;
        self.failed_before = failed;
        Break { pause: if is_failure { LONG_PAUSE } else { PAUSE }, is_failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_that_fails_twice_in_a_row_is_told_and_tried_less_often() {
        let mut breaks = Breaks::default();
        let followed = [false, true, true, true, false, true].map(|failed| {
            let Break { pause, is_failure } = breaks.ends(failed);
            (pause.as_millis(), is_failure)
        });
        let (early, late) = ((100, false), (1000, true));
        assert_eq!(followed, [early, early, late, late, early, early]);
    }
}
