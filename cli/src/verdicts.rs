//! Verdicts of the translation as problems with file and line.

use std::collections::BTreeSet;

use operator_core::{ObjectKey, Outcome, Translation, Verdict};

use crate::{
    manifest::{Place, Problem},
    store::Objects,
};

/// Problems that the translation refused, and warnings.
pub(crate) fn problems(objects: &Objects, translation: &Translation) -> (BTreeSet<Problem>, BTreeSet<Problem>) {
    let (mut refused, mut warnings) = (BTreeSet::new(), BTreeSet::new());
    for (origin, verdict) in &translation.verdicts {
        let problem = |listener: Option<usize>, message: String| {
            let place = objects.places.get(&ObjectKey::from(origin));
            let file = place.map_or("?", |place| place.object.file.as_str()).to_owned();
            let line = place.map_or(1, |place| {
                listener.and_then(|at| place.listeners.get(at).copied()).unwrap_or(place.object.line)
            });
            Problem {
                place: Place { file, line },
                object: Some(format!("{} {}/{}", origin.kind.as_str(), origin.namespace, origin.name)),
                field: listener.map(|at| format!("spec.listeners[{at}]")),
                message,
            }
        };
        refused.extend(messages(verdict).into_iter().map(|(message, listener)| problem(listener, message)));
        warnings.extend(verdict.warnings.iter().map(|message| problem(None, message.clone())));
    }
    (refused, warnings)
}

/// Each problem once, with the index of its listener: a conflict is reported both in a listener and in a condition.
fn messages(verdict: &Verdict) -> Vec<(String, Option<usize>)> {
    let mut messages: Vec<(String, Option<usize>)> = Vec::new();
    let mut add = |message: String, listener: Option<usize>| {
        if !messages.iter().any(|(other, _)| *other == message) {
            messages.push((message, listener));
        }
    };
    for (at, listener) in verdict.listeners.iter().enumerate() {
        if let Outcome::Refused { reason, message } = &listener.outcome {
            add(format!("{}: {message}", reason.as_str()), Some(at));
        }
    }
    for rejected in &verdict.rejected {
        let at = verdict.listeners.iter().position(|listener| listener.name == rejected.listener);
        add(format!("PortConflict: {}", rejected.message), at);
    }
    // The backends of a forward that is not accepted are not resolved; that condition only repeats the reason.
    let repeats = !verdict.accepted.status && verdict.resolved_refs.reason == verdict.accepted.reason;
    for (condition, skip) in [(&verdict.accepted, false), (&verdict.resolved_refs, repeats)] {
        if !condition.status && !skip {
            add(format!("{}: {}", condition.reason.as_str(), condition.message), None);
        }
    }
    messages
}
