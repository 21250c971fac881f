//! The operator as a process beside an API server, and proxies with the tokens of Pods, as kubelet would give them.

use std::{path::PathBuf, process::Command};

use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::json;

use super::Namespace;
use crate::{Program, binary, free_port, until};

/// An operator for one namespace: it watches that namespace only, and has its Lease and roots there.
pub struct Operator {
    /// The process.
    pub program: Program,
    /// Where it serves health and metrics.
    pub health: u16,
    /// Where proxies connect.
    pub stream: u16,
    /// Where API servers ask about pods.
    pub webhook: u16,
}

impl Operator {
    /// Starts one and waits until it is ready.
    #[track_caller]
    pub fn start(namespace: &Namespace<'_>) -> Self {
        Self::named(namespace, "operator", free_port())
    }

    /// The same with more options.
    #[track_caller]
    pub fn with(namespace: &Namespace<'_>, options: &[&str]) -> Self {
        Self::launch(namespace, "operator", free_port(), options)
    }

    /// The same with a name of its own and the address that proxies know.
    #[track_caller]
    pub fn named(namespace: &Namespace<'_>, name: &str, stream: u16) -> Self {
        Self::launch(namespace, name, stream, &[])
    }

    /// One more, while another one leads.
    #[track_caller]
    pub fn standby(namespace: &Namespace<'_>, options: &[&str]) -> Self {
        Self::launch(namespace, "standby", free_port(), options)
    }

    #[track_caller]
    fn launch(namespace: &Namespace<'_>, name: &str, stream: u16, options: &[&str]) -> Self {
        let (health, webhook) = (free_port(), free_port());
        let mut command = Command::new(binary("portlane-operator"));
        command.env("KUBECONFIG", namespace.cluster().kubeconfig());
        command.args(["--namespace", namespace.name(), "--watch-namespaces", namespace.name(), "--pod", name]);
        command.args(["--health-address", &format!("127.0.0.1:{health}")]);
        command.args([
            "--stream-address",
            &format!("127.0.0.1:{stream}"),
            "--operator",
            &format!("127.0.0.1:{stream}"),
        ]);
        command.args(["--webhook-address", &format!("127.0.0.1:{webhook}")]);
        command.args(options);
        let program = Program::start(command, tempfile::tempdir().expect("folder"));
        until("the operator is ready", || crate::http_get(health, "/readyz").is_ok_and(|(status, _)| status == 200));
        Self { program, health, stream, webhook }
    }

    /// The value of one of its series; 0 if it has none yet.
    pub fn metric(&self, series: &str) -> f64 {
        let (_, text) = crate::http_get(self.health, "/metrics").expect("metrics");
        crate::metric(&text, series).unwrap_or(0.0)
    }
}

/// A Pod that no kubelet runs, whose proxy is a process here.
pub struct FleetPod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl FleetPod {
    /// A Pod of a gateway's fleet; its `ServiceAccount` is there once the operator has made it.
    #[track_caller]
    pub fn of_gateway(namespace: &Namespace<'_>, gateway: &str, name: &str) -> Self {
        until("the operator has made the ServiceAccount", || {
            namespace.kubectl(&["get", "serviceaccount", gateway]).success
        });
        let labels = json!({"portlane.dev/proxy": "gateway", "portlane.dev/gateway": gateway});
        Self::create(namespace, name, gateway, &labels)
    }

    /// A Pod with these labels.
    #[track_caller]
    pub fn create(namespace: &Namespace<'_>, name: &str, account: &str, labels: &serde_json::Value) -> Self {
        namespace.apply(
            &json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": labels},
                "spec": {
                    "serviceAccountName": account,
                    "automountServiceAccountToken": false,
                    "containers": [{"name": "proxy", "image": "none"}],
                },
            })
            .to_string(),
        );
        let pod = namespace.get::<Pod>(name).expect("it was made");
        Self { name: name.to_owned(), uid: pod.metadata.uid.expect("a uid") }
    }

    /// Says in its status, as kubelet would, whether it is ready.
    #[track_caller]
    pub fn set_ready(&self, namespace: &Namespace<'_>, ready: bool) {
        let status = if ready { "True" } else { "False" };
        let patch = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}});
        namespace.kubectl(&["patch", "pod", &self.name, "--subresource=status", "--patch", &patch.to_string()]).ok();
    }

    /// A token that is bound to it.
    #[track_caller]
    pub fn token(&self, namespace: &Namespace<'_>, account: &str, audience: &str) -> String {
        let bound = format!("--bound-object-name={}", self.name);
        let uid = format!("--bound-object-uid={}", self.uid);
        let audience = format!("--audience={audience}");
        let said =
            namespace.kubectl(&["create", "token", account, "--bound-object-kind=Pod", &bound, &uid, &audience]).ok();
        said.trim().to_owned()
    }

    /// Its proxy, with a token that is bound to it.
    #[track_caller]
    pub fn proxy(&self, namespace: &Namespace<'_>, account: &str, operator: &Operator) -> FleetProxy {
        self.proxy_trusting(namespace, account, operator, &roots(namespace))
    }

    /// The same, started with these roots.
    #[track_caller]
    pub fn proxy_trusting(
        &self,
        namespace: &Namespace<'_>,
        account: &str,
        operator: &Operator,
        roots: &str,
    ) -> FleetProxy {
        let token = self.token(namespace, account, "portlane-operator");
        FleetProxy::start(&token, roots, operator.stream)
    }
}

/// The roots of the operator of a namespace, PEM.
#[track_caller]
pub fn roots(namespace: &Namespace<'_>) -> String {
    let mut roots = None;
    until("the operator has made its roots", || {
        let secret = namespace.get::<Secret>("portlane-roots");
        roots = secret.and_then(|secret| secret.data).and_then(|mut data| data.remove("ca.crt"));
        roots.is_some()
    });
    String::from_utf8(roots.expect("there").0).expect("PEM")
}

/// A `portlane-proxy` that follows an operator.
pub struct FleetProxy {
    /// The process.
    pub program: Program,
    /// Where it serves health and metrics.
    pub health: u16,
    roots: String,
    stream: u16,
}

/// The folder of a proxy that was killed.
pub struct StoppedProxy {
    folder: tempfile::TempDir,
    roots: String,
    stream: u16,
}

impl StoppedProxy {
    /// Starts another one in its place.
    #[must_use]
    pub fn started(self) -> FleetProxy {
        FleetProxy::in_folder(self.folder, &self.roots, self.stream)
    }
}

impl FleetProxy {
    /// Starts one with this token.
    #[track_caller]
    pub fn start(token: &str, roots: &str, stream: u16) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("token"), token).expect("token");
        Self::in_folder(folder, roots, stream)
    }

    fn in_folder(folder: tempfile::TempDir, roots: &str, stream: u16) -> Self {
        let (health, admin) = (free_port(), free_port());
        let mut command = Command::new(binary("portlane-proxy"));
        command.args(["--operator", &format!("127.0.0.1:{stream}")]).env("PORTLANE_ROOTS", roots);
        command.arg("--token-file").arg(folder.path().join("token")).arg("--state-dir").arg(folder.path());
        command.args(["--health-address", &format!("127.0.0.1:{health}")]);
        command.args(["--admin-address", &format!("127.0.0.1:{admin}"), "--drain-seconds", "1"]);
        let program = Program::start(command, folder);
        Self { program, health, roots: roots.to_owned(), stream }
    }

    /// Kills it, and starts another one with the same folder, as kubelet does with a container.
    #[must_use]
    pub fn restarted(self) -> Self {
        self.stopped().started()
    }

    /// Kills it; what it has kept stays.
    #[must_use]
    pub fn stopped(self) -> StoppedProxy {
        let Self { program, roots, stream, .. } = self;
        StoppedProxy { folder: program.kill(), roots, stream }
    }

    /// Whether it has applied a configuration.
    pub fn is_ready(&self) -> bool {
        crate::http_get(self.health, "/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// A file of its state.
    pub fn path(&self, name: &str) -> PathBuf {
        self.program.path(name)
    }

    /// The value of one of its series; 0 if it has none yet.
    pub fn metric(&self, series: &str) -> f64 {
        let text = crate::http_get(self.health, "/metrics").map(|(_, text)| text).unwrap_or_default();
        crate::metric(&text, series).unwrap_or(0.0)
    }
}
