//! The claims of every group.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::Origin;

use super::{
    forwards::Forwards,
    members::{Members, Regrouped},
};
use crate::{
    translate::{
        claims::{self, Ledger, Rules},
        groups::Group,
    },
    world::World,
};

/// The claims of every group.
#[derive(Debug, Default)]
pub(super) struct Ledgers {
    by_group: BTreeMap<Group, Ledger>,
}

/// The outcome of decisions about claims.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Groups whose claims were decided.
    pub(super) groups: BTreeSet<Group>,
    /// Forwards with a different outcome.
    pub(super) forwards: BTreeSet<Origin>,
    /// Number of claims decided, and of ports tried for listeners that accept any port.
    pub(super) work: u64,
}

impl Ledgers {
    /// Takes the claims of affected forwards, and decides the claims of every affected group.
    pub(super) fn settle(
        &mut self,
        world: &World,
        regrouped: &Regrouped,
        forwards: &Forwards,
        members: &Members,
    ) -> Settled {
        self.follow(regrouped);
        let mut groups = self.claim(world, &regrouped.forwards, forwards, members);
        groups.extend(regrouped.unsettled.iter().cloned());
        let mut settled = Settled::default();
        for group in groups {
            let Some(ledger) = self.by_group.get_mut(&group) else { continue };
            settled.forwards.extend(ledger.settle(Rules::of(world, &group), &mut settled.work));
            settled.groups.insert(group);
        }
        settled
    }

    /// Opens and closes ledgers with their groups, and removes the claims of forwards from groups that they left.
    fn follow(&mut self, regrouped: &Regrouped) {
        for group in &regrouped.open {
            self.by_group.entry(group.clone()).or_default();
        }
        for group in &regrouped.closed {
            self.by_group.remove(group);
        }
        for (key, group) in &regrouped.left {
            self.withdraw(key, group);
        }
    }

    /// Replaces the claims of these forwards. Returns the groups in which they have claims.
    fn claim(
        &mut self,
        world: &World,
        keys: &BTreeSet<Origin>,
        forwards: &Forwards,
        members: &Members,
    ) -> BTreeSet<Group> {
        let mut claimed = BTreeSet::new();
        for key in keys {
            let Some(known) = forwards.get(key) else { continue };
            // The last good version claims its ports like any other, in new groups too: a mistake does not cost a
            // forward its ports. A forward without a version in force is in no group.
            let Some(forward) = known.in_force() else { continue };
            let candidates = claims::candidates(world, forward);
            for group in members.groups_of(world, key, known.place()) {
                self.by_group.entry(group.clone()).or_default().set(key, candidates.clone());
                claimed.insert(group);
            }
        }
        claimed
    }

    fn withdraw(&mut self, key: &Origin, group: &Group) {
        if let Some(ledger) = self.by_group.get_mut(group) {
            ledger.remove(key);
        }
    }

    /// The claims of a group.
    pub(super) fn get(&self, group: &Group) -> Option<&Ledger> {
        self.by_group.get(group)
    }
}
