//! Why a command failed.

use std::{error::Error as _, io, path::PathBuf};

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A path of `-f`.
    #[error("cannot read {0}")]
    Files(String, #[source] io::Error),
    /// Standard input had no valid object and cannot change.
    #[error("there is no valid PortForward in the input")]
    NothingToRun,
    /// Printing the document.
    #[error("cannot print the configuration")]
    Yaml(#[from] serde_yaml::Error),
    /// The rules of the API.
    #[error("cannot read the built-in rules")]
    Rules(#[from] serde_json::Error),
    /// The data plane.
    #[error(transparent)]
    Start(#[from] proxy::handle::StartError),
    /// The data plane has ended by itself.
    #[error(transparent)]
    Ended(#[from] proxy::handle::Ended),
    /// Signals or a runtime.
    #[error("the system refused")]
    System(#[from] io::Error),
}

impl Error {
    pub(crate) fn files(paths: &[PathBuf], error: io::Error) -> Self {
        let missing = paths.iter().find(|path| path.as_os_str() != "-" && std::fs::metadata(path).is_err());
        Self::Files(missing.map_or_else(|| "the files".to_owned(), |path| path.display().to_string()), error)
    }

    /// The error and its causes in one line, outermost first.
    pub(crate) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}
