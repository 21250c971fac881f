//! An app that ends with an error soon after its start: again and again, as `kubectl` shows by `CrashLoopBackOff`, or once, in a pod
//! that is not restarted.
//!
//! It may be one whose port a listener has: the proxy of its pod is there before it, and a port that nobody declares cannot be
//! known. So at some of its starts it is left all ports of its pod, more and more rarely, as an app has other reasons to end
//! and may need its doors. Once it has run for a while the listeners come back; whose port is taken then is the app's.

/// Longest run, in seconds, that is a short one.
const SHORT: u32 = 60;
/// Seconds beyond its last run after which an app has got past what ended it.
const MARGIN: u32 = 10;
/// Restarts before an app is told of.
const TOLD_FROM: u32 = 2;
/// The first restart at which it is left all ports.
const LEFT_FROM: u32 = 4;
/// Seconds for which a pod is told of that is not restarted.
const TOLD_SECONDS: i64 = 600;

/// The last run of an app that ended with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortRun {
    /// Its container.
    pub container: String,
    /// What it ended with; not 0.
    pub exit_code: i32,
    /// Seconds that it ran.
    pub seconds: u32,
    /// What came of it.
    pub then: Then,
}

/// What came of a run that ended. Times are in seconds of Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// This restart comes next.
    Waits(u32),
    /// This restart is under way, since then.
    Runs(u32, i64),
    /// The pod ended with it, at this time.
    Failed(i64),
}

impl ShortRun {
    /// Whether it is worth a word: it was short, and not the first one of an app that is restarted.
    #[must_use]
    pub fn is_one(&self) -> bool {
        self.seconds <= SHORT && self.restart().is_none_or(|restart| restart >= TOLD_FROM)
    }

    /// Whether there is nothing more to say of it: the app has run for longer since. The clocks are those of two machines: a
    /// second or two are in the margin.
    #[must_use]
    pub fn is_over(&self, now: i64) -> bool {
        match self.then {
            Then::Waits(_) => false,
            Then::Runs(_, since) => now > since + i64::from(self.seconds) + i64::from(MARGIN),
            Then::Failed(at) => now > at + TOLD_SECONDS,
        }
    }

    /// Whether listeners leave the app all ports of its pod at this start: at its 4th restart, its 8th, 16th and so on.
    #[must_use]
    pub fn is_left_all_ports(&self) -> bool {
        self.restart().is_some_and(|restart| restart >= LEFT_FROM && restart.is_power_of_two())
    }

    /// Whether its pod ended with it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self.then, Then::Failed(_))
    }

    fn restart(&self) -> Option<u32> {
        match self.then {
            Then::Waits(restart) | Then::Runs(restart, _) => Some(restart),
            Then::Failed(_) => None,
        }
    }

    /// What there is to say of it.
    pub(crate) fn words(&self) -> String {
        let Self { container, exit_code, .. } = self;
        let mut words = match self.then {
            Then::Waits(restart) => format!(
                "container {container} ends soon after each start (exit code {exit_code}, restart {restart} is next)"
            ),
            Then::Runs(restart, _) => {
                format!("container {container} ends soon after each start (exit code {exit_code}, restart {restart})")
            }
            Then::Failed(_) => format!("container {container} ended soon after its start (exit code {exit_code})"),
        };
        if self.is_left_all_ports() {
            words.push_str(", and is left all ports of its pod this time");
        }
        words.push_str(
            ": if its log says that an address is in use, declare in the template the ports that it listens on (containerPort, or the \
             annotation portlane.dev/app-ports)",
        );
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seconds: u32, then: Then) -> ShortRun {
        ShortRun { container: "app".to_owned(), exit_code: 1, seconds, then }
    }

    #[test]
    fn an_app_that_ended_once_or_ran_for_long_is_none() {
        assert!(!run(1, Then::Waits(1)).is_one(), "it has ended once");
        assert!(run(1, Then::Waits(2)).is_one());
        assert!(!run(1, Then::Runs(1, 0)).is_one());
        assert!(run(1, Then::Failed(0)).is_one(), "there is no other time");
        assert!(run(SHORT, Then::Waits(9)).is_one());
        assert!(!run(SHORT + 1, Then::Waits(9)).is_one());
    }

    #[test]
    fn it_is_left_all_ports_more_and_more_rarely() {
        let left = (0..40).filter(|restart| run(1, Then::Runs(*restart, 0)).is_left_all_ports());
        assert_eq!(left.collect::<Vec<_>>(), [4, 8, 16, 32]);
        assert!(run(1, Then::Waits(4)).is_left_all_ports(), "they are free before it starts");
        assert!(!run(1, Then::Waits(5)).is_left_all_ports(), "it has ended all the same");
    }

    #[test]
    fn it_is_over_when_the_app_has_run_for_longer_than_before() {
        assert!(!run(20, Then::Waits(4)).is_over(1000));
        assert!(!run(20, Then::Runs(4, 1000)).is_over(1030));
        assert!(run(20, Then::Runs(4, 1000)).is_over(1031));
        assert!(!run(20, Then::Failed(1000)).is_over(1600));
        assert!(run(20, Then::Failed(1000)).is_over(1601));
    }
}
