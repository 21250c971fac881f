//! What has to be looked at after a message.

use std::collections::BTreeSet;

use crate::world::{ObjectKey, changes::Changes, subject::Subject};

/// What messages changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// What a translation has to look at.
    pub changes: Changes,
    /// Pods that carry a proxy.
    pub proxy_pods: BTreeSet<ObjectKey>,
    /// Forwards, be it only their status.
    pub forwards: BTreeSet<ObjectKey>,
    /// Gateways or their children.
    pub gateways: BTreeSet<ObjectKey>,
    /// Autoscalers that ask for more replicas than before.
    pub grown: Vec<Grown>,
    /// Every watch is complete now, and was not before.
    pub synced: bool,
}

/// An autoscaler asks for more replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grown {
    /// Whose.
    pub subject: Subject,
    /// What it asked for before.
    pub from: i32,
    /// What it asks for now.
    pub to: i32,
}

impl Touched {
    /// Adds what another message changed.
    pub fn absorb(&mut self, other: Self) {
        self.changes.absorb(other.changes);
        self.proxy_pods.extend(other.proxy_pods);
        self.forwards.extend(other.forwards);
        self.gateways.extend(other.gateways);
        self.synced |= other.synced;
    }

    /// The status of an object may be another.
    pub(super) fn subject(&mut self, subject: &Subject) {
        match subject {
            Subject::Forward(key) => self.forwards.insert(key.clone()),
            Subject::Gateway(key) => self.gateways.insert(key.clone()),
        };
    }

    pub(super) fn gateway(key: Option<ObjectKey>) -> Self {
        Self { gateways: key.into_iter().collect(), ..Self::default() }
    }
}
