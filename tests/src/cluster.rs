//! What runs when a test asks for a Kubernetes: certificates, command lines, namespaces, and the keeper that ends it all.
//!
//! A *keeper* is a process of its own that lives exactly as long as its standard input: whoever asked for the cluster
//! holds the other end of that pipe, so that the cluster ends with it, also after a panic or a SIGKILL.

mod cgroups;
mod children;
mod components;
mod configuration;
mod folder;
mod inside;
mod keeper;
mod machine;
mod pki;

pub(crate) use children::tail;
pub use folder::Folder;
pub(crate) use folder::workspace;
pub use keeper::main;
pub(crate) use keeper::{Answer, Ask, Order};

/// Address of the node inside its network namespace. The three networks are reserved for tests (RFC 5737, RFC 2544).
pub(crate) const NODE_ADDRESS: &str = "192.0.2.1";
/// Port of the API server on [`NODE_ADDRESS`].
pub(crate) const API_PORT: u16 = 6443;
/// Where addresses of Pods come from.
pub(crate) const POD_NETWORK: &str = "198.18.0.0/16";
/// Where addresses of Services come from.
pub(crate) const SERVICE_NETWORK: &str = "198.19.0.0/16";
/// First address of [`SERVICE_NETWORK`]: the API server's own Service.
pub(crate) const API_SERVICE: &str = "198.19.0.1";
/// Address of the cluster's DNS.
pub(crate) const DNS_SERVICE: &str = "198.19.0.10";

/// Why a cluster did not come up, or went away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// A file or process of the cluster.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A command of the operating system failed.
    #[error("`{command}` failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// What it wrote.
        output: String,
    },
    /// A component ended.
    #[error("{name} ended ({status}); the last lines of {log}:\n{tail}")]
    Ended {
        /// The component.
        name: String,
        /// How it ended.
        status: String,
        /// Its log.
        log: String,
        /// The end of the log.
        tail: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} s; logs are in {logs}")]
    Late {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        seconds: u64,
        /// Where the logs are.
        logs: String,
    },
    /// Whoever asked for the cluster is gone.
    #[error("nobody holds the cluster any more")]
    Abandoned,
    /// A certificate could not be made.
    #[error("a certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// A program is not there.
    #[error(transparent)]
    Missing(#[from] crate::programs::Missing),
}

impl ClusterError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
