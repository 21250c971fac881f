//! Clusters, contexts, users and namespaces that cannot be used, and outputs that nobody reads.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use harness::{binary, free_port, programs::KubernetesVersion};
use serde_json::{Value, json};

use super::{Output, run};

/// Every command that needs a cluster.
const COMMANDS: [&[&str]; 12] = [
    &["status"],
    &["describe", "db"],
    &["logs", "db"],
    &["conns"],
    &["lag"],
    &["config", "db"],
    &["top", "--once"],
    &["ui"],
    &["drain", "pod/db", "--yes"],
    &["trace", "db", "--from", "app"],
    &["forward", "pod/db", "80"],
    &["run", "5432:db.example.com:5432"],
];

/// A command fails with this part of one line, and prints nothing else.
#[track_caller]
fn one_line(kubeconfig: &Path, words: &[&str], part: &str) {
    let Output { text, errors, code } = run(kubeconfig, words);
    assert_eq!((text.as_str(), code), ("", Some(2)), "{words:?}: {errors}");
    assert!(errors.starts_with("error: ") && errors.lines().count() == 1, "{words:?}: {errors}");
    assert!(errors.contains(part), "{words:?}: {part} is not in {errors}");
}

/// The kubeconfig of an administrator.
fn read(kubeconfig: &Path) -> Value {
    let text = fs::read_to_string(kubeconfig).expect("a kubeconfig");
    serde_yaml::from_str(&text).expect("YAML")
}

fn write(kubeconfig: &Value, to: PathBuf) -> PathBuf {
    fs::write(&to, kubeconfig.to_string()).expect("a kubeconfig");
    to
}

#[test]
fn every_command_names_the_kubeconfig_or_the_context_that_cannot_be_used() {
    let Some(server) = crate::server::shared(KubernetesVersion::Newest) else { return };
    let kubeconfig = read(server.kubeconfig());
    let context = kubeconfig["current-context"].as_str().expect("a context");
    let misspelt = format!("{context}x");
    let part = format!("the kubeconfig has no context {misspelt}; did you mean {context}?");
    for words in COMMANDS {
        one_line(Path::new("/nosuch"), words, "cannot use the kubeconfig");
        one_line(server.kubeconfig(), &[words, &["--context", &misspelt]].concat(), &part);
    }
    one_line(server.kubeconfig(), &["status", "--context", "nosuch"], "nosuch");
}

#[test]
fn every_command_names_the_api_server_that_cannot_be_reached_or_refuses_the_user() {
    let Some(server) = crate::server::shared(KubernetesVersion::Newest) else { return };
    let folder = tempfile::tempdir().expect("folder");
    let (mut nowhere, mut stranger) = (read(server.kubeconfig()), read(server.kubeconfig()));
    let address = format!("https://127.0.0.1:{}", free_port());
    nowhere["clusters"][0]["cluster"]["server"] = json!(address);
    stranger["users"][0]["user"] = json!({"token": "nobody"});
    let nowhere = write(&nowhere, folder.path().join("nowhere"));
    let stranger = write(&stranger, folder.path().join("stranger"));
    let unreachable = format!("cannot reach the API server at {address} (is the context right?)");
    for words in COMMANDS {
        one_line(&nowhere, words, &unreachable);
        one_line(&stranger, words, "does not accept the credentials of the kubeconfig");
    }
}

#[test]
fn a_namespace_that_does_not_exist_is_named_with_the_nearest_that_does() {
    let Some(server) = crate::server::shared(KubernetesVersion::Newest) else { return };
    // `run` needs no namespace, `config` no object but a pod, and `trace` reports on what it finds.
    for words in COMMANDS.into_iter().filter(|words| !["run", "config", "ui", "trace"].contains(&words[0])) {
        let words = [words, &["-n", "defalt"]].concat();
        one_line(server.kubeconfig(), &words, "namespace defalt does not exist; did you mean default?");
    }
}

#[test]
fn a_forward_that_does_not_exist_is_named_with_the_nearest_that_does() {
    let Some(server) = crate::server::shared(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("kubectl-nearest");
    namespace.apply(crate::FORWARD);
    let part = format!("PortForward {}/dbb does not exist; did you mean db?", namespace.name());
    for words in [
        &["describe", "dbb"][..],
        &["logs", "dbb"],
        &["conns", "dbb"],
        &["lag", "dbb"],
        &["ui", "dbb"],
        &["drain", "dbb", "--yes"],
        &["trace", "dbb", "--from", "app"],
        &["forward", "pf/dbb"],
    ] {
        one_line(server.kubeconfig(), &[words, &["-n", namespace.name()]].concat(), &part);
    }
}

#[test]
fn a_report_that_nobody_reads_is_no_crash() {
    let Some(server) = crate::server::shared(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("kubectl-unread");
    for format in ["text", "wide", "json", "yaml"] {
        let nobody = Stdio::from(io::pipe().expect("a pipe").1);
        let mut command = Command::new(binary("kubectl-portlane"));
        command.env("KUBECONFIG", server.kubeconfig()).args(["status", "-n", namespace.name(), "-o", format]);
        let status = command.stdout(nobody).status().expect("the plugin runs");
        // What the installation is like depends on other tests.
        assert!(matches!(status.code(), Some(0 | 1 | 3)), "{format}: {status}");
    }
}
