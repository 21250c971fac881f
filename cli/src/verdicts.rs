//! Verdicts as problems: with the place of the object they are about.

use std::collections::BTreeSet;

use operator::core::{ObjectKey, Outcome, Translation, Verdict};

use crate::{
    manifest::{Place, Problem},
    store::Objects,
};

/// What the translation refused, and what may surprise.
pub(crate) fn problems(objects: &Objects, translation: &Translation) -> (BTreeSet<Problem>, BTreeSet<Problem>) {
    let (mut refused, mut warnings) = (BTreeSet::new(), BTreeSet::new());
    for (key, verdict) in &translation.verdicts {
        let place = objects.places.get(key).cloned().unwrap_or(Place { file: "?".to_owned(), line: 1 });
        let problem = |message: String| Problem {
            place: place.clone(),
            object: Some(format!("PortForward {key}")),
            field: None,
            message,
        };
        refused.extend(messages(verdict).into_iter().map(problem));
        warnings.extend(verdict.warnings.iter().cloned().map(problem));
    }
    (refused, warnings)
}

/// Each thing that is wrong once: the same conflict stands in a listener and in a condition.
fn messages(verdict: &Verdict) -> BTreeSet<String> {
    let mut messages = BTreeSet::new();
    for listener in &verdict.listeners {
        if let Outcome::Refused { reason, message } = &listener.outcome {
            messages.insert(format!("{}: {message}", reason.as_str()));
        }
    }
    for condition in [&verdict.accepted, &verdict.resolved_refs] {
        let counts = !condition.status && !condition.message.starts_with("not looked at");
        if counts {
            messages.insert(format!("{}: {}", condition.reason.as_str(), condition.message));
        }
    }
    messages.extend(verdict.rejected.iter().map(|rejected| format!("PortConflict: {}", rejected.message)));
    messages
}

/// `namespace/name/listener` of a listener.
pub(crate) fn listener_name(key: &ObjectKey, listener: &str) -> String {
    format!("{key}/{listener}")
}
