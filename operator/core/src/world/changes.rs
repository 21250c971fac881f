//! What is new in a world.

use std::collections::BTreeSet;

use crate::world::ObjectKey;

/// Objects that are new, different or gone since the last translation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Everything may be another.
    pub all: bool,
    /// Forwards: spec, ports held by status, or whether they can be read.
    pub forwards: BTreeSet<ObjectKey>,
    /// Gateways.
    pub gateways: BTreeSet<ObjectKey>,
    /// Services: whether they are there, their ports, or the host that they name.
    pub services: BTreeSet<ObjectKey>,
    /// Services with other endpoints.
    pub endpoints: BTreeSet<ObjectKey>,
    /// Pods: whether they are there, or their labels.
    pub pods: BTreeSet<ObjectKey>,
    /// Namespaces with other labels.
    pub namespaces: BTreeSet<String>,
    /// Grants.
    pub grants: bool,
}

impl Changes {
    /// Everything may be another.
    #[must_use]
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Adds others.
    pub fn absorb(&mut self, other: Self) {
        self.all |= other.all;
        self.forwards.extend(other.forwards);
        self.gateways.extend(other.gateways);
        self.services.extend(other.services);
        self.endpoints.extend(other.endpoints);
        self.pods.extend(other.pods);
        self.namespaces.extend(other.namespaces);
        self.grants |= other.grants;
    }

    /// Whether nothing is new.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
