//! The programs of a real Kubernetes: their pins, their sources and their builds.
//!
//! A program is looked up in this order: `PORTLANE_TEST_KUBECONFIG` (an existing cluster; only `kubectl` is needed),
//! `KUBEBUILDER_ASSETS` (a folder that the user filled), the cache that `cargo xtask setup` fills from pinned Go
//! modules. What a node needs of the operating system comes from the distribution's packages.

mod build;
mod packages;
mod pins;
mod quiet;

pub use build::{BuildError, build};
pub use packages::{PackageError, install as install_packages, missing as missing_packages};
pub use pins::{KubernetesVersion, Module, Tool};

use std::{
    env,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Variable with the path of a kubeconfig. The tests use its cluster and start none.
pub const EXISTING_CLUSTER: &str = "PORTLANE_TEST_KUBECONFIG";
/// Variable with a folder of `kube-apiserver`, `etcd` and `kubectl`, by the convention of controller-runtime's envtest.
pub const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// Variable with the folder of built programs. Default: `portlane/programs` in the user's cache folder.
pub const CACHE: &str = "PORTLANE_TEST_CACHE";

/// A program is missing.
#[derive(Debug, thiserror::Error)]
#[error("{program} of {module} is not built yet; run `cargo xtask setup` (looked in {folder})")]
pub struct Missing {
    program: String,
    module: &'static str,
    folder: String,
}

/// The folder of built programs, which may not exist yet.
pub fn cache() -> PathBuf {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder(CACHE).unwrap_or_else(|| {
        let user = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
        user.unwrap_or_else(env::temp_dir).join("portlane").join("programs")
    })
}

/// The kubeconfig of the cluster that the tests use instead of their own.
pub fn existing_cluster() -> Option<PathBuf> {
    env::var_os(EXISTING_CLUSTER).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The folder of programs that the user gave.
pub fn assets() -> Option<PathBuf> {
    env::var_os(ASSETS).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The folder that the user gave lacks a program that every API server needs.
#[derive(Debug, thiserror::Error)]
#[error(
    "KUBEBUILDER_ASSETS is {folder}, which has no {program}; give a folder with etcd, kube-apiserver and kubectl, or unset it"
)]
pub struct IncompleteAssets {
    folder: String,
    program: &'static str,
}

/// Whether the user gave a folder of programs.
///
/// # Errors
/// The folder lacks a program that every API server needs.
pub fn check_assets() -> Result<bool, IncompleteAssets> {
    let Some(folder) = assets() else { return Ok(false) };
    match ["etcd", "kube-apiserver", "kubectl"].into_iter().find(|program| !is_program(&folder.join(program))) {
        Some(program) => Err(IncompleteAssets { folder: folder.display().to_string(), program }),
        None => Ok(true),
    }
}

/// The path of a program: from the folder that the user gave, or from the cache.
///
/// # Errors
/// The program was never built.
pub fn find(version: KubernetesVersion, program: &str) -> Result<PathBuf, Missing> {
    if let Some(found) = assets().map(|folder| folder.join(program)).filter(|path| is_program(path)) {
        return Ok(found);
    }
    built(version, program)
}

/// The path of a program in the cache. `KUBEBUILDER_ASSETS` is ignored.
///
/// # Errors
/// The program was never built.
pub fn built(version: KubernetesVersion, program: &str) -> Result<PathBuf, Missing> {
    let of = |module: &&Module| module.tools.iter().any(|tool| tool.program == program) && module.serves(version);
    // Of the newest Kubernetes only the API server and kubectl are built; other programs are those of the oldest.
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

/// Writes a line to standard error in one piece: the output of tests goes there too, and `eprintln!` writes in parts.
fn report(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
