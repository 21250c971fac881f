//! Verdicts of the translation as problems with file and line.

use std::collections::BTreeSet;

use crds::PortForward;
use operator_core::{ObjectKey, Outcome, Reason, Translation, Verdict, Violation, World, validate};

use crate::{
    manifest::{Place, Problem},
    store::Objects,
};

/// The part of a listener that a message is about, by the start of the message.
const PARTS: [(&str, &str); 8] = [
    ("port ", ".port"),
    ("hostname ", ".tls.hostnames"),
    ("healthCheck.tcp ", ".healthCheck.tcp"),
    ("policy ", ".loadBalancing.policy"),
    ("backend ", ".backends"),
    ("no backend ", ".backends"),
    ("priority ", ".backends"),
    ("weight ", ".backends"),
];

/// The invalid field, if there is one, and the message.
type Finding = (Option<String>, String);

/// Problems that the translation refused, and all warnings.
pub(crate) fn problems(objects: &Objects, translation: &Translation) -> (BTreeSet<Problem>, BTreeSet<Problem>) {
    let (mut refused, mut warnings) = (BTreeSet::new(), objects.warnings.clone());
    for (origin, verdict) in &translation.verdicts {
        let key = ObjectKey::from(origin);
        let (place, forward) = (objects.places.get(&key), objects.world.forwards.get(&key).map(|forward| &**forward));
        let problem = |(field, message): Finding| {
            let file = place.map_or("?", |place| place.file.as_str()).to_owned();
            let line = place.map_or(1, |place| place.lines.find(field.as_deref().unwrap_or_default()));
            let object = Some(format!("{} {}/{}", origin.kind.as_str(), origin.namespace, origin.name));
            Problem { place: Place { file, line }, object, field, message }
        };
        refused.extend(findings(verdict, forward).into_iter().map(problem));
        warnings.extend(verdict.warnings.iter().map(|text| problem((concerned(forward, text), text.clone()))));
    }
    (refused, warnings)
}

/// Returns each problem once, with its field: a conflict is reported both in a listener and in a condition.
fn findings(verdict: &Verdict, forward: Option<&PortForward>) -> Vec<Finding> {
    let violations = violations(verdict, forward);
    let is_accepted = verdict.accepted.status || !violations.is_empty();
    let mut findings: Vec<Finding> = violations.into_iter().map(of_violation).collect();
    let mut add = |field: Option<String>, message: String| {
        if !findings.iter().any(|(_, other)| *other == message) {
            findings.push((field, message));
        }
    };
    let path = |at: usize| format!("spec.listeners[{at}]");
    for (at, listener) in verdict.listeners.iter().enumerate() {
        if let Outcome::Refused { reason, message } = &listener.outcome {
            add(Some(path(at)), format!("{}: {message}", reason.as_str()));
        }
    }
    for rejected in &verdict.rejected {
        let at = verdict.listeners.iter().position(|listener| listener.name == rejected.listener);
        add(at.map(path), format!("PortConflict: {}", rejected.message));
    }
    // The backends of a forward that is not accepted are not resolved; that condition only repeats the reason.
    let repeats = !verdict.accepted.status && verdict.resolved_refs.reason == verdict.accepted.reason;
    let is_resolved = verdict.resolved_refs.status || repeats;
    for (condition, is_met) in [(&verdict.accepted, is_accepted), (&verdict.resolved_refs, is_resolved)] {
        if !is_met {
            let message = format!("{}: {}", condition.reason.as_str(), condition.message);
            add(concerned(forward, &condition.message), message);
        }
    }
    findings
}

/// The rules that the forward violates. The condition has all of them in one message.
fn violations(verdict: &Verdict, forward: Option<&PortForward>) -> Vec<Violation> {
    let invalid = forward.filter(|_| !verdict.accepted.status && verdict.accepted.reason == Reason::Invalid);
    invalid.and_then(|forward| validate(forward).err()).unwrap_or_default()
}

fn of_violation(violation: Violation) -> Finding {
    let message = format!("{}: {}", Reason::Invalid.as_str(), violation.message);
    (Some(violation.field), message)
}

/// The field that a message of the translation is about: a part of the listener that the message names.
fn concerned(forward: Option<&PortForward>, message: &str) -> Option<String> {
    let name = message.split_once("listener '")?.1.split('\'').next()?;
    let at = forward?.spec.listeners.iter().position(|listener| listener.name == name)?;
    let part = PARTS.iter().find(|(beginning, _)| message.starts_with(*beginning)).map_or("", |(_, part)| *part);
    Some(format!("spec.listeners[{at}]{part}"))
}

/// The identities of the objects of a world, as in problems.
pub(crate) fn names(world: &World) -> BTreeSet<String> {
    let forwards = world.forwards.keys().map(|key| format!("PortForward {key}"));
    let gateways = world.gateways.keys().map(|key| format!("ForwardGateway {key}"));
    let agents = world.agents.all().map(|(key, _)| format!("ForwardAgent {key}"));
    forwards.chain(gateways).chain(agents).collect()
}

/// The reported problems that were fixed: the object exists and has no problem now, or its file was read and has none.
/// Problems of objects that were removed, or cannot be read any more, are not fixed.
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
    use operator_core::translate;

    use super::*;
    use crate::{
        admission::Admission,
        manifest::{FileChange, parse},
        store::Store,
        world,
    };

    const FORWARD: &str = "apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {name: a}
spec:
  placement: {sidecar: {selector: {}}}
  listeners:
  - name: l
    protocol: TCP
    port: 40000
    backends:
    - weight: 2
      address:
        host: db
        port: 3306
    healthCheck:
      tcp: {}
";

    /// The problems and warnings of a file, as `validate` prints them.
    fn validated(text: &str) -> Vec<String> {
        let mut store = Store::default();
        let documents = FileChange::Documents(parse("f", text).expect("YAML"));
        store.take(&Admission::new().expect("rules"), "f", documents, "default");
        let mut objects = store.objects(&[], &BTreeSet::new());
        objects.world = world::any_cluster(std::mem::take(&mut objects.world));
        let (refused, warnings) = super::problems(&objects, &translate(&objects.world));
        refused.iter().chain(&warnings).map(ToString::to_string).collect()
    }

    #[track_caller]
    fn assert_begin(found: &[String], expected: &[&str]) {
        let fit = found.iter().zip(expected).all(|(line, beginning)| line.starts_with(beginning));
        assert!(fit && found.len() == expected.len(), "{expected:#?} do not begin {found:#?}");
    }

    #[test]
    fn what_is_refused_or_warned_of_has_the_line_of_its_field() {
        let warnings = [
            "f:9: PortForward default/a: spec.listeners[0].port: port 40000 of listener 'l' is in the ephemeral range",
            "f:10: PortForward default/a: spec.listeners[0].backends: weight 2 in listener 'l' has no effect",
            "f:16: PortForward default/a: spec.listeners[0].healthCheck.tcp: healthCheck.tcp of listener 'l' connects",
        ];
        assert_begin(&validated(FORWARD), &warnings);
        let scaled = "  autoscaling:
    targetRef: {kind: Deployment, name: a}
    maxReplicas: 3
    targetConnectionsPerPod: 1
    behavior:
      scaleDown: {selectPolicy: Mix}
";
        let found = validated(&[FORWARD, scaled].concat());
        let line = "f:22: PortForward default/a: spec.autoscaling.behavior.scaleDown.selectPolicy: must be one of Max";
        assert!(found.len() == 4 && found.iter().any(|warning| warning.starts_with(line)), "{found:#?}");
        let refused = [
            "f:13: PortForward default/a: spec.listeners[0].backends[0].address.host: Invalid: 'fe80::1' is a link-local",
        ];
        assert_begin(&validated(&FORWARD.replace("host: db", "host: fe80::1")), &refused);
    }

    #[test]
    fn a_tunnel_backend_needs_an_agent_of_the_manifests_that_lists_its_target() {
        let forward = "apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {name: a}
spec:
  placement: {sidecar: {selector: {}}}
  listeners:
  - name: l
    protocol: TCP
    port: 5432
    backends: [{tunnel: {agent: home, host: 127.0.0.1, port: 5432}}]
";
        let agent = |port: &str| {
            format!(
                "---\napiVersion: portlane.dev/v1alpha1\nkind: ForwardAgent\nmetadata: {{name: home}}\n\
                 spec: {{targets: [{{host: 127.0.0.1, port: {port}}}]}}\n"
            )
        };
        let later = "f:10: PortForward default/a: spec.listeners[0].backends: backend agent/home/127.0.0.1:5432 of \
                     listener 'l' works with portlane run only";
        let missing = "f:7: PortForward default/a: spec.listeners[0]: BackendNotFound: ForwardAgent default/home is not \
                       among the manifests: add it, with {host: 127.0.0.1, port: 5432} in its spec.targets";
        assert_begin(&validated(forward), &[missing, later]);
        let unlisted = "f:7: PortForward default/a: spec.listeners[0]: AddressNotAllowed: ForwardAgent default/home does \
                        not list 127.0.0.1:5432: add {host: 127.0.0.1, port: 5432} to its spec.targets";
        assert_begin(&validated(&(forward.to_owned() + &agent("22"))), &[unlisted, later]);
        assert_begin(&validated(&(forward.to_owned() + &agent("5000, endPort: 6000"))), &[later]);
        let placed = forward.replace("{sidecar: {selector: {}}}", "{gateway: {name: edge}}");
        let of_edge = agent("5432").replace("{targets:", "{gateway: {name: edge}, targets:");
        assert_begin(&validated(&(placed.clone() + &of_edge)), &[]);
        assert_begin(&validated(&(forward.to_owned() + &of_edge)), &[]);
        assert_begin(&validated(&(placed + &agent("5432"))), &[later]);
    }

    #[test]
    fn a_durable_listener_is_as_good_in_a_cluster_as_another() {
        let durable = FORWARD.to_owned() + "    durable: {send: {relp: {}}}\n";
        assert_eq!(validated(&durable), validated(FORWARD));
    }

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
