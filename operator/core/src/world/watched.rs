//! Watches and their events.

use crate::world::{ObjectKey, child::ChildKind, objects::Object};

/// Identifies a watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Kind of the objects.
    pub kind: Kind,
    /// Namespace of the objects; `None` watches all namespaces.
    pub namespace: Option<String>,
}

/// Kinds of objects that the operator watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `PortForward`.
    Forwards,
    /// `ForwardGateway`.
    Gateways,
    /// `ForwardAgent`.
    Agents,
    /// `Service`.
    Services,
    /// `EndpointSlice`.
    Slices,
    /// The Service of the API server, if its namespace is not watched otherwise.
    ApiServer,
    /// The `EndpointSlice` of that Service.
    ApiServerSlices,
    /// Pods with a proxy.
    ProxyPods,
    /// Metadata of all pods of a namespace.
    Pods,
    /// Metadata of namespaces.
    Namespaces,
    /// `ReferenceGrant`.
    Grants,
    /// Deployments of gateways.
    Deployments,
    /// `StatefulSet`s of gateways with `spec.durability`.
    StatefulSets,
    /// Metadata of the claims of their pods.
    Claims,
    /// Jobs that send the messages on claims.
    Drainers,
    /// Autoscalers that the operator created.
    Scalers,
    /// Metadata of gateways' `ServiceAccount`s.
    ServiceAccounts,
    /// Metadata of gateways' `PodDisruptionBudget`s.
    Budgets,
    /// Metadata of gateways' `NetworkPolicy` objects.
    Policies,
}

impl Kind {
    /// Whether the operator waits for this watch before it works. Watches that only show drift of gateways' children,
    /// or claims to drain, do not justify an outage.
    #[must_use]
    pub fn is_required(self) -> bool {
        !matches!(self, Self::ServiceAccounts | Self::Budgets | Self::Policies | Self::Claims | Self::Drainers)
    }

    /// Whether a cluster may lack the kind. Without it there are no such objects.
    #[must_use]
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::Agents | Self::Grants)
    }

    /// The kind in discovery, in logs and in labels of metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwards => "PortForward",
            Self::Gateways => "ForwardGateway",
            Self::Agents => "ForwardAgent",
            Self::Services | Self::ApiServer => "Service",
            Self::Slices | Self::ApiServerSlices => "EndpointSlice",
            Self::ProxyPods => "ProxyPod",
            Self::Pods => "Pod",
            Self::Namespaces => "Namespace",
            Self::Grants => "ReferenceGrant",
            Self::Deployments => "Deployment",
            Self::StatefulSets => "StatefulSet",
            Self::Claims => "PersistentVolumeClaim",
            Self::Drainers => "Job",
            Self::Scalers => "HorizontalPodAutoscaler",
            Self::ServiceAccounts => "ServiceAccount",
            Self::Budgets => "PodDisruptionBudget",
            Self::Policies => "NetworkPolicy",
        }
    }
}

impl ChildKind {
    /// The watch that shows children of this kind.
    #[must_use]
    pub fn watch(self) -> Kind {
        match self {
            Self::ServiceAccount => Kind::ServiceAccounts,
            Self::Deployment => Kind::Deployments,
            Self::StatefulSet => Kind::StatefulSets,
            Self::PodDisruptionBudget => Kind::Budgets,
            Self::NetworkPolicy => Kind::Policies,
            Self::Service => Kind::Services,
        }
    }
}

/// One event of a watch.
#[derive(Debug)]
pub enum Seen {
    /// A list begins. Objects that are missing from the list are gone.
    Restarted,
    /// The list is complete.
    Synced,
    /// An object was added or changed.
    Upsert(Box<Object>),
    /// An object was deleted.
    Gone(ObjectKey),
}
