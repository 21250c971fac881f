//! What a person looks at after a failed wait: the object, its events, the logs that matter.

use std::fs;

use super::Namespace;
use crate::{cluster::tail, kubernetes::cluster::Own};

/// Lines of each log.
const LINES: usize = 20;

pub(in crate::kubernetes) fn of(namespace: &Namespace<'_>, kind: &str, name: &str) -> String {
    let mut text = String::new();
    let mut part = |title: &str, body: &str| {
        if !body.trim().is_empty() {
            text += &format!("--- {title}\n{}\n", body.trim_end());
        }
    };
    let ask = |arguments: &[&str]| {
        let output = namespace.kubectl(arguments);
        format!("{}{}", output.stdout, output.stderr)
    };
    part("the object", &ask(&["get", kind, name, "--output=yaml"]));
    part("everything in the namespace", &ask(&["get", "all,portlane", "--output=wide"]));
    part("events", &ask(&["events"]));
    let lines = format!("--tail={LINES}");
    for pod in ask(&["get", "pods", "--output=name"]).lines().filter(|line| line.starts_with("pod/")) {
        part(&format!("logs of {pod}"), &ask(&["logs", pod, "--all-containers", "--prefix", &lines]));
    }
    if let Some(Own { held, folder }) = &namespace.cluster().own {
        for component in ["kubelet", "kube-controller-manager", "kube-apiserver"] {
            let log = folder.logs().join(format!("{component}.log"));
            part(&format!("the end of {}", log.display()), &tail(&log, LINES).unwrap_or_default());
        }
        part("the cluster failed", &held.failure().unwrap_or_default());
        let logs = fs::read_dir(folder.logs()).into_iter().flatten().flatten().count();
        part("all logs", &format!("{logs} files in {}", folder.logs().display()));
    }
    text
}
