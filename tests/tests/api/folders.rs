//! Folders, links and streams: `portlane validate` reads the objects that `kubectl apply` reads.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{CommandOutput, ControlPlane, Namespace, binary};
use tempfile::TempDir;

on_both!(validate_reads_the_objects_that_kubectl_applies);

/// A forward on a port from which `validate` names every valid forward in a warning.
fn forward(name: &str, number: u16) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, spec: {{placement: \
         {{sidecar: {{selector: {{}}}}}}, listeners: [{{name: l, protocol: TCP, port: {}, backends: [{{local: {{port: \
         80}}}}]}}]}}}}\n",
        40_000 + number
    )
}

/// A folder with files of every kind, each with a forward that has the name of its file, and its path.
fn folder() -> (TempDir, PathBuf) {
    let outside = tempfile::tempdir().expect("folder");
    let folder = outside.path().join("manifests");
    let write = |path: &Path, name: &str, number: u16| fs::write(path, forward(name, number)).expect("write");
    for subfolder in [folder.join("sub/deeper"), outside.path().join("elsewhere")] {
        fs::create_dir_all(subfolder).expect("folder");
    }
    let files = [
        ("yaml.yaml", "yaml"),
        ("yml.yml", "yml"),
        (".hidden.yaml", "hidden"),
        ("text.txt", "text"),
        ("backup.yaml~", "backup"),
        ("capitals.YAML", "capitals"),
        ("none", "none"),
        ("sub/sub.yaml", "sub"),
        ("sub/deeper/deeper.yml", "deeper"),
        ("../target.yaml", "target"),
        ("../elsewhere/elsewhere.yaml", "elsewhere"),
    ];
    for (number, (file, name)) in (0..).zip(files) {
        write(&folder.join(file), name, number);
    }
    let json = "{\"apiVersion\": \"portlane.dev/v1alpha1\", \"kind\": \"PortForward\", \"metadata\": {\"name\": \
                \"json\"}, \"spec\": {\"placement\": {\"sidecar\": {\"selector\": {}}}, \"listeners\": [{\"name\": \
                \"l\", \"protocol\": \"TCP\", \"port\": 40100, \"backends\": [{\"local\": {\"port\": 80}}]}]}}";
    fs::write(folder.join("json.json"), json).expect("write");
    symlink(outside.path().join("target.yaml"), folder.join("link.yaml")).expect("link");
    symlink(outside.path().join("elsewhere"), folder.join("linked")).expect("link");
    (outside, folder)
}

/// The forwards that kubectl applies.
fn applied(namespace: &Namespace<'_>, source: &[&str], input: &str) -> BTreeSet<String> {
    let apply = ["apply", "--dry-run=server", "-o", "name"];
    let printed = namespace.kubectl_with(&[&apply[..], source].concat(), input).ok();
    let name = |line: &str| line.rsplit('/').next()?.split_whitespace().next().map(str::to_owned);
    printed.lines().filter_map(name).collect()
}

/// The forwards that the validator reads.
fn validated(source: &[&str], input: &str) -> BTreeSet<String> {
    let mut command = Command::new(binary("portlane"));
    let printed = CommandOutput::of(command.arg("validate").args(source), input).ok();
    let name = |line: &str| line.split_once("PortForward default/")?.1.split(':').next().map(str::to_owned);
    printed.lines().filter_map(name).collect()
}

fn validate_reads_the_objects_that_kubectl_applies(server: &ControlPlane) {
    let namespace = server.namespace("folders");
    let (_outside, folder) = folder();
    let path = folder.to_str().expect("a path in Unicode");
    let list = format!("apiVersion: v1\nkind: List\nitems:\n- {}- {}", forward("one", 1), forward("two", 2));
    let stream = format!("---\n# nothing\n---\n{}---\n{list}", forward("first", 0));
    for (source, input, expected) in [
        (&["-f", path][..], "", &["hidden", "json", "target", "yaml", "yml"][..]),
        (&["-R", "-f", path][..], "", &["deeper", "hidden", "json", "sub", "target", "yaml", "yml"][..]),
        (&["-f", "-"][..], stream.as_str(), &["first", "one", "two"][..]),
    ] {
        let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(applied(&namespace, source, input), expected, "kubectl reads {source:?}");
        assert_eq!(validated(source, input), expected, "portlane reads {source:?}");
    }
}
