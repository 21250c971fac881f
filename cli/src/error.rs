//! The failures of a command.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::store::LeftOut;

/// The failure of a command, as opposed to problems in the manifests.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path on the command line cannot be read.
    #[error("cannot read {0}")]
    Files(String, #[source] io::Error),
    /// No source can change later, and none of the listeners can run.
    #[error("no listener of the input can run, and the input cannot change: nothing to run")]
    NothingToRun,
    /// `--print` was given without a forward.
    #[error(
        "--print shows the manifests of forwards on the command line, such as 5432:db.example.com:5432, and there is none"
    )]
    NothingToPrint,
    /// The manifests have no object for the command.
    #[error(
        "no {wanted} in {paths}: nothing to {verb}{}; name a file or folder that has one, or a forward such as \
         5432:db.example.com:5432",
        .left_out.as_ref().map(|line| format!("; {line}")).unwrap_or_default()
    )]
    Nothing {
        /// The verb of the command.
        verb: &'static str,
        /// Kinds of objects for the command.
        wanted: &'static str,
        /// The paths that were searched.
        paths: String,
        /// Other contents of the paths.
        left_out: Option<String>,
    },
    /// The configuration document does not serialise.
    #[error("cannot serialise the configuration")]
    Yaml(#[from] serde_yaml::Error),
    /// The CRDs of this build do not serialise.
    #[error("cannot load the built-in validation rules")]
    Rules(#[from] serde_json::Error),
    /// A report does not serialise.
    #[error("cannot serialise the report: {0}")]
    Report(String),
    /// There is no answer at the admin address.
    #[error(
        "nothing answers at {address} ({why}): start `portlane run --admin-address {address}`, or name the admin address \
         of the process with --admin-address; for a cluster: kubectl portlane"
    )]
    NotRunning {
        /// The admin address.
        address: SocketAddr,
        /// Why there is no answer.
        why: io::Error,
    },
    /// Another program answers at the admin address, or the answer is damaged.
    #[error("GET {path} from {address}: {why} (is this the admin address of `portlane run` or `portlane-proxy`?)")]
    Admin {
        /// The admin address.
        address: SocketAddr,
        /// The document.
        path: &'static str,
        /// The problem with the answer.
        why: String,
    },
    /// The process is shutting down.
    #[error("GET {path} from {address}: {}", proxy::http::ENDING)]
    Ending {
        /// The admin address.
        address: SocketAddr,
        /// The document.
        path: &'static str,
    },
    /// The process runs no such forward.
    #[error("{0}")]
    NoForward(String),
    /// The build has no TLS.
    #[cfg(not(feature = "tunnels"))]
    #[error(
        "this build of portlane has no tunnels: install a build with tunnels, or build portlane with the feature \
         tunnels, which is on by default"
    )]
    NoTunnels,
    /// The plugin of kubectl cannot be run.
    #[error("cannot run {}", .program.display())]
    Plugin {
        /// The program.
        program: PathBuf,
        /// Why the plugin cannot be run.
        #[source]
        source: io::Error,
    },
    /// The plugin of kubectl is not installed.
    #[error(
        "`portlane {word}` looks at a cluster, which is what kubectl-portlane is for: install it beside portlane or on the \
         PATH (cargo install --path kubectl)"
    )]
    NoPlugin {
        /// The verb, or the option that names a cluster.
        word: String,
    },
    /// Not all dead letters could be printed.
    #[cfg(feature = "durable")]
    #[error(transparent)]
    Letters(#[from] proxy::letters::LettersError),
    /// The data plane did not start.
    #[error(transparent)]
    Start(#[from] proxy::handle::StartError),
    /// The data plane ended by itself.
    #[error(transparent)]
    Ended(#[from] proxy::handle::Ended),
    /// A thread of the data plane panicked.
    #[error(transparent)]
    Died(#[from] proxy::handle::Died),
    /// Signal handlers, the runtime or the output failed.
    #[error("I/O error")]
    System(#[from] io::Error),
}

impl Error {
    /// The error that the manifests of these paths have none of the kinds `wanted`.
    pub(crate) fn nothing(verb: &'static str, wanted: &'static str, paths: &[PathBuf], left_out: &LeftOut) -> Self {
        let name = |path: &PathBuf| match path.to_str() {
            Some("-") => "standard input".to_owned(),
            _ => path.display().to_string(),
        };
        let paths = paths.iter().map(name).collect::<Vec<_>>().join(", ");
        Self::Nothing { verb, wanted, paths, left_out: left_out.line() }
    }

    /// The error about paths: names the path that does not exist, if any.
    pub(crate) fn files(paths: &[PathBuf], error: io::Error) -> Self {
        let missing = paths.iter().find(|path| path.as_os_str() != "-" && std::fs::metadata(path).is_err());
        Self::Files(missing.map_or_else(|| "the files".to_owned(), |path| shown(path)), error)
    }

    /// The error and its causes in one line, outermost first.
    pub(crate) fn with_causes(&self) -> String {
        proxy_api::with_causes(self)
    }
}

/// Formats a path that does not exist. If it is a pattern in quotes, which kubectl expands, adds the remedy.
fn shown(path: &Path) -> String {
    let path = path.display().to_string();
    if path.contains(['*', '?', '[']) {
        return format!(
            "{path} (patterns are not expanded: leave out the quotes, so that the shell expands them, or name the folder)"
        );
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_in_quotes_is_refused_with_what_to_write() {
        let missing = |path: &str| {
            let error = io::Error::from(io::ErrorKind::NotFound);
            Error::files(&[PathBuf::from(path)], error).with_causes()
        };
        let pattern = missing("/nosuch/*.yaml");
        assert!(pattern.starts_with("cannot read /nosuch/*.yaml (patterns are not expanded: leave out"), "{pattern}");
        assert!(!missing("/nosuch/a.yaml").contains("patterns"));
    }
}
