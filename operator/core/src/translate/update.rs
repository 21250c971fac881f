//! The result of an incremental translation.

use std::collections::BTreeSet;

use proxy_api::Origin;

use crate::{translate::groups::Group, world::ObjectKey};

/// Everything that an update of the translation changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Forwards whose verdict changed, or that are gone.
    pub verdicts: BTreeSet<Origin>,
    /// Groups whose snapshot changed, or that are gone.
    pub programs: BTreeSet<Group>,
    /// Groups whose listener ports changed.
    pub ports: BTreeSet<Group>,
    /// Sidecar groups that gained or lost pods, or that are gone.
    pub pods: BTreeSet<Group>,
    /// Pods that joined, left or changed their sidecar group.
    pub placed: BTreeSet<ObjectKey>,
    /// What the update looked at.
    pub work: Work,
}

/// What an update of the translation looked at, as counts. They follow what the change concerns, not the size of the
/// world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Selectors compared with the labels of a pod.
    pub selectors: u64,
    /// Pods whose group was looked up, or compared with changed selectors.
    pub pods: u64,
    /// Claims decided, and ports tried for listeners that accept any port.
    pub claims: u64,
    /// Forwards judged.
    pub judged: u64,
}
