//! Changes of the world since the last translation.

use std::collections::BTreeSet;

use crate::world::ObjectKey;

/// Objects that were added, changed or removed since the last translation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Whether any object may have changed.
    pub all: bool,
    /// Forwards whose spec, ports in status or readability changed.
    pub forwards: BTreeSet<ObjectKey>,
    /// Agents whose spec or readability changed.
    pub agents: BTreeSet<ObjectKey>,
    /// The gateways that these agents name or named.
    pub agents_at: BTreeSet<ObjectKey>,
    /// The gateways among `agents_at` that have, or had, their maximum of agents or more, or agents of a namespace that
    /// exceed its share: the choice of agents that they take may have changed.
    pub crowded: BTreeSet<ObjectKey>,
    /// Gateways whose spec changed.
    pub gateways: BTreeSet<ObjectKey>,
    /// Services whose existence, ports or external host changed.
    pub services: BTreeSet<ObjectKey>,
    /// Services whose endpoints changed.
    pub endpoints: BTreeSet<ObjectKey>,
    /// Services whose endpoints without a pod changed.
    pub podless: BTreeSet<ObjectKey>,
    /// Gateways whose fleet has a different reach, or runs on other nodes.
    pub reach: BTreeSet<ObjectKey>,
    /// The gateways among `reach` whose Services in front changed.
    pub fronts: BTreeSet<ObjectKey>,
    /// Gateways with tunnels whose ready pods changed.
    pub peers: BTreeSet<ObjectKey>,
    /// Pods with a sidecar whose address changed, or that were added or removed.
    pub sidecar_pods: BTreeSet<ObjectKey>,
    /// Pods whose existence, labels, app ports, injection or deletion changed.
    pub pods: BTreeSet<ObjectKey>,
    /// Namespaces whose labels changed.
    pub namespaces: BTreeSet<String>,
    /// Whether any grant changed.
    pub grants: bool,
}

impl Changes {
    /// Changes for a full translation.
    #[must_use]
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Adds other changes.
    pub fn absorb(&mut self, other: Self) {
        self.all |= other.all;
        self.forwards.extend(other.forwards);
        self.agents.extend(other.agents);
        self.agents_at.extend(other.agents_at);
        self.crowded.extend(other.crowded);
        self.gateways.extend(other.gateways);
        self.services.extend(other.services);
        self.endpoints.extend(other.endpoints);
        self.podless.extend(other.podless);
        self.reach.extend(other.reach);
        self.fronts.extend(other.fronts);
        self.peers.extend(other.peers);
        self.sidecar_pods.extend(other.sidecar_pods);
        self.pods.extend(other.pods);
        self.namespaces.extend(other.namespaces);
        self.grants |= other.grants;
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
