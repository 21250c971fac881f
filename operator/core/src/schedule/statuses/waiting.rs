//! The forwards that not every proxy has reported on, by the proxies that they wait for.
//!
//! A forward may wait for a thousand proxies. Only reports of a few of them, its witnesses, trigger an evaluation of
//! the forward: while one witness is late, the forward waits, whatever the others report.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    translate::groups::Group,
    world::{ObjectKey, proxy_id::ProxyId},
};

#[derive(Debug, Default)]
pub(super) struct Waiting {
    forwards: BTreeMap<ObjectKey, Wait>,
    by_witness: BTreeMap<ProxyId, BTreeSet<ObjectKey>>,
    by_group: BTreeMap<Group, BTreeSet<ObjectKey>>,
}

#[derive(Debug)]
struct Wait {
    witnesses: Vec<ProxyId>,
    groups: Vec<Group>,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.forwards.len()
    }

    pub(super) fn has(&self, forward: &ObjectKey) -> bool {
        self.forwards.contains_key(forward)
    }

    /// Records that a forward of these groups waits for these proxies, and perhaps for others.
    pub(super) fn set(&mut self, forward: &ObjectKey, witnesses: &[ProxyId], groups: &[Group]) {
        let known = self.forwards.get(forward);
        if known.is_some_and(|known| known.witnesses == witnesses && known.groups == groups) {
            return;
        }
        self.remove(forward);
        for witness in witnesses {
            self.by_witness.entry(witness.clone()).or_default().insert(forward.clone());
        }
        for group in groups {
            self.by_group.entry(group.clone()).or_default().insert(forward.clone());
        }
        let wait = Wait { witnesses: witnesses.to_vec(), groups: groups.to_vec() };
        self.forwards.insert(forward.clone(), wait);
    }

    /// Records that a forward waits for no proxy.
    pub(super) fn remove(&mut self, forward: &ObjectKey) {
        let Some(Wait { witnesses, groups }) = self.forwards.remove(forward) else { return };
        for witness in &witnesses {
            remove(&mut self.by_witness, witness, forward);
        }
        for group in &groups {
            remove(&mut self.by_group, group, forward);
        }
    }

    /// The forwards that have this proxy as a witness.
    pub(super) fn on(&self, proxy: &ProxyId) -> impl Iterator<Item = &ObjectKey> {
        self.by_witness.get(proxy).into_iter().flatten()
    }

    /// The forwards of a group that wait for any proxy, of this group or of another.
    pub(super) fn in_group(&self, group: &Group) -> impl Iterator<Item = &ObjectKey> {
        self.by_group.get(group).into_iter().flatten()
    }
}

fn remove<K: Ord>(index: &mut BTreeMap<K, BTreeSet<ObjectKey>>, key: &K, forward: &ObjectKey) {
    if let Some(forwards) = index.get_mut(key) {
        forwards.remove(forward);
        if forwards.is_empty() {
            index.remove(key);
        }
    }
}
