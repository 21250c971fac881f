//! The findings of `validate`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use kubectl_core::render::Look;
use operator_core::ObjectKey;
use proxy::log::printable;
use serde::Serialize;

use crate::{manifest::Problem, store::Objects};

/// Kinds of objects, in the order of the summary.
const KINDS: [&str; 3] = ["PortForward", "ForwardGateway", "ForwardAgent"];
/// The start of the line that names skipped files and objects.
const SKIPPED: &str = "skipped: ";

/// The report of `validate`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Findings {
    /// Whether nothing is refused.
    pub(super) valid: bool,
    /// Number of objects without a problem, by kind.
    objects: BTreeMap<&'static str, usize>,
    problems: BTreeSet<Problem>,
    warnings: BTreeSet<Problem>,
    /// Options that match no object.
    options: Vec<String>,
    /// Files and objects that are not manifests of Portlane.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
}

impl Findings {
    /// The findings of a translation. `refused` and `warnings` are those of the translation, and `options` those that
    /// match no object.
    pub(super) fn new(
        objects: &Objects,
        gateways: &BTreeSet<ObjectKey>,
        refused: BTreeSet<Problem>,
        warnings: BTreeSet<Problem>,
        options: Vec<String>,
    ) -> Self {
        let mut problems = refused;
        problems.extend(objects.problems.iter().cloned());
        let of_problems: BTreeSet<&str> = problems.iter().filter_map(|problem| problem.object.as_deref()).collect();
        let [forwards, gateways, agents] = [
            valid(KINDS[0], objects.world.forwards.keys(), &of_problems),
            valid(KINDS[1], gateways.iter(), &of_problems),
            valid(KINDS[2], objects.world.agents.all().map(|(key, _)| key), &of_problems),
        ];
        let skipped = objects.left_out.line();
        Self {
            valid: problems.is_empty() && options.is_empty(),
            objects: KINDS.into_iter().zip([forwards, gateways, agents]).filter(|(_, count)| *count > 0).collect(),
            problems,
            warnings,
            options,
            skipped: skipped.map(|line| line.strip_prefix(SKIPPED).unwrap_or(&line).to_owned()),
        }
    }

    /// The numbers of objects without a problem, and of problems.
    fn summary(&self) -> String {
        let count = |kind: &'static str| match self.objects.get(kind) {
            None => None,
            Some(1) => Some(format!("1 {kind} valid")),
            Some(count) => Some(format!("{count} {kind}s valid")),
        };
        let mut parts: Vec<String> = KINDS.into_iter().filter_map(count).collect();
        match self.problems.len() + self.options.len() {
            0 => {}
            1 => parts.insert(0, "1 problem".to_owned()),
            more => parts.insert(0, format!("{more} problems")),
        }
        parts.join(", ")
    }
}

/// The number of objects without a problem.
fn valid<'a>(kind: &str, keys: impl Iterator<Item = &'a ObjectKey>, refused: &BTreeSet<&str>) -> usize {
    keys.filter(|key| !refused.contains(format!("{kind} {key}").as_str())).count()
}

/// The report for people: a line for each problem and warning, and the summary.
pub(super) fn text(findings: &Findings, _: Look) -> String {
    let mut lines: Vec<String> = findings.problems.iter().map(line).collect();
    lines.extend(findings.warnings.iter().map(|warning| format!("{} (warning)", line(warning))));
    lines.extend(findings.options.iter().map(line));
    lines.push(findings.summary());
    lines.extend(findings.skipped.iter().map(|skipped| format!("{SKIPPED}{skipped}")));
    lines.join("\n") + "\n"
}

/// Formats one line: names and values in manifests must neither end it nor send commands to the terminal.
pub(super) fn line(text: &impl Display) -> String {
    printable(&text.to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::Place;

    #[test]
    fn a_program_reads_what_people_read() {
        let place = Place { file: "f.yaml".to_owned(), line: 3 };
        let object = Some("PortForward default/a".to_owned());
        let problem =
            Problem { place, object, field: Some("spec.listeners[0].port".to_owned()), message: "no".to_owned() };
        let findings = Findings {
            valid: false,
            objects: BTreeMap::from([("ForwardGateway", 1), ("PortForward", 2)]),
            problems: BTreeSet::from([problem]),
            warnings: BTreeSet::new(),
            options: vec!["--only b: no such forward".to_owned()],
            skipped: Some("values.yaml".to_owned()),
        };
        let look = Look { is_coloured: false, is_wide: false, width: None };
        let expected = "f.yaml:3: PortForward default/a: spec.listeners[0].port: no\n--only b: no such forward\n\
                        2 problems, 2 PortForwards valid, 1 ForwardGateway valid\nskipped: values.yaml\n";
        assert_eq!(text(&findings, look), expected);
        let problem = json!({"file": "f.yaml", "line": 3, "object": "PortForward default/a",
            "field": "spec.listeners[0].port", "message": "no"});
        let expected = json!({"valid": false, "objects": {"ForwardGateway": 1, "PortForward": 2}, "problems": [problem],
            "warnings": [], "options": ["--only b: no such forward"], "skipped": "values.yaml"});
        assert_eq!(serde_json::to_value(&findings).expect("JSON"), expected);
    }
}
