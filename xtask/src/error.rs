//! Why a task failed.

use std::process::ExitStatus;

use harness::programs;
use images::ImageError;

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    #[error(transparent)]
    Build(#[from] programs::BuildError),
    #[error(transparent)]
    Packages(#[from] programs::PackageError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Assets(#[from] programs::IncompleteAssets),
    #[cfg(not(target_os = "linux"))]
    #[error("a node needs Linux; use a cluster that you have (docs/testing.md)")]
    NotLinux,
    #[error(transparent)]
    Missing(#[from] programs::Missing),
    #[error("cannot run {0}: {1}")]
    Start(String, #[source] std::io::Error),
    #[error("`{0}` failed ({1})")]
    Command(String, ExitStatus),
}
