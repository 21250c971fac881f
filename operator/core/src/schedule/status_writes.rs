//! Classifies the results of status writes: which of them are retried, and which are logged.

use super::is_outdated;

/// The outcome of a status write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The object has the status.
    Written,
    /// The object is gone or was recreated. The watch reports the current one.
    Outdated,
    /// The write failed, and has to be retried.
    Failed,
}

impl Outcome {
    /// Classifies an answer of the API server. `Err` has the status code of a failure, if there was an answer.
    #[must_use]
    pub const fn of(answer: Result<(), Option<u16>>) -> Self {
        match answer {
            Ok(()) => Self::Written,
            Err(code) if is_outdated(code) => Self::Outdated,
            Err(_) => Self::Failed,
        }
    }

    /// The name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Outdated => "outdated",
            Self::Failed => "failed",
        }
    }
}

/// A change that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Writes have begun to fail.
    Fail,
    /// Writes succeed again.
    Succeed,
}

/// The log state of status writes: whether they fail.
#[derive(Debug, Default)]
pub struct StatusWrites {
    are_failing: bool,
}

impl StatusWrites {
    /// Records the outcome of a write. A failure is logged once: without an API server there would be a line for every
    /// forward. An outdated write says nothing about others.
    pub fn ended(&mut self, outcome: Outcome) -> Option<News> {
        let (are_failing, news) = match outcome {
            Outcome::Written => (false, News::Succeed),
            Outcome::Outdated => return None,
            Outcome::Failed => (true, News::Fail),
        };
        (std::mem::replace(&mut self.are_failing, are_failing) != are_failing).then_some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_outdated_if_the_api_server_says_that_its_object_is_another_one_and_else_it_failed() {
        assert_eq!(Outcome::of(Ok(())), Outcome::Written);
        assert_eq!([404, 409].map(|code| Outcome::of(Err(Some(code)))), [Outcome::Outdated; 2]);
        assert_eq!([Some(403), Some(500), None].map(|code| Outcome::of(Err(code))), [Outcome::Failed; 3]);
        let names = [Outcome::Written, Outcome::Outdated, Outcome::Failed].map(Outcome::name);
        assert_eq!(names, ["written", "outdated", "failed"], "docs and dashboards have these names");
    }

    #[test]
    fn the_first_failure_and_the_first_success_after_it_are_logged() {
        let mut writes = StatusWrites::default();
        for (outcome, news) in [
            (Outcome::Written, None),
            (Outcome::Failed, Some(News::Fail)),
            (Outcome::Failed, None),
            (Outcome::Outdated, None),
            (Outcome::Failed, None),
            (Outcome::Written, Some(News::Succeed)),
            (Outcome::Written, None),
            (Outcome::Failed, Some(News::Fail)),
        ] {
            assert_eq!(writes.ended(outcome), news, "{outcome:?}");
        }
    }
}
