//! Verdicts of the translation as problems with file and line.

use std::collections::BTreeSet;

use operator_core::{ObjectKey, Outcome, Translation, Verdict, World};

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

/// The objects of a world, as problems name them.
pub(crate) fn names(world: &World) -> BTreeSet<String> {
    let forwards = world.forwards.keys().map(|key| format!("PortForward {key}"));
    forwards.chain(world.gateways.keys().map(|key| format!("ForwardGateway {key}"))).collect()
}

/// The reported problems that were fixed: the object is there and has no problem now, or its file was read and has none.
/// What was removed, or cannot be read any more, is not fixed.
pub(crate) fn fixed<'a>(
    reported: &'a BTreeSet<Problem>,
    now: &'a BTreeSet<Problem>,
    objects: &BTreeSet<String>,
    read: &BTreeSet<String>,
) -> Vec<&'a Problem> {
    let is_fixed = |problem: &&Problem| {
        let file = &problem.place.file;
        let is_flawed = |other: &Problem| other.object.is_none() && other.place.file == *file;
        match &problem.object {
            Some(object) => {
                objects.contains(object)
                    && !now.iter().any(|other| other.object.as_ref() == Some(object) || is_flawed(other))
            }
            None => read.contains(file) && !now.iter().any(|other| other.place.file == *file),
        }
    };
    reported.difference(now).filter(is_fixed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(objects: &[Option<&str>]) -> BTreeSet<Problem> {
        let place = || Place { file: "a.yaml".to_owned(), line: 1 };
        let problem = |object: Option<&str>| Problem {
            place: place(),
            object: object.map(str::to_owned),
            field: None,
            message: "is wrong".to_owned(),
        };
        objects.iter().copied().map(problem).collect()
    }

    #[test]
    fn what_is_removed_or_cannot_be_read_is_not_fixed() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let (object, file) = (problems(&[Some("PortForward a/b")]), problems(&[None]));
        let (there, read) = (names(&["PortForward a/b"]), names(&["a.yaml"]));
        let (clean, none) = (problems(&[]), names(&[]));
        let count = |reported, now, objects, read| fixed(reported, now, objects, read).len();
        assert_eq!(count(&object, &clean, &there, &read), 1);
        assert_eq!(count(&object, &clean, &none, &read), 0, "the object was removed");
        assert_eq!(count(&object, &file, &there, &none), 0, "the file is no longer YAML");
        assert_eq!(count(&object, &object, &there, &read), 0, "the problem is still there");
        assert_eq!(count(&file, &clean, &there, &read), 1);
        assert_eq!(count(&file, &clean, &none, &none), 0, "the file was removed");
        assert_eq!(count(&file, &object, &there, &read), 0, "an object of the file is refused");
    }
}
