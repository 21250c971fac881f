//! The failures of tasks.

mod book;
mod release;

use std::process::ExitStatus;

use harness::programs;
use images::ImageError;

pub(crate) use self::{book::BookError, release::ReleaseError};

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    #[error(transparent)]
    Build(#[from] programs::BuildError),
    #[error("a thread that builds in the background has panicked")]
    Builder,
    #[error(transparent)]
    Packages(#[from] programs::PackageError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error(transparent)]
    Book(#[from] BookError),
    #[error(transparent)]
    Assets(#[from] programs::IncompleteAssets),
    #[cfg(not(target_os = "linux"))]
    #[error("a node needs Linux; use an existing cluster (docs/testing.md)")]
    NotLinux,
    #[error(transparent)]
    Missing(#[from] programs::Missing),
    #[error("cannot run {0}")]
    Start(String, #[source] std::io::Error),
    #[error("tests failed in {0} ({1})")]
    Tests(String, ExitStatus),
    #[error("`{0}` failed ({1})")]
    Command(String, ExitStatus),
    #[error("cargo did not build the program {0}; does a package of the workspace still have it?")]
    Program(&'static str),
}
