//! The operator as a process beside an API server, and proxies with the tokens of Pods, as kubelet would give them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    coordination::v1::Lease,
    core::v1::{Pod, Secret, ServiceAccount},
};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::Namespace;
use crate::{Program, binary, block_on, free_port, until};

/// An operator that watches one namespace, and has its Lease and its CA there.
pub struct Operator {
    /// The process.
    pub program: Program,
    /// Port of health and metrics.
    pub health: u16,
    /// Port that proxies connect to.
    pub stream: u16,
    /// Port of the webhook for pods.
    pub webhook: u16,
}

impl Operator {
    /// Starts an operator and waits until it is ready.
    #[track_caller]
    pub fn start(namespace: &Namespace<'_>) -> Self {
        Self::named(namespace, "operator", free_port())
    }

    /// Starts an operator with further options.
    #[track_caller]
    pub fn with(namespace: &Namespace<'_>, options: &[&str]) -> Self {
        Self::launch(namespace, "operator", free_port(), options)
    }

    /// Starts this program as the operator, such as one of an earlier version, and waits until it is ready.
    #[track_caller]
    pub fn of_program(namespace: &Namespace<'_>, program: &Path) -> Self {
        let command = Self::command_of(program, namespace, "operator", namespace.cluster().kubeconfig());
        Self::ready(command, tempfile::tempdir().expect("folder"), free_port(), &[])
    }

    /// Starts an operator with the permissions of another kubeconfig than an administrator's, and further options.
    #[track_caller]
    pub fn with_kubeconfig(namespace: &Namespace<'_>, kubeconfig: &Path, options: &[&str]) -> Self {
        let command = Self::command(namespace, "operator", kubeconfig);
        Self::ready(command, tempfile::tempdir().expect("folder"), free_port(), options)
    }

    /// Starts an operator with a name of its own, on the port that proxies know.
    #[track_caller]
    pub fn named(namespace: &Namespace<'_>, name: &str, stream: u16) -> Self {
        Self::launch(namespace, name, stream, &[])
    }

    /// Starts an operator with a name of its own, on the port that proxies know, with further options.
    #[track_caller]
    pub fn named_with(namespace: &Namespace<'_>, name: &str, stream: u16, options: &[&str]) -> Self {
        Self::launch(namespace, name, stream, options)
    }

    /// Starts another replica while the first one leads.
    #[track_caller]
    pub fn standby(namespace: &Namespace<'_>, options: &[&str]) -> Self {
        Self::launch(namespace, "standby", free_port(), options)
    }

    /// Starts an operator with the permissions of a `ServiceAccount` of the namespace, not those of an administrator.
    ///
    /// # Panics
    /// The `ServiceAccount` does not exist, or the operator does not become ready.
    #[track_caller]
    pub fn with_account(namespace: &Namespace<'_>, account: &str, options: &[&str]) -> Self {
        let administrator = std::fs::read_to_string(namespace.cluster().kubeconfig()).expect("a kubeconfig");
        let mut kubeconfig: serde_json::Value = serde_yaml::from_str(&administrator).expect("YAML");
        kubeconfig["users"][0]["user"] = json!({"token": account_token(namespace, account)});
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig.to_string()).expect("a kubeconfig");
        let command = Self::command(namespace, "operator", &path);
        Self::ready(command, folder, free_port(), options)
    }

    /// Starts an operator without waiting until it is ready.
    #[must_use]
    pub fn unready(namespace: &Namespace<'_>) -> Self {
        let command = Self::command(namespace, "operator", namespace.cluster().kubeconfig());
        Self::spawn(command, tempfile::tempdir().expect("folder"), free_port(), &[])
    }

    /// Waits until the operator is ready.
    #[track_caller]
    pub fn until_ready(&self) {
        let is_ready = || crate::http_get(self.health, "/readyz").is_ok_and(|(status, _)| status == 200);
        until("the operator is ready", is_ready);
    }

    #[track_caller]
    fn launch(namespace: &Namespace<'_>, name: &str, stream: u16, options: &[&str]) -> Self {
        let command = Self::command(namespace, name, namespace.cluster().kubeconfig());
        Self::ready(command, tempfile::tempdir().expect("folder"), stream, options)
    }

    fn command(namespace: &Namespace<'_>, name: &str, kubeconfig: &Path) -> Command {
        Self::command_of(&binary("portlane-operator"), namespace, name, kubeconfig)
    }

    fn command_of(program: &Path, namespace: &Namespace<'_>, name: &str, kubeconfig: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", kubeconfig);
        command.args(["--namespace", namespace.name(), "--watch-namespaces", namespace.name(), "--pod", name]);
        command
    }

    #[track_caller]
    fn ready(command: Command, folder: tempfile::TempDir, stream: u16, options: &[&str]) -> Self {
        let operator = Self::spawn(command, folder, stream, options);
        operator.until_ready();
        operator
    }

    fn spawn(mut command: Command, folder: tempfile::TempDir, stream: u16, options: &[&str]) -> Self {
        let (health, webhook) = (free_port(), free_port());
        command.args(["--health-address", &format!("127.0.0.1:{health}")]);
        command.args([
            "--stream-address",
            &format!("127.0.0.1:{stream}"),
            "--operator",
            &format!("127.0.0.1:{stream}"),
        ]);
        command.args(["--webhook-address", &format!("127.0.0.1:{webhook}")]);
        command.args(options);
        Self { program: Program::start(command, folder), health, stream, webhook }
    }

    /// Kills the operator (SIGKILL), so that it releases nothing, and gives the port that proxies know. Its Lease
    /// lapses a second later, not twelve: see [`expire_lease`].
    #[track_caller]
    pub fn killed(self, namespace: &Namespace<'_>) -> u16 {
        drop(self.program.kill());
        expire_lease(namespace);
        self.stream
    }

    /// The value of a series of the operator; 0 while the series is missing.
    pub fn metric(&self, series: &str) -> f64 {
        let (_, text) = crate::http_get(self.health, "/metrics").expect("metrics");
        crate::metric(&text, series).unwrap_or(0.0)
    }
}

/// A token of a `ServiceAccount` for the API server.
#[track_caller]
fn account_token(namespace: &Namespace<'_>, account: &str) -> String {
    let request = TokenRequest::default();
    let accounts = namespace.api::<ServiceAccount>();
    let made = block_on(async { accounts.create_token_request(account, &PostParams::default(), &request).await });
    made.unwrap_or_else(|error| panic!("no token of {account}: {error}")).status.expect("a status").token
}

/// Shortens the Lease of a dead operator from twelve seconds to one. Its successor still finds a foreign Lease and
/// waits until the Lease has lapsed. Only for tests that do not measure that wait.
///
/// # Panics
/// The Lease is missing.
#[track_caller]
pub fn expire_lease(namespace: &Namespace<'_>) {
    let short = Patch::Merge(json!({"spec": {"leaseDurationSeconds": 1}}));
    let leases = namespace.api::<Lease>();
    block_on(async { leases.patch("portlane-operator", &PatchParams::default(), &short).await }).expect("a Lease");
}

/// A Pod that no kubelet runs: its proxy is a process of this machine.
pub struct FleetPod {
    /// Name of the Pod.
    pub name: String,
    /// Uid of the Pod.
    pub uid: String,
}

impl FleetPod {
    /// A Pod of a gateway's fleet. Waits for the `ServiceAccount`, which the operator creates.
    #[track_caller]
    pub fn of_gateway(namespace: &Namespace<'_>, gateway: &str, name: &str) -> Self {
        until("the operator has created the ServiceAccount", || namespace.get::<ServiceAccount>(gateway).is_some());
        let labels = json!({"portlane.dev/proxy": "gateway", "portlane.dev/gateway": gateway});
        Self::create(namespace, name, gateway, &labels)
    }

    /// A Pod of a gateway's fleet that is ready, and its proxy.
    #[track_caller]
    pub fn ready_in_gateway(
        namespace: &Namespace<'_>,
        gateway: &str,
        name: &str,
        operator: &Operator,
    ) -> (Self, FleetProxy) {
        let pod = Self::of_gateway(namespace, gateway, name);
        let proxy = pod.proxy(namespace, gateway, operator);
        pod.set_ready(namespace, true);
        (pod, proxy)
    }

    /// The Pod `shop-1` with the label `app: shop`, and the proxy in its sidecar.
    #[track_caller]
    pub fn with_sidecar(namespace: &Namespace<'_>, operator: &Operator) -> (Self, FleetProxy) {
        namespace.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: app}}");
        let labels = json!({"app": "shop", "portlane.dev/proxy": "sidecar"});
        let pod = Self::create(namespace, "shop-1", "app", &labels);
        let proxy = pod.proxy(namespace, "app", operator);
        (pod, proxy)
    }

    /// A Pod with these labels.
    #[track_caller]
    pub fn create(namespace: &Namespace<'_>, name: &str, account: &str, labels: &serde_json::Value) -> Self {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "serviceAccountName": account,
                "automountServiceAccountToken": false,
                "containers": [{"name": "proxy", "image": "none"}],
            },
        });
        let pod: Pod = serde_json::from_value(pod).expect("a Pod");
        let pods = namespace.api::<Pod>();
        let created = block_on(async { pods.create(&PostParams::default(), &pod).await });
        let created = created.unwrap_or_else(|error| panic!("cannot create Pod {name}: {error}"));
        Self { name: name.to_owned(), uid: created.metadata.uid.expect("a uid") }
    }

    /// Sets the Ready condition of the Pod, as kubelet would.
    #[track_caller]
    pub fn set_ready(&self, namespace: &Namespace<'_>, ready: bool) {
        let status = if ready { "True" } else { "False" };
        let patch = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}});
        let (pods, patch) = (namespace.api::<Pod>(), Patch::Strategic(patch));
        let patched = block_on(async { pods.patch_status(&self.name, &PatchParams::default(), &patch).await });
        patched.unwrap_or_else(|error| panic!("cannot write the status of Pod {}: {error}", self.name));
    }

    /// A token that is bound to the Pod.
    #[track_caller]
    pub fn token(&self, namespace: &Namespace<'_>, account: &str, audience: &str) -> String {
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
        };
        let spec = TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            bound_object_ref: Some(bound),
            expiration_seconds: None,
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let accounts = namespace.api::<ServiceAccount>();
        let made = block_on(async { accounts.create_token_request(account, &PostParams::default(), &request).await });
        let made = made.unwrap_or_else(|error| panic!("no token of {account} for Pod {}: {error}", self.name));
        made.status.expect("a status").token
    }

    /// The Pod's proxy, with a token that is bound to the Pod.
    #[track_caller]
    pub fn proxy(&self, namespace: &Namespace<'_>, account: &str, operator: &Operator) -> FleetProxy {
        self.proxy_trusting(namespace, account, operator, &roots(namespace))
    }

    /// The Pod's proxy, started with these CA certificates.
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

/// The CA certificates of the operator of a namespace, PEM.
#[track_caller]
pub fn roots(namespace: &Namespace<'_>) -> String {
    let mut roots = None;
    until("the operator has created its CA", || {
        let secret = namespace.get::<Secret>("portlane-roots");
        roots = secret.and_then(|secret| secret.data).and_then(|mut data| data.remove("ca.crt"));
        roots.is_some()
    });
    String::from_utf8(roots.expect("CA certificates").0).expect("PEM")
}

/// A `portlane-proxy` that follows an operator.
pub struct FleetProxy {
    /// The process.
    pub program: Program,
    /// Port of health and metrics.
    pub health: u16,
    executable: PathBuf,
    roots: String,
    stream: u16,
}

/// A proxy that was killed; its state is kept.
pub struct StoppedProxy {
    executable: PathBuf,
    folder: tempfile::TempDir,
    roots: String,
    stream: u16,
}

impl StoppedProxy {
    /// Starts a proxy with the state of the killed one.
    #[must_use]
    pub fn started(self) -> FleetProxy {
        FleetProxy::in_folder(self.executable, self.folder, &self.roots, self.stream)
    }
}

impl FleetProxy {
    /// Starts a proxy with this token.
    #[track_caller]
    pub fn start(token: &str, roots: &str, stream: u16) -> Self {
        Self::of_program(&binary("portlane-proxy"), token, roots, stream)
    }

    /// Starts this program as a proxy with this token, such as one of an earlier version.
    #[track_caller]
    pub fn of_program(program: &Path, token: &str, roots: &str, stream: u16) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("token"), token).expect("token");
        Self::in_folder(program.to_owned(), folder, roots, stream)
    }

    fn in_folder(executable: PathBuf, folder: tempfile::TempDir, roots: &str, stream: u16) -> Self {
        let (health, admin) = (free_port(), free_port());
        let mut command = Command::new(&executable);
        command.args(["--operator", &format!("127.0.0.1:{stream}")]).env("PORTLANE_ROOTS", roots);
        command.arg("--token-file").arg(folder.path().join("token")).arg("--state-dir").arg(folder.path());
        command.args(["--health-address", &format!("127.0.0.1:{health}")]).env("PORTLANE_DATA", folder.path());
        command.args(["--admin-address", &format!("127.0.0.1:{admin}"), "--drain-seconds", "1"]);
        let program = Program::start(command, folder);
        Self { program, health, executable, roots: roots.to_owned(), stream }
    }

    /// Kills the proxy and starts another one with the same state, as kubelet restarts a container.
    #[must_use]
    pub fn restarted(self) -> Self {
        self.stopped().started()
    }

    /// Kills the proxy and keeps its state.
    #[must_use]
    pub fn stopped(self) -> StoppedProxy {
        let Self { program, executable, roots, stream, .. } = self;
        StoppedProxy { executable, folder: program.kill(), roots, stream }
    }

    /// Whether the proxy has applied a configuration.
    pub fn is_ready(&self) -> bool {
        crate::http_get(self.health, "/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// A file of the proxy's state.
    pub fn path(&self, name: &str) -> PathBuf {
        self.program.path(name)
    }

    /// The value of a series of the proxy; 0 while the series is missing.
    pub fn metric(&self, series: &str) -> f64 {
        let text = crate::http_get(self.health, "/metrics").map(|(_, text)| text).unwrap_or_default();
        crate::metric(&text, series).unwrap_or(0.0)
    }
}
