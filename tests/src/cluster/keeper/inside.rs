//! The part of a node that runs inside its namespaces.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use rustix::process::{WaitOptions, wait};

use super::{Holder, Inside, Report, Request, is_ready, kubectl_stdout, report};
use crate::{
    cluster::{
        ClusterError, Folder, cgroups,
        children::Children,
        command,
        components::{self, ApiServer},
        configuration, machine,
    },
    programs::{self, KubernetesVersion},
};

/// Name of the node.
pub(super) const NAME: &str = "node";

/// The first process of the namespaces: starts the process that sets the node up, and reaps processes without a parent.
/// When it ends, the kernel kills everything else.
pub(super) fn init(inside: Inside) -> ExitCode {
    let request = serde_json::to_string(&Request::Inside(inside)).unwrap_or_default();
    // The child has no terminal and gets no signal; only its end matters.
    let child = std::env::current_exe().and_then(|own| Command::new(own).arg(request).spawn());
    let Ok(child) = child else { return ExitCode::FAILURE };
    let child = rustix::process::Pid::from_child(&child);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, _))) if ended != child => {}
            Ok(None) => {}
            _ => return ExitCode::SUCCESS,
        }
    }
}

/// Sets the node up and keeps the node.
pub(super) fn keep(inside: &Inside, holder: &Holder) -> Result<(), ClusterError> {
    let program = kubectl_program()?;
    let addresses = inside.family.addresses();
    let folder = machine::private_folders(&Folder::at(&inside.folder), addresses)?;
    machine::network(addresses)?;
    cgroups::create(&inside.cgroup)?;
    let api = ApiServer::of_node(addresses);
    write_files(&folder, &api, &inside.cgroup)?;
    let kubeconfig = folder.configuration().join("admin.kubeconfig");
    let kubectl = |arguments: &[&str]| kubectl_stdout(&program, &kubeconfig, arguments);

    let mut children = Children::of(&folder);
    children.start(&components::etcd(&folder, programs::built)?)?;
    children.start(&components::api_server(&folder, &api, programs::built)?)?;
    children.start(&components::containerd(&folder))?;
    holder.until("start of containerd", &mut children, &folder, || {
        Path::new(configuration::CONTAINERD_SOCKET).exists()
            && command::run("ctr", &["--namespace", "k8s.io", "version"]).is_ok()
    })?;
    for image in &inside.images {
        let image = image.display().to_string();
        command::run("ctr", &["--namespace", "k8s.io", "images", "import", &image])?;
    }
    holder.until("readiness of the API server", &mut children, &folder, || is_ready(&api, &program, &kubeconfig))?;
    children.start(&components::controller_manager(&folder, addresses, programs::built, 5)?)?;
    children.start(&components::scheduler(&folder)?)?;
    children.start(&components::kubelet(&folder, addresses, NAME)?)?;
    children.start(&components::kube_proxy(&folder)?)?;
    apply(&program, &kubeconfig, &components::dns_objects(addresses))?;
    children.start(&components::coredns(&folder)?)?;
    let ready = r#"--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    holder.until("readiness of the node", &mut children, &folder, || {
        kubectl(&["get", "node", NAME, ready]).is_some_and(|status| status == "True")
    })?;
    holder.until("the first service account", &mut children, &folder, || {
        kubectl(&["get", "serviceaccount", "default"]).is_some()
    })?;
    report(&Report::Ready { init: None });
    holder.keep(&mut children)
}

/// Path of kubectl. Fails before anything is started if another program is missing.
fn kubectl_program() -> Result<PathBuf, ClusterError> {
    let version = KubernetesVersion::Oldest;
    let others =
        ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns"];
    for program in others {
        programs::built(version, program)?;
    }
    Ok(programs::built(version, "kubectl")?)
}

fn write_files(folder: &Folder, api: &ApiServer, cgroup: &str) -> Result<(), ClusterError> {
    let addresses = api.addresses;
    for user in ["admin", "controller-manager", "scheduler", "kubelet", "kube-proxy"] {
        let content = configuration::kubeconfig(folder, &api.url(), user);
        configuration::write(folder, &format!("{user}.kubeconfig"), &content)?;
    }
    let cni = folder.configuration().join("cni");
    fs::create_dir_all(&cni).map_err(ClusterError::io(format!("cannot create {}", cni.display())))?;
    configuration::write(folder, "cni/10-pods.conflist", &configuration::cni(addresses))?;
    configuration::write(folder, "containerd.toml", &configuration::containerd(folder))?;
    configuration::write(folder, "kubelet.yaml", &configuration::kubelet(folder, addresses, cgroup))?;
    configuration::write(folder, "kube-proxy.yaml", &configuration::kube_proxy(folder, addresses, NAME))?;
    configuration::write(folder, "Corefile", &configuration::corefile(folder, &api.url()))
}

fn apply(kubectl: &Path, kubeconfig: &Path, objects: &str) -> Result<(), ClusterError> {
    let failed = || ClusterError::io("cannot run kubectl");
    let mut child = Command::new(kubectl)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["--request-timeout=20s", "apply", "--server-side", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed())?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(objects.as_bytes()).map_err(failed())?;
    }
    let output = child.wait_with_output().map_err(failed())?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(ClusterError::Command { command: "kubectl apply".to_owned(), output })
}
