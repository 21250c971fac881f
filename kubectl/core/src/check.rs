//! A check of one subject, and its result.

use serde::Serialize;

use crate::access::Unknown;

/// The result of a check, better ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Outcome {
    /// The subject is as it should be.
    Ok,
    /// The subject works, but deserves attention.
    Warning,
    /// The subject could not be read.
    Unknown,
    /// The subject does not work.
    Failed,
}

/// A check, or one item of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The checked subject.
    pub name: String,
    /// The result.
    pub outcome: Outcome,
    /// The finding, in a sentence.
    pub detail: String,
    /// The next step, if there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    /// A check with this result and nothing to do.
    pub fn new(name: impl Into<String>, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { name: name.into(), outcome, detail: detail.into(), hint: None }
    }

    /// A check without a problem.
    pub fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Outcome::Ok, detail)
    }

    /// A check of a subject that deserves attention.
    pub fn warning(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Outcome::Warning, detail)
    }

    /// A check of a subject that does not work.
    pub fn failed(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Outcome::Failed, detail)
    }

    /// A check whose objects could not be read.
    pub fn unknown(name: impl Into<String>, why: &Unknown) -> Self {
        Self::new(name, Outcome::Unknown, why.to_string())
    }

    /// Adds a next step to the check.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The worst of the results; `Ok` of none.
pub fn worst(outcomes: impl IntoIterator<Item = Outcome>) -> Outcome {
    outcomes.into_iter().max().unwrap_or(Outcome::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_result_is_what_does_not_work_and_then_what_is_not_known() {
        let (ok, warning, unknown, failed) = (Outcome::Ok, Outcome::Warning, Outcome::Unknown, Outcome::Failed);
        for (outcomes, expected) in [
            (vec![], ok),
            (vec![ok, ok], ok),
            (vec![warning, ok], warning),
            (vec![warning, unknown], unknown),
            (vec![failed, unknown, ok], failed),
        ] {
            assert_eq!(worst(outcomes.clone()), expected, "{outcomes:?}");
        }
    }
}
