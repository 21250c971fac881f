//! The processes of a control plane or a node: certificates, command lines, namespaces, and the keeper that ends it
//! all.
//!
//! A *keeper* is a process of its own that lives exactly as long as its standard input. The test process holds the
//! other end of that pipe, so that the cluster ends with the test, also after a panic or a SIGKILL.

mod addresses;
mod cgroups;
mod children;
mod command;
mod components;
mod configuration;
mod folder;
mod keeper;
mod machine;
mod pki;

pub use addresses::Family;
pub(crate) use children::tail;
pub use folder::Folder;
pub(crate) use folder::workspace;
pub use keeper::main;
pub(crate) use keeper::{Order, Report, Request};

/// Why a cluster did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// A file or process of the cluster failed.
    #[error("{what}")]
    Io {
        /// The operation.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A command of the operating system failed.
    #[error("`{command}` failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// The command's output.
        output: String,
    },
    /// A component ended.
    #[error("{name} ended ({status}); the last lines of {log}:\n{tail}")]
    Ended {
        /// The component.
        name: String,
        /// Exit status.
        status: String,
        /// Path of the component's log.
        log: String,
        /// The end of the log.
        tail: String,
    },
    /// A condition did not hold in time.
    #[error("{what} did not happen within {seconds} s; logs are in {logs}")]
    Late {
        /// The condition.
        what: &'static str,
        /// The limit.
        seconds: u64,
        /// Folder of the logs.
        logs: String,
    },
    /// The process that asked for the cluster is gone.
    #[error("the process that asked for the cluster is gone")]
    Abandoned,
    /// A certificate could not be generated.
    #[error("cannot generate a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A program is missing.
    #[error(transparent)]
    Missing(#[from] crate::programs::Missing),
}

impl ClusterError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
