//! What the translation has to say about each forward.

use crds::AcceptedHeaders;
use proxy_api::{Revision, Transport};
use serde::Serialize;

use crate::{translate::groups::Group, world::ObjectKey};

/// The judgement on one forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The spec is valid and its ports are won.
    pub accepted: Condition,
    /// Every backend exists and may be used.
    pub resolved_refs: Condition,
    /// Its listeners, in the order of the spec.
    pub listeners: Vec<ListenerVerdict>,
    /// Where it should run: `sidecar`, or `gateway NAMESPACE/NAME`.
    pub placement: String,
    /// The groups of proxies that should run it, in order.
    pub groups: Vec<Group>,
    /// Pods in which a listener lost its port to a forward that this one meets only there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedIn>,
    /// Things that work and may surprise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A listener that is left out in one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedIn {
    /// The pod.
    pub pod: ObjectKey,
    /// The listener.
    pub listener: String,
    /// Why, and what to do.
    pub message: String,
}

/// One condition, without times: those belong to whoever writes status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// True or False.
    pub status: bool,
    /// Why, one word.
    pub reason: Reason,
    /// Why, and what to do.
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

/// Every reason that a verdict can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Reason {
    /// Accepted: valid, and every port is won.
    Accepted,
    /// Accepted, and stopped by `spec.suspend`.
    Suspended,
    /// Accepted=False: a field says something impossible.
    Invalid,
    /// Accepted=False: written for another release of Portlane; this operator cannot read it.
    Unsupported,
    /// Accepted=False: another forward, or the proxy itself, has the port.
    PortConflict,
    /// Accepted=False: the `ForwardGateway` does not exist.
    GatewayNotFound,
    /// Accepted=False: the `ForwardGateway` does not admit this namespace or port.
    NotAllowedByGateway,
    /// Accepted=False: the gateway has no port left to give.
    NoPortAvailable,
    /// Accepted=False: the gateway's Service has as many ports as it may.
    TooManyPorts,
    /// `ResolvedRefs`: every backend exists and may be used.
    ResolvedRefs,
    /// ResolvedRefs=False: a Service or its port does not exist.
    BackendNotFound,
    /// ResolvedRefs=False: a Service of another namespace without a grant.
    RefNotPermitted,
    /// ResolvedRefs=False: an address that this gateway may not connect to.
    AddressNotAllowed,
    /// ResolvedRefs=False: a backend that is a listener of the same proxy.
    BackendLoop,
}

impl Reason {
    /// The word in status, tables and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Suspended => "Suspended",
            Self::Invalid => "Invalid",
            Self::Unsupported => "Unsupported",
            Self::TooManyPorts => "TooManyPorts",
            Self::PortConflict => "PortConflict",
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

/// The judgement on one listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerVerdict {
    /// Its name.
    pub name: String,
    /// TCP or UDP.
    pub transport: Transport,
    /// The port it has, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The last port, of a range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
    /// Server names, of TLS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Whose PROXY headers are read before those names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<AcceptedHeaders>,
    /// It lost the port in some of its pods. Status must not list such a port as held: an old forward that is edited
    /// could then take it from the forward that holds it there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Its backends in words, such as `svc/pg:5432`.
    pub to: Vec<String>,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What becomes of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It stands in the configuration of its groups with this revision.
    Published(Revision),
    /// It was given a port that must stand in status before it is published.
    Allocated,
    /// Its forward is suspended.
    Suspended,
    /// It is left out.
    Refused {
        /// Why, one word.
        reason: Reason,
        /// Why, and what to do.
        message: String,
    },
}
