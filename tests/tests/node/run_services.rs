//! `kubectl portlane run` on a real node: a manifest carries connections while pods are deleted, and Services follow its
//! file.

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
};

use harness::{Namespace, binary, connect, free_port, round_trip, until};
use tempfile::TempDir;

use crate::{
    port_forward::{ECHO, open, pods, replace_pods},
    shared,
};

/// Pods that are deleted, one after the other.
const DELETIONS: usize = 2;

/// Another Service with the same pods.
const OTHER: &str = "apiVersion: v1
kind: Service
metadata: {name: other}
spec:
  selector: {app: echo}
  ports:
  - {name: tcp, port: 80, targetPort: echo}
";

/// The plugin, which runs the manifests of a file. Killed on drop.
struct Program {
    child: Child,
    folder: TempDir,
}

impl Program {
    fn start(namespace: &Namespace<'_>, manifests: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("forwards.yaml");
        fs::write(&path, manifests).expect("a file");
        let log = File::create(folder.path().join("log")).expect("a file");
        let mut command = Command::new(binary("kubectl-portlane"));
        command.env("KUBECONFIG", namespace.cluster().kubeconfig());
        command.args(["run", "--access-log", "off", "-n", namespace.name(), "-f"]).arg(path);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a handle")).stderr(log);
        Self { child: command.spawn().expect("the plugin starts"), folder }
    }

    /// Replaces the manifests at once.
    fn edit(&self, manifests: &str) {
        let draft = self.folder.path().join("draft");
        fs::write(&draft, manifests).expect("a file");
        fs::rename(draft, self.folder.path().join("forwards.yaml")).expect("the file is replaced");
    }

    fn has_logged(&self, text: &str) -> bool {
        fs::read_to_string(self.folder.path().join("log")).expect("a log").contains(text)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A forward from a port of this machine to port 80 of a Service.
fn manifest(protocol: &str, port: u16, service: &str) -> String {
    format!(
        "---
apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {{name: {service}}}
spec:
  placement: {{sidecar: {{selector: {{}}}}}}
  listeners:
  - {{name: l, protocol: {protocol}, port: {port}, backends: [{{service: {{name: {service}, port: 80}}}}]}}
"
    )
}

#[test]
fn a_manifest_leads_to_its_services_while_their_pods_are_replaced() {
    let namespace = shared::cluster().namespace("run-services").for_pods();
    namespace.apply(ECHO);
    namespace.apply(OTHER);
    namespace.kubectl(&["wait", "--for=condition=Available", "deploy/echo", "--timeout=180s"]).ok();
    until("two pods exist", || pods(&namespace).len() == 2);
    let (port, later) = (free_port(), free_port());
    let echo = manifest("TCP", port, "echo");
    let program = Program::start(&namespace, &echo);
    until("a pod answers", || open(port).is_ok());
    let (mut session, spared) = open(port).expect("a session");
    until("both pods have a session", || open(port).is_ok_and(|(_, pod)| pod != spared));
    replace_pods(&namespace, port, &spared, DELETIONS);

    // Services that the file names later are attached, or refused with their names.
    let further =
        [manifest("TCP", later, "other"), manifest("UDP", free_port(), "dns"), manifest("TCP", free_port(), "nosuch")];
    program.edit(&format!("{echo}{}", further.concat()));
    until("the new Service is reached", || open(later).is_ok());
    let name = namespace.name();
    for why in [
        format!("Service {name}/dns, port 80/UDP: the API server forwards TCP only"),
        format!("Service {name}/nosuch does not exist"),
    ] {
        until(&why, || program.has_logged(&why));
    }

    // A Service that the file no longer names is released, and sessions of the others continue.
    program.edit(&echo);
    until("the port of the removed forward is closed", || connect(later).is_err());
    assert_eq!(round_trip(&mut session, b"still here").expect("the session continues"), b"still here");
}
