//! The failures of building the site of the documentation.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the site is not complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BookError {
    #[error("{path} cannot be read")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the site has the faults listed above ({0}); correct the pages in docs, docs/SUMMARY.md or docs/book.toml")]
    Faults(usize),
}

impl BookError {
    /// Wraps the error of a file.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
