//! The programs of a real Kubernetes: which there are, where they come from, and how they are made.
//!
//! In this order: `PORTLANE_TEST_KUBECONFIG` (an existing cluster, no programs at all but `kubectl`), `KUBEBUILDER_ASSETS`
//! (a folder that somebody else filled), the cache that `cargo xtask setup` fills from pinned Go modules. What a node
//! needs of the operating system comes from the distribution's packages.

mod build;
mod packages;
mod pins;

pub use build::{BuildError, build};
pub use packages::{PackageError, install as install_packages, missing as missing_packages};
pub use pins::{KubernetesVersion, Module, Tool};

use std::{
    env,
    path::{Path, PathBuf},
};

/// A kubeconfig of an existing cluster that the tests may use.
pub const EXISTING_CLUSTER: &str = "PORTLANE_TEST_KUBECONFIG";
/// A folder with `kube-apiserver`, `etcd` and `kubectl`, by the convention of controller-runtime's envtest.
pub const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// Where built programs are kept. Absent: `portlane/programs` in the user's cache folder.
pub const CACHE: &str = "PORTLANE_TEST_CACHE";

/// A program that is not there.
#[derive(Debug, thiserror::Error)]
#[error("{program} of {module} is not built yet; run `cargo xtask setup` ({folder} was looked at)")]
pub struct Missing {
    program: String,
    module: &'static str,
    folder: String,
}

/// The folder of built programs.
pub fn cache() -> PathBuf {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder(CACHE).unwrap_or_else(|| {
        let user = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
        user.unwrap_or_else(env::temp_dir).join("portlane").join("programs")
    })
}

/// The kubeconfig of the cluster that the tests shall use instead of one of their own.
pub fn existing_cluster() -> Option<PathBuf> {
    env::var_os(EXISTING_CLUSTER).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The folder of somebody else's programs.
pub fn assets() -> Option<PathBuf> {
    env::var_os(ASSETS).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Somebody else's folder lacks what every API server needs.
#[derive(Debug, thiserror::Error)]
#[error(
    "KUBEBUILDER_ASSETS is {folder}, which has no {program}; give a folder with etcd, kube-apiserver and kubectl, or unset it"
)]
pub struct IncompleteAssets {
    folder: String,
    program: &'static str,
}

/// Whether somebody else's folder is used; it must have what every API server needs.
///
/// # Errors
/// It has not.
pub fn check_assets() -> Result<bool, IncompleteAssets> {
    let Some(folder) = assets() else { return Ok(false) };
    match ["etcd", "kube-apiserver", "kubectl"].into_iter().find(|program| !is_program(&folder.join(program))) {
        Some(program) => Err(IncompleteAssets { folder: folder.display().to_string(), program }),
        None => Ok(true),
    }
}

/// Where a program is.
///
/// # Errors
/// It was never built.
pub fn find(version: KubernetesVersion, program: &str) -> Result<PathBuf, Missing> {
    if let Some(found) = assets().map(|folder| folder.join(program)).filter(|path| is_program(path)) {
        return Ok(found);
    }
    built(version, program)
}

/// Where a program of ours is, whatever `KUBEBUILDER_ASSETS` has.
///
/// # Errors
/// It was never built.
pub fn built(version: KubernetesVersion, program: &str) -> Result<PathBuf, Missing> {
    let of = |module: &&Module| module.tools.iter().any(|tool| tool.program == program) && module.serves(version);
    // The newest Kubernetes has its API server and kubectl only; the rest is the oldest's.
    let module = Module::ALL.iter().find(of).or_else(|| Module::ALL.iter().find(|module| module.has(program)));
    let Some(module) = module else {
        return Err(Missing { program: program.to_owned(), module: "any module", folder: String::new() });
    };
    let path = module.folder(&cache()).join(program);
    if is_program(&path) {
        return Ok(path);
    }
    let folder = path.parent().unwrap_or(Path::new("")).display().to_string();
    Err(Missing { program: program.to_owned(), module: module.name, folder })
}

fn is_program(path: &Path) -> bool {
    path.is_file()
}
