//! The effects of watch events on translation, status and children.

use std::collections::BTreeSet;

use crate::world::{ObjectKey, changes::Changes, subject::Subject};

/// Everything that watch events changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Changes of the world, for a translation.
    pub changes: Changes,
    /// Changed pods with a proxy.
    pub proxy_pods: BTreeSet<ObjectKey>,
    /// Changed forwards, including changes of status only.
    pub forwards: BTreeSet<ObjectKey>,
    /// Changed agents, including changes of status only.
    pub agents: BTreeSet<ObjectKey>,
    /// Gateways that changed or whose children changed.
    pub gateways: BTreeSet<ObjectKey>,
    /// Autoscalers that request more replicas than before.
    pub grown: Vec<Grown>,
    /// Whether the cache became synced: every watch is complete, and was not before.
    pub synced: bool,
}

/// An autoscaler that requests more replicas than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grown {
    /// The forward or gateway that requests the autoscaler.
    pub subject: Subject,
    /// Replicas requested before.
    pub from: i32,
    /// Replicas requested now.
    pub to: i32,
}

impl Touched {
    /// Adds the changes of another event.
    pub fn absorb(&mut self, other: Self) {
        self.changes.absorb(other.changes);
        self.proxy_pods.extend(other.proxy_pods);
        self.forwards.extend(other.forwards);
        self.agents.extend(other.agents);
        self.gateways.extend(other.gateways);
        self.synced |= other.synced;
    }

    /// Marks an object whose status may change.
    pub(super) fn subject(&mut self, subject: &Subject) {
        match subject {
            Subject::Forward(key) => self.forwards.insert(key.clone()),
            Subject::Gateway(key) => self.gateways.insert(key.clone()),
            Subject::Agent(key) => self.agents.insert(key.clone()),
        };
    }

    pub(super) fn gateway(key: Option<ObjectKey>) -> Self {
        Self { gateways: key.into_iter().collect(), ..Self::default() }
    }
}
