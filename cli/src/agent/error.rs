//! The failures of an agent.

use std::{io, net::SocketAddr, path::PathBuf};

use tunnel::{
    enrol::EnrolError,
    identity::{agent::AgentError, tls::TlsError},
    proxy_connect::ProxyUrlError,
};
use tunnel_core::{allow::AllowError, identity::NameError};

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The file of `--config` cannot be read.
    #[error("cannot read the configuration file {}", .path.display())]
    Config { path: PathBuf, source: io::Error },
    /// The file of `--config` is not valid.
    #[error("the configuration file {} is not valid: {why}", .path.display())]
    Syntax { path: PathBuf, why: String },
    /// The join string cannot be read.
    #[error("cannot read the join string from {place}: name another file, or none if this agent has enrolled")]
    Join { place: String, source: io::Error },
    /// The list of targets is not valid.
    #[error("--allow: {0}")]
    Allow(AllowError),
    /// The name of the instance is not valid.
    #[error("--name: {0}")]
    Name(NameError),
    /// There is no folder for the key.
    #[error("this user has no home folder: name the folder for the key and the certificate with --data")]
    NoFolder,
    /// `HTTPS_PROXY` is not valid.
    #[error(transparent)]
    Proxy(ProxyUrlError),
    /// There is neither a join string nor a certificate.
    #[error(
        "this agent has not enrolled, no certificate is in {}: give it a join string of the server with --join-file or \
         PORTLANE_JOIN, or name its folder with --data",
        .0.display()
    )]
    NotEnrolled(PathBuf),
    /// The health address cannot be served.
    #[error("cannot serve the health address {address}: name another one with --health-address")]
    Health { address: SocketAddr, source: io::Error },
    /// The join string cannot be used.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The files of the agent cannot be used.
    #[error(transparent)]
    Files(#[from] AgentError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Signal handlers, the runtime or the random number generator failed.
    #[error("I/O error")]
    System(#[from] io::Error),
}

impl Error {
    /// The exit code: 2 if the arguments are invalid.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Config { .. }
            | Self::Syntax { .. }
            | Self::Join { .. }
            | Self::Allow(_)
            | Self::Name(_)
            | Self::NoFolder
            | Self::Proxy(_)
            | Self::NotEnrolled(_) => 2,
            Self::Health { .. } | Self::Enrol(_) | Self::Files(_) | Self::Tls(_) | Self::System(_) => 1,
        }
    }
}
