//! Conditions of the Kubernetes API conventions: a finding gets its time, which moves only with the condition's status.

use crds::Condition as StatusCondition;

use crate::translate::verdict::Condition;

/// A condition before it has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its type.
    pub type_: &'static str,
    /// True, False or Unknown.
    pub status: &'static str,
    /// Why, one word.
    pub reason: String,
    /// Why, and what to do.
    pub message: String,
}

impl Finding {
    /// One finding.
    #[must_use]
    pub fn new(type_: &'static str, status: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { type_, status, reason: reason.to_owned(), message: message.into() }
    }

    pub(crate) fn of(type_: &'static str, condition: &Condition) -> Self {
        let status = if condition.status { "True" } else { "False" };
        Self::new(type_, status, condition.reason.as_str(), condition.message.clone())
    }
}

/// Gives findings their times: `lastTransitionTime` moves only with `status`. `now` is RFC 3339.
#[must_use]
pub fn conditions(
    old: &[StatusCondition],
    findings: Vec<Finding>,
    generation: Option<i64>,
    now: &str,
) -> Vec<StatusCondition> {
    let told = |finding: Finding| {
        let before = old.iter().find(|old| old.type_ == finding.type_ && old.status == finding.status);
        StatusCondition {
            type_: finding.type_.to_owned(),
            status: finding.status.to_owned(),
            observed_generation: generation,
            last_transition_time: before.map_or_else(|| now.to_owned(), |before| before.last_transition_time.clone()),
            reason: finding.reason,
            message: finding.message.chars().take(4096).collect(),
        }
    };
    findings.into_iter().map(told).collect()
}
