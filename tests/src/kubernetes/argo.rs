//! A real Argo CD on a node: its repository server, its application controller and Redis are processes on the host of the
//! node. Its API server and its UI do not run: kubectl is the client.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{CommandOutput, Node};
use crate::{
    PATIENCE,
    cluster::{tail, workspace},
    programs::{self, KubernetesVersion},
};

/// Where the manifests of `deploy` say that the repository is.
const PUBLISHED: &str = "https://github.com/portlane/portlane.git";
/// Tag of the release in the manifests of `deploy`.
const RELEASE: &str = concat!("v", env!("CARGO_PKG_VERSION"));
/// Lines of each log that a failure prints.
const LINES: usize = 15;
/// Variables of the person who runs the tests that would misdirect requests.
const FOREIGN: [&str; 6] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];

/// Annotation of an Application by which a person asks for a comparison. Argo CD removes the annotation when it is done.
const REFRESH: &str = "argocd.argoproj.io/refresh";

/// What the manifests of Argo CD's own installation contain for its controller.
const SETTINGS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: argocd}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: argocd-cm, namespace: argocd, labels: {app.kubernetes.io/part-of: argocd}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: argocd-rbac-cm, namespace: argocd, labels: {app.kubernetes.io/part-of: argocd}}
---
apiVersion: v1
kind: Secret
metadata: {name: argocd-secret, namespace: argocd, labels: {app.kubernetes.io/part-of: argocd}}
stringData: {server.secretkey: abcdefghijklmnop}
";

/// Argo CD with a Git repository of this checkout's charts and of `deploy`. It ends when it is dropped.
#[derive(Debug)]
pub struct Argo<'a> {
    node: &'a Node,
    folder: TempDir,
    running: Vec<(&'static str, Child)>,
}

impl<'a> Argo<'a> {
    /// Starts Argo CD. It manages the node by the address of its API server within the cluster.
    ///
    /// # Panics
    /// A program is missing, or a manifest is refused.
    #[track_caller]
    pub fn start(node: &'a Node) -> Self {
        for crd in ["application-crd.yaml", "applicationset-crd.yaml", "appproject-crd.yaml"] {
            let file = program(crd).display().to_string();
            node.kubectl(&["apply", "--server-side", "-f", &file]).ok();
        }
        node.kubectl_with(&["apply", "--server-side", "-f", "-"], SETTINGS).ok();
        let crds = ["crd/applications.argoproj.io", "crd/applicationsets.argoproj.io", "crd/appprojects.argoproj.io"];
        node.kubectl(&[&["wait", "--for=condition=Established", "--timeout=30s"][..], &crds].concat()).ok();
        let mut argo = Self { node, folder: tempfile::tempdir().expect("folder"), running: Vec::new() };
        argo.make_repository();
        fs::create_dir(argo.path("tmp")).expect("folder");
        fs::write(argo.path("kubeconfig"), node.kubeconfig_within()).expect("kubeconfig");
        argo.run("redis-server", Path::new("redis-server"), &["--port", "6379", "--bind", "127.0.0.1", "--save", ""]);
        let (argocd, redis) = (program("argocd"), ["--redis", "127.0.0.1:6379"]);
        argo.run("argocd-repo-server", &argocd, &[&redis[..], &["--disable-tls", "--port", "8081"]].concat());
        let controller = [
            "--repo-server=127.0.0.1:8081",
            "--repo-server-plaintext",
            "--namespace=argocd",
            "--app-resync=10",
            "--app-resync-jitter=0",
            "--self-heal-timeout-seconds=2",
            // The health of each object is in the status of its Application.
            "--persist-resource-health",
        ];
        argo.run("argocd-application-controller", &argocd, &[&redis[..], &controller].concat());
        argo
    }

    /// Copies the folder `deploy` of the repository into another folder.
    pub fn check_out(&self, folder: &Path) {
        copy(&self.path("repository").join("deploy"), folder);
    }

    /// Writes a file of the repository, without a commit.
    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.path("repository").join(file), text).expect("write");
    }

    /// A file of the repository.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path("repository").join(file)).expect("read")
    }

    /// Commits what was written; gives the revision.
    #[track_caller]
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Reverts the last commit; gives the revision.
    #[track_caller]
    pub fn revert(&self) -> String {
        self.git(&["revert", "--no-edit", "HEAD"]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// An Application.
    #[track_caller]
    pub fn application(&self, name: &str) -> Value {
        let json = self.node.kubectl(&["get", "application", name, "--namespace=argocd", "--output=json"]).ok();
        serde_json::from_str(&json).expect("JSON")
    }

    /// Compares an Application with Git and with the cluster again, without a cache, and gives the result.
    #[track_caller]
    pub fn refresh(&self, name: &str) -> Value {
        let hard = format!("{REFRESH}=hard");
        self.node.kubectl(&["annotate", "application", name, "--namespace=argocd", "--overwrite", &hard]).ok();
        self.until(name, "is refreshed", is_refreshed)
    }

    /// Compares Applications with the cluster again, as Argo CD does by itself: what was rendered before is not rendered
    /// again. Gives the results.
    #[track_caller]
    pub fn compare<const N: usize>(&self, names: [&str; N]) -> [Value; N] {
        let normal = format!("{REFRESH}=normal");
        let annotate = ["annotate", "application", "--namespace=argocd", "--overwrite"];
        self.node.kubectl(&[&annotate[..], &names[..], &[normal.as_str()][..]].concat()).ok();
        names.map(|name| self.until(name, "is compared", is_refreshed))
    }

    /// Waits until an Application fulfils a condition, and gives the Application.
    ///
    /// # Panics
    /// The condition did not hold within a minute. The message has the status and the ends of the logs.
    #[track_caller]
    #[allow(clippy::disallowed_methods, reason = "polls")]
    pub fn until(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let application = self.application(name);
            if condition(&application) {
                return application;
            }
            if Instant::now() > deadline {
                let status = &application["status"];
                panic!("Application {name}: not true after {PATIENCE:?}: {what}\n{status:#}\n{}", self.logs());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The ends of the logs.
    pub fn logs(&self) -> String {
        let log = |name: &str| {
            let path = self.path(&format!("{name}.log"));
            format!("--- the end of {}\n{}\n", path.display(), tail(&path, LINES).unwrap_or_default())
        };
        self.running.iter().map(|(name, _)| log(name)).collect()
    }

    /// The repository, and the folder `deploy` with its address in place of the published one.
    fn make_repository(&self) {
        let repository = self.path("repository");
        fs::create_dir(&repository).expect("folder");
        for folder in ["charts", "deploy"] {
            copy(&workspace().join(folder), &repository);
        }
        let address = format!("file://{}", repository.display());
        let manifests = repository.join("deploy/argocd");
        for folder in [manifests.clone(), manifests.join("applications")] {
            for entry in fs::read_dir(folder).expect("a folder").flatten().filter(|entry| entry.path().is_file()) {
                let text = fs::read_to_string(entry.path()).expect("read");
                fs::write(entry.path(), text.replace(PUBLISHED, &address)).expect("write");
            }
        }
        self.git(&["init", "--quiet", "--initial-branch=main"]);
        self.commit("everything");
        self.git(&["tag", RELEASE]);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[track_caller]
    fn git(&self, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.arg("-C").arg(self.path("repository"));
        git.args(["-c", "user.name=Test", "-c", "user.email=test@example.com"]).args(arguments);
        // The configuration of the person who runs the tests does not count.
        git.env("HOME", self.folder.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        CommandOutput::of(&mut git, "").ok()
    }

    /// Starts a program on the host of the node. It ends with this thread at the latest.
    fn run(&mut self, name: &'static str, executable: &Path, arguments: &[&str]) {
        let log = File::create(self.path(&format!("{name}.log"))).expect("log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "nsenter"]);
        command.arg(format!("--net=/proc/{}/ns/net", self.node.init())).arg(executable).args(arguments);
        let helm = program("helm");
        let helm = helm.parent().expect("a folder").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        for name in FOREIGN {
            command.env_remove(name);
        }
        command
            .env("PATH", format!("{helm}:{path}"))
            .env("HOME", self.folder.path())
            .env("TMPDIR", self.path("tmp"))
            .env("KUBECONFIG", self.path("kubeconfig"))
            // One program has all parts of Argo CD.
            .env("ARGOCD_BINARY_NAME", name)
            .env("ARGOCD_GPG_ENABLED", "false")
            // The address of the API server within the cluster stands for the one of the kubeconfig.
            .env("ARGOCD_FAKE_IN_CLUSTER", "true");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        self.running.push((name, command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"))));
    }
}

impl Drop for Argo<'_> {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
        }
        for (_, child) in &mut self.running {
            let _ = child.wait();
        }
    }
}

/// `argocd admin settings resource-overrides`, with the patch of `argocd-cm` of this checkout: Argo CD's own answer about
/// a manifest, without a cluster.
pub fn resource_overrides(arguments: &[&str]) -> CommandOutput {
    let home = tempfile::tempdir().expect("folder");
    let mut argocd = Command::new(program("argocd"));
    argocd.args(["admin", "settings", "resource-overrides"]).args(arguments);
    argocd.arg("--argocd-cm-path").arg(workspace().join("deploy/argocd/health/argocd-cm.yaml"));
    argocd.env("HOME", home.path()).env("ARGOCD_BINARY_NAME", "argocd").env_remove("KUBECONFIG");
    CommandOutput::of(&mut argocd, "")
}

/// Whether no comparison is asked for that Argo CD has not made.
fn is_refreshed(application: &Value) -> bool {
    application["metadata"]["annotations"].get(REFRESH).is_none()
}

/// A file in the cache of programs.
fn program(name: &str) -> PathBuf {
    programs::built(KubernetesVersion::Oldest, name).unwrap_or_else(|error| panic!("{error}"))
}

/// Copies a folder into another one.
#[track_caller]
fn copy(from: &Path, into: &Path) {
    let mut command = Command::new("cp");
    command.arg("--recursive").arg(from).arg(into);
    CommandOutput::of(&mut command, "").ok();
}
