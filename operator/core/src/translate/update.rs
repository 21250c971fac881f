//! What a translation changed.

use std::collections::BTreeSet;

use crate::{translate::groups::Group, world::ObjectKey};

/// What a translation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Forwards on which the verdict is another one, or that are gone.
    pub verdicts: BTreeSet<ObjectKey>,
    /// Groups that are to run something else, or are gone.
    pub programs: BTreeSet<Group>,
    /// Groups whose listeners have other ports.
    pub ports: BTreeSet<Group>,
    /// Sidecar groups with other pods, or that are gone.
    pub pods: BTreeSet<Group>,
    /// Pods that are in another sidecar group than before, or in none.
    pub placed: BTreeSet<ObjectKey>,
}
