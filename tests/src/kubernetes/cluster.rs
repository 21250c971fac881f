//! What every cluster offers, our own or an existing one.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::Duration,
};

use kube::{Client, Config, config::Kubeconfig};
use tokio::runtime::Runtime;

use super::{held::Held, output::CommandOutput};
use crate::{
    cluster::Folder,
    programs::{self, KubernetesVersion, Missing},
};

/// Runs the clients of all tests, so that a shared client outlives the test that created it.
pub(super) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("threads"));

/// Longest request of a client.
const REQUEST: Duration = Duration::from_secs(30);
/// Further attempts of kubectl where a TLS handshake took too long.
const HANDSHAKES: u32 = 5;

/// Runs a request of a client of the harness to completion.
pub fn block_on<T>(request: impl Future<Output = T>) -> T {
    RUNTIME.block_on(request)
}

/// An API server that is ready.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    client: ClientOf,
    /// Absent: an existing cluster.
    pub(super) own: Option<Own>,
}

#[derive(Debug)]
pub(super) struct Own {
    pub(super) held: Held,
    pub(super) folder: Folder,
}

struct ClientOf(Client);

impl std::fmt::Debug for ClientOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Cluster {
    pub(super) fn own(held: Held, folder: Folder, kubectl: Result<PathBuf, Missing>) -> Self {
        let kubectl = kubectl.unwrap_or_else(|missing| panic!("{missing}"));
        Self::at(folder.kubeconfig(), kubectl, Some(Own { held, folder }))
    }

    /// The cluster of `PORTLANE_TEST_KUBECONFIG`, if that is set.
    pub fn existing() -> Option<Self> {
        let kubeconfig = programs::existing_cluster()?;
        let kubectl = programs::find(KubernetesVersion::Oldest, "kubectl").unwrap_or_else(|_| "kubectl".into());
        Some(Self::at(kubeconfig, kubectl, None))
    }

    fn at(kubeconfig: PathBuf, kubectl: PathBuf, own: Option<Own>) -> Self {
        let client = RUNTIME.block_on(async {
            let file = Kubeconfig::read_from(&kubeconfig)?;
            let mut config = Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
            config.read_timeout = Some(REQUEST);
            if own.is_some() {
                // An HTTP proxy of this machine does not reach a cluster of our own.
                config.proxy_url = None;
            }
            Ok::<_, Box<dyn std::error::Error>>(Client::try_from(config)?)
        });
        let client = client.unwrap_or_else(|error| panic!("{} cannot be used: {error}", kubeconfig.display()));
        Self { kubeconfig, kubectl, client: ClientOf(client), own }
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The kubectl that fits the cluster.
    pub fn kubectl_program(&self) -> &Path {
        &self.kubectl
    }

    /// Folder with the logs of the components; empty for an existing cluster.
    pub fn logs(&self) -> PathBuf {
        self.own.as_ref().map(|own| own.folder.logs()).unwrap_or_default()
    }

    /// The keeper of the cluster. Absent: an existing cluster.
    pub fn keeper(&self) -> Option<u32> {
        self.own.as_ref().map(|own| own.held.keeper())
    }

    /// A client for the API.
    pub fn client(&self) -> Client {
        self.client.0.clone()
    }

    /// Whether the cluster existed before the tests.
    pub fn is_existing(&self) -> bool {
        self.own.is_none()
    }

    /// Why the cluster no longer answers, if its keeper knows.
    pub(super) fn failure(&self) -> String {
        let failure = self.own.as_ref().and_then(|own| own.held.failure_soon());
        failure.map(|failure| format!("\nthe cluster has failed: {failure}")).unwrap_or_default()
    }

    /// kubectl as an administrator runs it.
    pub fn kubectl(&self, arguments: &[&str]) -> CommandOutput {
        self.kubectl_with(arguments, "")
    }

    /// kubectl with a text on standard input. kubectl gives the API server ten seconds for a TLS handshake, and 32 for
    /// the schema of all kinds; on a busy machine it is asked again, since the object was not sent.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> CommandOutput {
        let mut output = self.kubectl_once(arguments, input);
        for _ in 0..HANDSHAKES {
            if output.success || !is_too_busy(&output.stderr) {
                break;
            }
            output = self.kubectl_once(arguments, input);
        }
        output
    }

    fn kubectl_once(&self, arguments: &[&str], input: &str) -> CommandOutput {
        let mut command = Command::new(&self.kubectl);
        // The preferences of the person who runs the tests do not count.
        command.env("KUBECONFIG", &self.kubeconfig).env("KUBECTL_KUBERC", "false").args(arguments);
        if let Some(own) = &self.own {
            // kubectl caches discovery by address and port, which earlier clusters have had too.
            command.env("KUBECACHEDIR", own.folder.data().join("kubectl"));
        }
        let mut output = CommandOutput::of(&mut command, input);
        if !output.success && ["refused", "EOF", "reset by peer"].iter().any(|sign| output.stderr.contains(sign)) {
            output.stderr += &self.failure();
        }
        output
    }

    /// helm as an administrator runs it, in the checkout.
    pub fn helm(&self, arguments: &[&str]) -> CommandOutput {
        self.helm_with(arguments, "")
    }

    /// helm with a text on its standard input.
    pub fn helm_with(&self, arguments: &[&str], input: &str) -> CommandOutput {
        CommandOutput::of(super::helm_command().env("KUBECONFIG", &self.kubeconfig).args(arguments), input)
    }

    /// Installs the committed CRDs and waits until they are served.
    #[track_caller]
    pub fn install_crds(&self) {
        let folder = crate::cluster::workspace().join("crds").display().to_string();
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &folder]).ok();
        let names =
            ["crd/portforwards.portlane.dev", "crd/forwardgateways.portlane.dev", "crd/forwardagents.portlane.dev"];
        // kubectl fails on a CRD that has no conditions yet.
        let wait = [&["wait", "--for=condition=Established", "--timeout=5s"], &names[..]].concat();
        crate::until("the kinds are established", || self.kubectl(&wait).success);
        // Discovery, by which kubectl finds kinds, follows a moment later.
        crate::until("kubectl finds the kinds", || self.kubectl(&["get", "portlane", "-n", "default"]).success);
    }
}

/// Whether kubectl has sent an object to no API server, because the server was too busy.
fn is_too_busy(errors: &str) -> bool {
    let lacks_schema = errors.contains("error validating data: Get ") && errors.contains("context deadline exceeded");
    errors.contains("TLS handshake timeout") || lacks_schema
}
