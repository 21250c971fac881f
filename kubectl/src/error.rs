//! The failures of a command.

use std::{io, path::PathBuf};

use kube::config::{KubeconfigError, LoadDataError};
use kubectl_core::{access::Unknown, forward::endpoints::Unresolved};

/// The failure of a command, as opposed to its findings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig")]
    Kubeconfig(#[source] KubeconfigError),
    /// The kubeconfig, or a file that it names, cannot be read.
    #[error("cannot use the kubeconfig: cannot read {}", .path.display())]
    KubeconfigFile {
        /// The file.
        path: PathBuf,
        /// Why the file cannot be read.
        #[source]
        source: io::Error,
    },
    /// The kubeconfig has no such context.
    #[error("the kubeconfig has no context {name}{}", guess(.nearest.as_deref()))]
    NoContext {
        /// The name in the arguments.
        name: String,
        /// The nearest existing name.
        nearest: Option<String>,
    },
    /// No client can be made of the kubeconfig.
    #[error("cannot use the kubeconfig: its cluster or its user does not make a connection")]
    Client(#[source] Box<kube::Error>),
    /// The API server cannot be reached.
    #[error("cannot reach the API server at {address} (is the context right?)")]
    Unreachable {
        /// Address of the API server.
        address: String,
        /// Why the connection failed.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("the API server at {address} does not answer within {seconds} s (is the context right?)")]
    Silent {
        /// Address of the API server.
        address: String,
        /// Deadline of the request.
        seconds: u64,
    },
    /// The API server does not accept the user.
    #[error("the API server at {address} does not accept the credentials of the kubeconfig")]
    Credentials {
        /// Address of the API server.
        address: String,
    },
    /// The forward cannot be read.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// The cluster does not have the kinds of Portlane.
    #[error("{}; {}", kubectl_core::installation::MISSING, kubectl_core::installation::INSTALL)]
    NoKinds,
    /// The forward does not exist.
    #[error("PortForward {namespace}/{name} does not exist{}", guess(.nearest.as_deref()))]
    NoForward {
        /// The namespace that was read.
        namespace: String,
        /// The name in the arguments.
        name: String,
        /// The nearest existing name.
        nearest: Option<String>,
    },
    /// The object to forward does not exist.
    #[error("{kind} {namespace}/{name} does not exist{}", guess(.nearest.as_deref()))]
    NoObject {
        /// Kind of the object.
        kind: &'static str,
        /// The namespace that was read.
        namespace: String,
        /// The name in the arguments.
        name: String,
        /// The nearest existing name.
        nearest: Option<String>,
    },
    /// The target cannot be forwarded.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// The number of a named port is not known, because the target has no pod.
    #[error("{target} has no pod that would give port {port} a number: write LOCAL:{port}")]
    NoLocalPort {
        /// The target.
        target: String,
        /// Name of the port.
        port: String,
    },
    /// The local port cannot be used.
    #[error("cannot listen on port {port} of this machine: name another one before the port, as in LOCAL:PORT")]
    Listen {
        /// The local port.
        port: u16,
        /// Why the local port cannot be used.
        #[source]
        source: io::Error,
    },
    /// The page cannot be served at the port.
    #[error("cannot listen on 127.0.0.1:{port}: choose another --port, or 0 for a free one")]
    Page {
        /// The port.
        port: u16,
        /// Why the page cannot be served.
        #[source]
        source: io::Error,
    },
    /// The forward has no such listener.
    #[error("PortForward {forward} has no listener {name}: its listeners are {}{}", .names.join(", "), guess(.nearest.as_deref()))]
    NoListener {
        /// The forward, as `NAMESPACE/NAME`.
        forward: String,
        /// The name in the arguments.
        name: String,
        /// The listeners of the forward.
        names: Vec<String>,
        /// The nearest existing name.
        nearest: Option<String>,
    },
    /// The pod does not exist.
    #[error("pod {pod} does not exist{}", guess(.nearest.as_deref()))]
    NoPod {
        /// The pod, as `NAMESPACE/NAME`.
        pod: String,
        /// The pod with a proxy that has the nearest name.
        nearest: Option<String>,
    },
    /// The namespace does not exist.
    #[error("namespace {name} does not exist{}", guess(.nearest.as_deref()))]
    NoNamespace {
        /// The name in the arguments.
        name: String,
        /// The nearest existing name.
        nearest: Option<String>,
    },
    /// The pod has no proxy.
    #[error("pod {pod} has no proxy of Portlane: the label portlane.dev/proxy is missing")]
    NoProxy {
        /// The pod, as `NAMESPACE/NAME`.
        pod: String,
    },
    /// There is no terminal for the user's confirmation.
    #[error("{plan} Add --yes: standard input is not a terminal, so nobody can confirm")]
    Unasked {
        /// The planned action.
        plan: String,
    },
    /// The user has declined.
    #[error("nothing is changed")]
    Declined,
    /// A drain has not ended in time.
    #[error("{what} is not drained after {seconds} s: {left}")]
    Late {
        /// The object that is drained.
        what: String,
        /// The remaining work.
        left: String,
        /// The time that the user allows.
        seconds: i64,
    },
    /// Manifests cannot be run, or a report cannot be printed.
    #[error(transparent)]
    Portlane(#[from] portlane::Error),
    /// The runtime or standard output failed.
    #[error("I/O error")]
    System(#[from] io::Error),
}

/// The end of a message about a name that does not exist.
fn guess(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default()
}

impl From<KubeconfigError> for Error {
    /// Failures to read a file get words of our own: those of kube put its path into two pairs of quotes.
    fn from(error: KubeconfigError) -> Self {
        match error {
            KubeconfigError::ReadConfig(source, path)
            | KubeconfigError::LoadCertificateAuthority(LoadDataError::ReadFile(source, path))
            | KubeconfigError::LoadClientCertificate(LoadDataError::ReadFile(source, path))
            | KubeconfigError::LoadClientKey(LoadDataError::ReadFile(source, path)) => {
                Self::KubeconfigFile { path, source }
            }
            other => Self::Kubeconfig(other),
        }
    }
}

impl Error {
    /// The exit code of the program.
    pub(crate) fn code(&self) -> u8 {
        match self {
            // The object may exist, but could not be read.
            Self::Unknown(_) => 3,
            Self::Late { .. } => 1,
            _ => 2,
        }
    }

    /// The error and its causes in one line, outermost first.
    pub(crate) fn with_causes(&self) -> String {
        portlane::with_causes(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_kubeconfig_that_cannot_be_read_is_named_without_quotes() {
        let missing = || (io::Error::from(io::ErrorKind::NotFound), PathBuf::from("/no such"));
        let config = |(source, path)| KubeconfigError::ReadConfig(source, path);
        let key = |(source, path)| KubeconfigError::LoadClientKey(LoadDataError::ReadFile(source, path));
        for error in [config(missing()), key(missing())] {
            let told = Error::from(error).with_causes();
            assert_eq!(told, "cannot use the kubeconfig: cannot read /no such: entity not found");
        }
        let other = Error::from(KubeconfigError::CurrentContextNotSet).with_causes();
        assert_eq!(other, "cannot use the kubeconfig: failed to determine current context");
    }
}
