//! The failures of a release.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a release failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReleaseError {
    #[error("{0} is not a version: write 1.2.3, or 1.2.3-rc.1 for a pre-release")]
    Version(String),
    #[error("this checkout is version {here}; `cargo xtask bump {wanted}` makes it {wanted}")]
    OtherVersion { here: String, wanted: String },
    #[error("{path} says version {found}, and Cargo.toml says {here}; correct {path}")]
    Disagreement { path: String, found: String, here: String },
    #[error("Cargo.toml has no version in [workspace.package]")]
    NoVersion,
    #[error("{0} parts of the release are missing, as listed above; --allow-missing makes the others")]
    Missing(usize),
    #[error("{path} cannot be read or written")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0} exists and is no release: it has no SHA256SUMS; choose another folder with --out")]
    NoRelease(PathBuf),
    #[error("the output of `{0}` is not what this version of xtask reads")]
    Output(String),
    #[error("{0} cannot be packed")]
    Pack(String, #[source] io::Error),
    #[error("{krate} {version} is in a program and not in the output of `cargo metadata`")]
    UnknownCrate { krate: String, version: String },
    #[error("{krate} {version} has neither a licence text nor a licence whose text is known ({licence}); add the text")]
    NoLicence { krate: String, version: String, licence: String },
    #[error(
        "the proxy's image for {platform} is {bytes} bytes, and may have {limit}; see what grew with `cargo bloat`"
    )]
    TooLarge { platform: String, bytes: usize, limit: usize },
    #[error("the checkout has uncommitted changes, so a copy of the commit is another program; commit them first")]
    Uncommitted,
    #[error("the checkout was changed during the build, so the files are not those of one commit; build again")]
    Changed,
    #[error("not reproducible: these files differ between two builds of the commit: {0}")]
    Differ(String),
    #[error("CHANGELOG.md has no heading `## Unreleased` with entries below it")]
    NothingUnreleased,
    #[error("CHANGELOG.md has a section {0} already")]
    Released(String),
    #[error("SOURCE_DATE_EPOCH is {0}, which is no number of seconds since 1970")]
    Epoch(String),
}

impl ReleaseError {
    /// Wraps the error of a file.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
