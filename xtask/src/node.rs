//! A node for experiments.

use std::{env, ffi::OsString, process::Command, time::Instant};

use harness::{
    Node,
    programs::{self, KubernetesVersion},
};

use crate::{error::TaskError, setup, tier::Tier};

/// Starts a node with the images and CRDs of this checkout, and runs a command (default: a shell) with KUBECONFIG set
/// and kubectl and helm on the PATH. The node ends with the command.
pub(crate) fn run(command: &[OsString]) -> Result<(), TaskError> {
    setup::run(&[Tier::Node])?;
    let started = Instant::now();
    let node = Node::start();
    node.install_crds();
    let seconds = started.elapsed().as_secs();
    let (program, arguments) = match command {
        [] => (env::var_os("SHELL").unwrap_or_else(|| "sh".into()), &[][..]),
        [program, arguments @ ..] => (program.clone(), arguments),
    };
    eprintln!("node: up after {seconds} s; images {}; the node ends with this command", node.images().join(", "));
    eprintln!(
        "node: logs are in {}; `nsenter --all --target {}` enters its namespaces",
        node.logs().display(),
        node.init()
    );
    let status = Command::new(&program)
        .args(arguments)
        .env("KUBECONFIG", node.kubeconfig())
        .env("PATH", path()?)
        .status()
        .map_err(|error| TaskError::Start(program.to_string_lossy().into_owned(), error))?;
    if status.success() || command.is_empty() {
        return Ok(());
    }
    Err(TaskError::Command(program.to_string_lossy().into_owned(), status))
}

/// The PATH with kubectl and helm in front.
fn path() -> Result<OsString, TaskError> {
    let mut folders = Vec::new();
    for program in ["kubectl", "helm"] {
        let found = programs::find(KubernetesVersion::Oldest, program)?;
        folders.extend(found.parent().map(ToOwned::to_owned));
    }
    let known = env::var_os("PATH").unwrap_or_default();
    folders.extend(env::split_paths(&known));
    Ok(env::join_paths(folders).unwrap_or(known))
}
