//! Log lines about listeners that do not run as configured.

use std::collections::BTreeSet;

use proxy_api::ListenerId;

use super::notices::notice;
use crate::{
    core::changes::failures::{self, Failures},
    log::{Level, Notice},
};

/// Returns a notice for each new failure, and names the listeners whose failure has changed or ended.
pub(super) fn changes(before: &Failures, now: &Failures, named: &mut BTreeSet<ListenerId>) -> Vec<Notice> {
    let mut notices = Vec::new();
    for (id, failure) in failures::changes(before, now) {
        if let Some(failure) = failure {
            let serving = if failure.serving.is_some() { "; the previous version keeps serving" } else { "" };
            notices.push(notice(Level::Error, "failed", id, format!("{}{serving}", failure.message)));
        }
        named.insert(id.clone());
    }
    notices
}

#[cfg(test)]
mod tests {
    use proxy_api::{Failure, FailureReason, Revision};

    use super::*;
    use crate::supervisor::fixtures::id;

    #[test]
    fn a_failure_is_logged_with_what_keeps_serving_and_its_end_is_not_logged() {
        let failure = |serving| Failure { reason: FailureReason::BindFailed, message: "no port".to_owned(), serving };
        let now = Failures::from([(id("a"), failure(None)), (id("b"), failure(Some(Revision("before".into()))))]);
        let mut named = BTreeSet::new();
        let messages: Vec<String> =
            changes(&Failures::new(), &now, &mut named).into_iter().map(|notice| notice.message).collect();
        assert_eq!(messages, ["no port", "no port; the previous version keeps serving"]);
        let both = BTreeSet::from([id("a"), id("b")]);
        assert_eq!(std::mem::take(&mut named), both);
        assert!(changes(&now, &Failures::new(), &mut named).is_empty());
        assert_eq!(named, both, "their entries in the report change");
    }
}
