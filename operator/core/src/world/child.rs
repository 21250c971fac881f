//! The children of gateways, as watches show them.

use crds::ForwardGateway;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{hash::hash, names::NAME};

/// Kinds of a gateway's children. Every child has the namespace and name of its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChildKind {
    /// The identity of the fleet's pods.
    ServiceAccount,
    /// The fleet.
    Deployment,
    /// The fleet of a gateway with `spec.durability`.
    StatefulSet,
    /// The bound on voluntary evictions from the fleet.
    PodDisruptionBudget,
    /// The ports of the fleet that are open.
    NetworkPolicy,
    /// The address of the fleet.
    Service,
}

impl ChildKind {
    /// All kinds, in the order in which children are applied: pods cannot be created without their `ServiceAccount`.
    pub const ALL: [Self; 6] = [
        Self::ServiceAccount,
        Self::Deployment,
        Self::StatefulSet,
        Self::PodDisruptionBudget,
        Self::NetworkPolicy,
        Self::Service,
    ];

    /// The kinds of a gateway's children, in the same order, with only the workload of its fleet.
    pub fn of_gateway(gateway: &ForwardGateway) -> impl Iterator<Item = Self> {
        let fleet = Self::of_fleet(gateway);
        let is_its = move |kind: &Self| *kind == fleet || !matches!(kind, Self::Deployment | Self::StatefulSet);
        Self::ALL.into_iter().filter(is_its)
    }

    /// The kind of a gateway's fleet.
    #[must_use]
    pub fn of_fleet(gateway: &ForwardGateway) -> Self {
        if gateway.spec.durability.is_some() { Self::StatefulSet } else { Self::Deployment }
    }

    /// The value of `kind` in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Service => "Service",
        }
    }

    /// The value of `apiVersion` in a manifest.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::ServiceAccount | Self::Service => "v1",
            Self::Deployment | Self::StatefulSet => "apps/v1",
            Self::PodDisruptionBudget => "policy/v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
        }
    }

    /// Group and version of the API; the group of core kinds is empty.
    #[must_use]
    pub fn group_and_version(self) -> (&'static str, &'static str) {
        self.api_version().split_once('/').unwrap_or(("", self.api_version()))
    }

    /// The name of the resource in paths of the API.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::ServiceAccount => "serviceaccounts",
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::PodDisruptionBudget => "poddisruptionbudgets",
            Self::NetworkPolicy => "networkpolicies",
            Self::Service => "services",
        }
    }
}

/// Fingerprint of the fields that this operator manages in an object. The API server keeps the list of these fields in
/// `managedFields`, and takes a field off the list when another client changes or removes its value. So the mark
/// differs from the mark of the operator's last apply if, and only if, another client undid a part of that apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(Option<u64>);

impl Mark {
    /// The mark of an object; the default if this operator never applied the object.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Self {
        let mut entries = metadata.managed_fields.iter().flatten();
        let ours = entries.find(|entry| {
            entry.manager.as_deref() == Some(NAME)
                && entry.operation.as_deref() == Some("Apply")
                && entry.subresource.is_none()
        });
        Self(ours.and_then(|entry| entry.fields_v1.as_ref()).map(|fields| hash(&fields.0.to_string())))
    }
}

/// The state of a child in a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The state is unknown: the watch is not complete.
    Unknown,
    /// The child does not exist.
    Absent,
    /// An object of that name exists.
    Present(Mark),
}

impl Shown {
    /// Whether another client changed or deleted a child that was applied with this mark.
    #[must_use]
    pub fn differs_from(self, applied: Mark) -> bool {
        match self {
            Self::Present(shown) => shown != applied,
            Self::Absent => true,
            Self::Unknown => false,
        }
    }
}
