//! The reasons why a connection did not reach a pod, or broke.

use std::time::Duration;

use super::endpoints::PodId;

/// Why an attempt to attach a connection to a pod failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The user lacks the right. For the protocol in use, API servers before 1.35 check only `get`.
    #[error(
        "cannot forward to pods in namespace {namespace}: ask for `get` and `create` on `pods/portforward` ({message})"
    )]
    Forbidden {
        /// Namespace of the pods.
        namespace: String,
        /// Message of the API server.
        message: String,
    },
    /// The API server does not accept the user's credentials any more.
    #[error("the API server does not accept the credentials of the kubeconfig")]
    Credentials,
    /// The API server cannot be reached.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// The pod does not exist.
    #[error("the pod does not exist any more")]
    Gone,
    /// The kubelet of the pod, or the pod, refuses the connection.
    #[error("{0}")]
    Refused(String),
    /// There was no answer in time.
    #[error("no answer in time")]
    Late,
}

/// Parts of messages of container runtimes (containerd, CRI-O, dockershim's socat) which say that a connection was
/// never established. All other messages may be about a connection that the pod has read from.
const NEVER_CONNECTED: [&str; 8] = [
    "failed to connect",
    "failed to dial",
    "connection refused",
    "connect: ",
    "dial tcp",
    "not found",
    "not running",
    "failed to find",
];

impl Failure {
    /// Classifies an answer of the API server with this HTTP status.
    pub fn of_status(namespace: &str, code: u16, message: &str) -> Self {
        match code {
            401 => Self::Credentials,
            403 => Self::Forbidden { namespace: namespace.to_owned(), message: message.to_owned() },
            404 => Self::Gone,
            _ => Self::Refused(message.to_owned()),
        }
    }

    /// Returns the failure that a container runtime reports, if the pod has never seen the connection. `None`: the pod
    /// may have read from the connection, so that another attempt could repeat a request.
    pub fn of_runtime(message: &str) -> Option<Self> {
        let lower = message.to_lowercase();
        let is_before = NEVER_CONNECTED.iter().any(|part| lower.contains(part));
        (is_before && !Self::is_reset(message)).then(|| Self::Refused(message.trim().to_owned()))
    }

    /// Whether a container runtime reports that the pod took the connection and reset it: a failed read or write.
    pub fn is_reset(message: &str) -> bool {
        let lower = message.to_lowercase();
        lower.contains("reset by peer") || lower.contains("broken pipe")
    }

    /// Whether no other attempt can succeed.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Forbidden { .. } | Self::Credentials)
    }

    /// Whether an attempt with another pod may succeed.
    pub fn is_of_pod(&self) -> bool {
        matches!(self, Self::Gone | Self::Refused(_) | Self::Late)
    }

    /// The failure as a label of counts.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "Forbidden",
            Self::Credentials => "Credentials",
            Self::Unreachable(_) => "Unreachable",
            Self::Gone => "PodGone",
            Self::Refused(_) => "Refused",
            Self::Late => "Timeout",
        }
    }
}

/// Why a connection is closed without having reached a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No pod took new connections in time.
    #[error("no ready pod within {} s ({ready} of {known} pods are ready)", .wait.as_secs())]
    NoReadyPod {
        /// The time that the connection has waited.
        wait: Duration,
        /// Pods that take new connections.
        ready: usize,
        /// Pods that are known.
        known: usize,
    },
    /// The last of several attempts failed.
    #[error("pod {}: {failure} (attempt {attempts})", .pod.name)]
    Failed {
        /// Pod of the last attempt.
        pod: PodId,
        /// Why the last attempt failed.
        failure: Failure,
        /// Number of attempts.
        attempts: u32,
    },
    /// The limit on sessions is reached.
    #[error("there are {most} sessions already: raise {option}")]
    Limit {
        /// The limit.
        most: usize,
        /// The option that raises the limit.
        option: &'static str,
    },
}

impl Refusal {
    /// The refusal as a label of counts.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoReadyPod { .. } => "NoReadyPod",
            Self::Failed { failure, .. } => failure.reason(),
            Self::Limit { .. } => "Limit",
        }
    }
}

/// The end of a session that had reached a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// One side closed the connection.
    #[error("closed")]
    Closed,
    /// The client broke the connection.
    #[error("the client has gone")]
    Client,
    /// The pod ended.
    #[error("pod {0} has ended")]
    PodEnded(String),
    /// The pod reset the connection, or its container runtime reports a failure.
    #[error("pod {0}: {1}")]
    Reset(String, String),
    /// The connection to the API server, or from there to the pod, broke.
    #[error("the connection through the API server to pod {0} broke")]
    Broken(String),
}

impl End {
    /// The end as a label of counts. `None`: there was no failure.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Closed | Self::Client => None,
            Self::PodEnded(_) => Some("PodEnded"),
            Self::Reset(..) => Some("Reset"),
            Self::Broken(_) => Some("Broken"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_pod_has_never_seen_is_tried_again() {
        let containerd = "error forwarding port 81 to pod 0a1b, uid : failed to execute portforward in network namespace \
             \"/var/run/netns/cni-1\": failed to connect to localhost:81 inside namespace \"0a1b\", IPv4: dial tcp4 \
             127.0.0.1:81: connect: connection refused IPv6 dial tcp6: address localhost: no suitable address found";
        let socat = "an error occurred forwarding 81 -> 81: exit status 1: socat E connect(5, AF=2 127.0.0.1:81, 16): \
             Connection refused";
        for text in [containerd, socat, "error forwarding port 81: container 0a1b not found"] {
            assert!(Failure::of_runtime(text).is_some(), "{text}");
        }
        for text in [
            "error forwarding port 81 to pod 0a1b: read tcp4 127.0.0.1:5->127.0.0.1:81: read: connection reset by peer",
            "write: broken pipe",
            "something else",
        ] {
            assert_eq!(Failure::of_runtime(text), None, "{text}");
            assert_eq!(Failure::is_reset(text), text != "something else", "{text}");
        }
    }

    #[test]
    fn a_missing_right_is_named_and_final() {
        let failure = Failure::of_status("shop", 403, "pods \"a\" is forbidden");
        assert!(failure.is_final() && !failure.is_of_pod());
        let text = failure.to_string();
        assert!(text.contains("`get` and `create` on `pods/portforward`") && text.contains("namespace shop"), "{text}");
        assert_eq!(Failure::of_status("shop", 404, ""), Failure::Gone);
        assert!(Failure::of_status("shop", 500, "error dialing backend").is_of_pod());
    }

    #[test]
    fn a_failure_ends_all_attempts_or_those_at_one_pod_or_none() {
        let text = || "x".to_owned();
        let forbidden = Failure::Forbidden { namespace: text(), message: text() };
        for (failure, is_final, is_of_pod) in [
            (forbidden, true, false),
            (Failure::Credentials, true, false),
            (Failure::Unreachable(text()), false, false),
            (Failure::Gone, false, true),
            (Failure::Refused(text()), false, true),
            (Failure::Late, false, true),
        ] {
            assert_eq!((failure.is_final(), failure.is_of_pod()), (is_final, is_of_pod), "{failure:?}");
        }
        assert_eq!(Failure::of_status("shop", 401, ""), Failure::Credentials);
    }

    #[test]
    fn an_end_that_one_side_wants_is_nothing_that_went_wrong() {
        assert_eq!((End::Closed.reason(), End::Client.reason()), (None, None));
        let pod = || "db-0".to_owned();
        let wrong = [End::PodEnded(pod()), End::Reset(pod(), String::new()), End::Broken(pod())];
        assert_eq!(wrong.map(|end| end.reason()), [Some("PodEnded"), Some("Reset"), Some("Broken")]);
    }

    #[test]
    fn what_went_wrong_is_counted_by_one_word() {
        let text = || "x".to_owned();
        let failures = [
            Failure::Forbidden { namespace: text(), message: text() },
            Failure::Credentials,
            Failure::Unreachable(text()),
            Failure::Gone,
            Failure::Refused(text()),
            Failure::Late,
        ];
        let words = failures.map(|failure| failure.reason());
        assert_eq!(words, ["Forbidden", "Credentials", "Unreachable", "PodGone", "Refused", "Timeout"]);
        let refusals = [
            Refusal::NoReadyPod { wait: Duration::ZERO, ready: 0, known: 0 },
            Refusal::Failed { pod: PodId { name: text(), uid: text() }, failure: Failure::Late, attempts: 1 },
            Refusal::Limit { most: 1, option: "--option" },
        ];
        let words = refusals.map(|refusal| refusal.reason());
        assert_eq!(words, ["NoReadyPod", "Timeout", "Limit"], "a failure has its own word");
    }
}
