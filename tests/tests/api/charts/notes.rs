//! What helm prints after an installation (`NOTES.txt`): its commands can be pasted into a shell, and the first forward
//! is one that the installation serves, whatever the values are.

use std::{collections::BTreeSet, fs, process::Command, sync::LazyLock};

use harness::{CHARTS, CommandOutput, ControlPlane, OPERATOR};
use serde_json::Value;
use tempfile::TempDir;

use super::{Document, cases, checkout, render_in};

on_both!(the_api_server_accepts_the_first_forward_of_every_case);

/// Values, and where the notes put the first forward: its namespace, and its placement. Empty: nowhere.
const FIRST: &[(&str, &str, &str)] = &[
    ("{}", "default", "gateway"),
    ("{controllerClass: '7'}", "default", "gateway"),
    ("{watchNamespaces: [shop, blog]}", "shop", "gateway"),
    ("{gateways: {namespaces: [edge]}, controllerClass: blue}", "edge", "gateway"),
    ("{watchNamespaces: [shop, edge], gateways: {namespaces: [edge]}, injection: {enabled: false}}", "edge", "gateway"),
    ("{gateways: {enabled: false}}", "default", "sidecar"),
    ("{gateways: {enabled: false}, controllerClass: '7'}", "default", "sidecar"),
    ("{gateways: {enabled: false}, injection: {excludedNamespaces: [default]}}", "portlane-example", "sidecar"),
    ("{gateways: {enabled: false}, watchNamespaces: [portlane, shop]}", "shop", "sidecar"),
    ("{gateways: {enabled: false}, watchNamespaces: [portlane]}", "", ""),
    ("{gateways: {enabled: false}, injection: {enabled: false}}", "", ""),
];

/// A template that renders the notes as an object.
const PRINTED: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: printed}
data:
  notes: {{ include (print .Template.BasePath \"/NOTES.txt\") . | toJson }}
";

/// A copy of the chart with the template [`PRINTED`]: helm prints notes only when it installs.
struct Printer(TempDir);

impl Printer {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let copy = folder.path().join("portlane");
        CommandOutput::of(Command::new("cp").arg("-r").arg(checkout(CHARTS[1])).arg(&copy), "").ok();
        fs::write(copy.join("templates/printed.yaml"), PRINTED).expect("the file is written");
        Self(folder)
    }

    /// The notes with these values, on a cluster that has the CRDs.
    fn notes(&self, values: &str) -> String {
        let chart = self.0.path().join("portlane").display().to_string();
        let served = ["--api-versions", "portlane.dev/v1alpha1/PortForward"];
        let only = ["--show-only", "templates/printed.yaml", "--values", "-"];
        let printed = render_in(OPERATOR, &chart, &[&served[..], &only[..]].concat(), values).ok();
        let object: Value = serde_yaml::from_str(&printed).expect("YAML");
        object["data"]["notes"].as_str().expect("notes").to_owned()
    }
}

/// A kubectl command of the notes: its arguments, and the text on its standard input.
type Printed = (Vec<String>, String);

/// The kubectl commands of the notes, as a shell reads the pasted lines.
#[track_caller]
fn commands(notes: &str) -> Vec<Printed> {
    let (mut commands, mut lines) = (Vec::new(), notes.lines());
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("kubectl ") else {
            assert!(!line.contains("kubectl "), "a command begins its line: {line}");
            continue;
        };
        let words = command.split_whitespace().map(|word| word.trim_matches('\'').to_owned());
        let (mut arguments, mut input): (Vec<String>, String) = (words.collect(), String::new());
        if arguments.last().is_some_and(|last| last == "<<EOF") {
            arguments.pop();
            loop {
                // A shell accepts no space in front of the end.
                let line = lines.next().unwrap_or_else(|| panic!("no line is EOF alone:\n{notes}"));
                if line == "EOF" {
                    break;
                }
                input += line;
                input.push('\n');
            }
        }
        commands.push((arguments, input));
    }
    commands
}

#[test]
fn the_first_forward_of_the_notes_is_one_that_the_installation_serves() {
    let printer = Printer::new();
    for (values, namespace, placement) in FIRST {
        let notes = printer.notes(values);
        let commands = commands(&notes);
        let (rollout, others) = commands.split_first().expect("a command");
        assert_eq!(rollout.0[..2], ["--namespace", OPERATOR], "{values}");
        if namespace.is_empty() {
            assert!(others.is_empty() && notes.contains("NO FORWARD IS POSSIBLE"), "{values}: {notes}");
            continue;
        }
        for (arguments, _) in others {
            let is_there = arguments[..2] == ["--namespace", *namespace];
            assert!(is_there || arguments[..] == ["create", "namespace", *namespace], "{values}: {arguments:?}");
        }
        let class = &serde_yaml::from_str::<Value>(values).expect("YAML")["controllerClass"];
        let (_, manifest) = others.iter().find(|(_, input)| !input.is_empty()).expect("a manifest");
        let objects = Document::all(manifest);
        let forward = objects.iter().find(|it| it.object["kind"] == "PortForward").expect("a forward");
        assert!(forward.object["spec"]["placement"][placement].is_object(), "{values}: {manifest}");
        for document in &objects {
            assert_eq!(&document.object["spec"]["controllerClass"], class, "{values}: {manifest}");
        }
        let patch = others.iter().find_map(|(arguments, _)| arguments.iter().find(|word| word.starts_with('{')));
        assert_eq!(patch.is_some(), *placement == "sidecar", "pods ask for a sidecar with {values}");
        if let Some(patch) = patch {
            let patch: Value = serde_json::from_str(patch).expect("JSON");
            let labels = &patch["spec"]["template"]["metadata"]["labels"];
            assert_eq!(labels["portlane.dev/inject"], "enabled", "{values}");
            assert_eq!(&labels["portlane.dev/controller-class"], class, "{values}");
        }
    }
}

/// What the notes have applied, over all cases.
static APPLIED: LazyLock<BTreeSet<Printed>> = LazyLock::new(|| {
    let printer = Printer::new();
    let files = cases().into_iter().map(|file| fs::read_to_string(file).expect("a file"));
    let values = files.chain(FIRST.iter().map(|(values, ..)| (*values).to_owned()));
    let printed = values.flat_map(|values| commands(&printer.notes(&values)));
    printed.filter(|(_, input)| !input.is_empty()).collect()
});

fn the_api_server_accepts_the_first_forward_of_every_case(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespaces: BTreeSet<&str> = APPLIED.iter().map(|(arguments, _)| arguments[1].as_str()).collect();
    let created: Vec<String> = namespaces
        .iter()
        .filter(|name| **name != "default")
        .map(|name| format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}\n"))
        .collect();
    server.kubectl_with(&["apply", "--server-side", "-f", "-"], &created.join("---\n")).ok();
    for (arguments, manifest) in &*APPLIED {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--dry-run=server"]).collect();
        let output = server.kubectl_with(&arguments, manifest);
        assert!(!output.stderr.contains("Warning"), "{}", output.stderr);
        output.ok();
    }
}
