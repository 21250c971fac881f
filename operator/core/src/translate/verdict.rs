//! Verdicts: the translation's result for each forward, which becomes its status.

use crds::AcceptedHeaders;
use proxy_api::{Revision, Transport};
use serde::Serialize;

use crate::translate::groups::Group;

/// The result for one forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether the spec is valid and its ports are claimed.
    pub accepted: Condition,
    /// Whether every backend exists and may be used.
    pub resolved_refs: Condition,
    /// The listeners, in the order of the spec.
    pub listeners: Vec<ListenerVerdict>,
    /// The placement of the forward: `sidecar SELECTOR`, or `gateway NAMESPACE/NAME`.
    pub placement: String,
    /// The groups of proxies that should run the forward, sorted.
    pub groups: Vec<Group>,
    /// Groups in which a listener lost its port, while the listener holds the port in others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedIn>,
    /// Settings that are valid but may cause trouble, or have no effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Verdict {
    /// Adds warnings before the others, because status shows only the first: what is not used matters more than a
    /// setting without effect. A warning is added once, though several listeners may use the same Service.
    pub(crate) fn warn_first(&mut self, warnings: &[String]) {
        for warning in warnings.iter().rev() {
            if !self.warnings.contains(warning) {
                self.warnings.insert(0, warning.clone());
            }
        }
    }
}

/// A listener that the pods of one group do not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedIn {
    /// The group.
    pub group: Group,
    /// Name of the listener.
    pub listener: String,
    /// The cause and the remedy.
    pub message: String,
}

/// One condition without times, which are added when status is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Whether the condition is True.
    pub status: bool,
    /// The cause as one word.
    pub reason: Reason,
    /// The cause and the remedy.
    pub message: String,
}

impl Condition {
    pub(crate) fn met(reason: Reason, message: &str) -> Self {
        Self { status: true, reason, message: message.to_owned() }
    }

    pub(crate) fn unmet(reason: Reason, message: String) -> Self {
        Self { status: false, reason, message }
    }
}

/// The reasons of the conditions that a verdict sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Reason {
    /// Accepted=True: valid, and every port is claimed.
    Accepted,
    /// Accepted=True: valid, and stopped by `spec.suspend`.
    Suspended,
    /// Accepted=False: a field has an invalid value.
    Invalid,
    /// Accepted=False: written for another release of Portlane; this operator cannot read it.
    Unsupported,
    /// Accepted=False: another forward, the app or the proxy itself has the port.
    PortConflict,
    /// Accepted=False: another namespace holds a wildcard around a server name, or a name within a wildcard.
    HostnameConflict,
    /// Accepted=False: the `ForwardGateway` does not exist.
    GatewayNotFound,
    /// Accepted=False: the `ForwardGateway` does not admit this namespace, port or server name.
    NotAllowedByGateway,
    /// Accepted=False: the allocation ranges of the gateway have no free port.
    NoPortAvailable,
    /// Accepted=False: the gateway's Service has reached `maxPorts`.
    TooManyPorts,
    /// Accepted=False: the namespace has used up its share of the gateway's ports or forwards.
    QuotaExceeded,
    /// ResolvedRefs=True: every backend exists and may be used.
    ResolvedRefs,
    /// ResolvedRefs=False: a Service or its port does not exist, or an agent does not exist, or does not dial
    /// the proxies of the forward.
    BackendNotFound,
    /// ResolvedRefs=False: a Service is in another namespace, and no `ReferenceGrant` permits its use.
    RefNotPermitted,
    /// ResolvedRefs=False: the gateway may not connect to the address of a backend, or to any endpoint of a Service,
    /// because none has a pod; or an agent does not list the target of a backend.
    AddressNotAllowed,
    /// ResolvedRefs=False: a backend is a listener of the same proxy, or leads back to the fleet of its gateway.
    BackendLoop,
}

impl Reason {
    /// The reason as written in status, tables and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Suspended => "Suspended",
            Self::Invalid => "Invalid",
            Self::Unsupported => "Unsupported",
            Self::TooManyPorts => "TooManyPorts",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::PortConflict => "PortConflict",
            Self::HostnameConflict => "HostnameConflict",
            Self::GatewayNotFound => "GatewayNotFound",
            Self::NotAllowedByGateway => "NotAllowedByGateway",
            Self::NoPortAvailable => "NoPortAvailable",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::BackendNotFound => "BackendNotFound",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::AddressNotAllowed => "AddressNotAllowed",
            Self::BackendLoop => "BackendLoop",
        }
    }
}

/// The result for one listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerVerdict {
    /// Name of the listener.
    pub name: String,
    /// TCP or UDP.
    pub transport: Transport,
    /// The port that the listener holds, the first one of a range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The last port of a range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
    /// TLS server names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// PROXY headers that are read before the server name, and the networks trusted to send them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<AcceptedHeaders>,
    /// Whether the listener lost its port in some of its pods. Status must not list such a port as held: otherwise an
    /// old forward that is edited could take the port from the forward that holds it in those pods.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// The backends in short form, such as `svc/pg:5432`.
    pub to: Vec<String>,
    /// Whether proxies run the listener.
    pub outcome: Outcome,
}

/// Whether proxies run a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The configuration of its groups contains the listener in this revision.
    Published(Revision),
    /// A port was allocated; the listener is published once its status lists the port.
    Allocated,
    /// The forward is suspended.
    Suspended,
    /// No proxy runs this version of the listener.
    Refused {
        /// The cause as one word.
        reason: Reason,
        /// The cause and the remedy.
        message: String,
    },
}
