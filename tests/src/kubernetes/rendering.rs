//! helm and kustomize, which render without a cluster.

use std::process::Command;

use super::CommandOutput;
use crate::{
    cluster::workspace,
    programs::{self, KubernetesVersion},
};

/// helm, to run in the checkout.
///
/// # Panics
/// helm is not built yet.
#[track_caller]
pub fn helm_command() -> Command {
    let helm = programs::built(KubernetesVersion::Oldest, "helm");
    let mut command = Command::new(helm.unwrap_or_else(|error| panic!("{error}")));
    command.current_dir(workspace());
    command
}

/// The objects of a kustomization, as `kubectl apply -k` sends them. The folder is relative to the checkout.
pub fn kustomize(folder: &str) -> CommandOutput {
    // With an existing cluster there may be no kubectl of our own.
    let kubectl = programs::find(KubernetesVersion::Newest, "kubectl").unwrap_or_else(|_| "kubectl".into());
    CommandOutput::of(Command::new(kubectl).args(["kustomize", folder]).current_dir(workspace()), "")
}
