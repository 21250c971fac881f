//! What the watches say.

use crate::world::{ObjectKey, objects::Object};

/// One watch: a kind, in one namespace or in all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// What is watched.
    pub kind: Kind,
    /// Where; `None` is everywhere.
    pub namespace: Option<String>,
}

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `PortForward`.
    Forwards,
    /// `ForwardGateway`.
    Gateways,
    /// `Service`.
    Services,
    /// `EndpointSlice`.
    Slices,
    /// Pods with a proxy.
    ProxyPods,
    /// Metadata of the pods of a namespace.
    Pods,
    /// Metadata of namespaces.
    Namespaces,
    /// `ReferenceGrant`.
    Grants,
    /// Deployments of gateways.
    Deployments,
    /// Autoscalers of ours.
    Scalers,
}

/// One event of a watch.
#[derive(Debug)]
pub enum Seen {
    /// A list begins: what is not in it is gone.
    Restarted,
    /// The list is complete.
    Synced,
    /// An object as it is now.
    Upsert(Box<Object>),
    /// An object is gone.
    Gone(ObjectKey),
}
