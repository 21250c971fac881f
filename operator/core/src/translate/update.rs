//! The result of an incremental translation.

use std::collections::BTreeSet;

use proxy_api::Origin;

use crate::{
    translate::{groups::Group, work::Work},
    world::ObjectKey,
};

/// Everything that an update of the translation changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Forwards whose verdict changed, or that are gone.
    pub verdicts: BTreeSet<Origin>,
    /// Groups whose snapshot changed, or that are gone.
    pub programs: BTreeSet<Group>,
    /// Groups whose listener ports changed.
    pub ports: BTreeSet<Group>,
    /// Uids of agents for which the number of unreached pods changed.
    pub agents: BTreeSet<String>,
    /// Uids of agents whose reached pods changed.
    pub reaching: BTreeSet<String>,
    /// Forwards that select pods whose listeners reach these agents.
    pub unreached: BTreeSet<ObjectKey>,
    /// Sidecar groups that gained or lost pods, or that are gone.
    pub pods: BTreeSet<Group>,
    /// Pods that joined, left or changed their sidecar group.
    pub placed: BTreeSet<ObjectKey>,
    /// The cost of the update.
    pub work: Work,
}
