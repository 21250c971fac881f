//! The groups that exist, with their pods and forwards.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::Origin;

use super::forwards::Reread;
use crate::{
    translate::{
        groups::{Group, Moved, Sidecars},
        validate::Placement,
    },
    world::{ObjectKey, World, changes::Changes},
};

/// Groups with their members.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Gateways, which are groups even without forwards.
    gateways: BTreeSet<ObjectKey>,
    /// Sidecar groups by namespace.
    sidecars: BTreeMap<String, Sidecars>,
}

/// Groups that changed, with the members that this affects.
#[derive(Debug, Default)]
pub(super) struct Regrouped {
    /// Groups that exist, among them all new ones.
    pub(super) open: BTreeSet<Group>,
    /// Groups that are gone.
    pub(super) closed: BTreeSet<Group>,
    /// Groups whose claims may have changed.
    pub(super) unsettled: BTreeSet<Group>,
    /// Forwards that left a group.
    pub(super) left: Vec<(Origin, Group)>,
    /// Forwards that were read again, and forwards of groups whose pods changed.
    pub(super) forwards: BTreeSet<Origin>,
    /// Sidecar groups that gained or lost pods, or that are gone.
    pub(super) pods: BTreeSet<Group>,
    /// Pods that joined, left or changed their sidecar group.
    pub(super) placed: BTreeSet<ObjectKey>,
}

/// What forwards that were read again mean for groups.
#[derive(Debug, Default)]
struct Reassigned {
    moved: Moved,
    /// Groups of these forwards, before or now.
    groups: BTreeSet<Group>,
    /// Forwards that left a group.
    left: Vec<(Origin, Group)>,
}

impl Members {
    /// Brings the groups up to date: first gateways, then the forwards that were read again, then pods.
    pub(super) fn regroup(&mut self, world: &World, changes: &Changes, reread: &[Reread]) -> Regrouped {
        let (gateways, deleted) = self.regroup_gateways(world, changes);
        let Reassigned { moved: by_forwards, groups, left } = self.regroup_forwards(world, reread);
        let (by_pods, beside) = self.regroup_pods(world, changes);
        let pods: BTreeSet<Group> = by_forwards.groups.into_iter().chain(by_pods.groups).collect();
        let (populated, deserted): (Vec<Group>, Vec<Group>) =
            pods.iter().cloned().partition(|group| self.pods(group).is_some_and(|pods| !pods.is_empty()));
        // The process of a laptop is a group even without forwards.
        let laptop = world.site.is_laptop().then_some(Group::Laptop);
        let forwards = reread.iter().map(|reread| reread.key.clone()).chain(beside);
        Regrouped {
            unsettled: groups.into_iter().chain(gateways.iter().chain(&populated).cloned()).collect(),
            open: laptop.into_iter().chain(gateways).chain(populated).collect(),
            closed: deleted.into_iter().chain(deserted).collect(),
            left,
            forwards: forwards.chain(by_forwards.forwards).chain(by_pods.forwards).collect(),
            pods,
            placed: by_forwards.pods.into_iter().chain(by_pods.pods).collect(),
        }
    }

    /// The groups of changed gateways: those that exist, and those that are gone.
    fn regroup_gateways(&mut self, world: &World, changes: &Changes) -> (Vec<Group>, Vec<Group>) {
        if world.site.is_laptop() {
            return (Vec::new(), Vec::new());
        }
        let candidates: BTreeSet<ObjectKey> = if changes.all {
            self.gateways.iter().chain(world.gateways.keys()).cloned().collect()
        } else {
            changes.gateways.clone()
        };
        let (mut open, mut deleted) = (Vec::new(), Vec::new());
        for key in candidates {
            if world.gateways.contains_key(&key) {
                self.gateways.insert(key.clone());
                open.push(Group::Gateway(key));
            } else {
                self.gateways.remove(&key);
                deleted.push(Group::Gateway(key));
            }
        }
        (open, deleted)
    }

    /// Updates the selectors of forwards that were read again.
    fn regroup_forwards(&mut self, world: &World, reread: &[Reread]) -> Reassigned {
        let mut reassigned = Reassigned::default();
        for Reread { key, before, after } in reread {
            let old = self.groups_of(world, key, before.as_ref());
            self.select(world, key, after.as_ref(), &mut reassigned.moved);
            let new = self.groups_of(world, key, after.as_ref());
            reassigned.left.extend(old.difference(&new).map(|group| (key.clone(), group.clone())));
            reassigned.groups.extend(old.into_iter().chain(new));
        }
        reassigned
    }

    fn select(&mut self, world: &World, key: &Origin, place: Option<&Placement>, moved: &mut Moved) {
        let selector = match place {
            Some(Placement::Sidecar(selector)) if !world.site.is_laptop() => Some(selector),
            _ => None,
        };
        if selector.is_none() && !self.sidecars.contains_key(&key.namespace) {
            return;
        }
        let sidecars = self.sidecars.entry(key.namespace.clone()).or_default();
        sidecars.select(key, selector, world, moved);
        if sidecars.is_empty() {
            self.sidecars.remove(&key.namespace);
        }
    }

    /// Updates the groups of changed pods; also returns the forwards that now select these pods.
    fn regroup_pods(&mut self, world: &World, changes: &Changes) -> (Moved, BTreeSet<Origin>) {
        let mut moved = Moved::default();
        if world.site.is_laptop() {
            return (moved, BTreeSet::new());
        }
        let mut pods = changes.pods.clone();
        if changes.all {
            pods.extend(world.pods.keys().cloned());
            pods.extend(self.sidecar_groups().flat_map(|(_, pods)| pods).cloned());
        }
        for key in &pods {
            if let Some(sidecars) = self.sidecars.get_mut(&key.namespace) {
                sidecars.pod(key, world.pods.get(key), &mut moved);
            }
        }
        // Ports lost in a leaving pod do not count, so a pod that starts to leave can change verdicts.
        let groups: BTreeSet<&Group> = pods.iter().filter_map(|pod| self.group_of(pod)).collect();
        (moved, groups.into_iter().flat_map(Group::selecting).collect())
    }

    /// The groups of a forward with this placement.
    pub(super) fn groups_of(&self, world: &World, key: &Origin, place: Option<&Placement>) -> BTreeSet<Group> {
        match place {
            None => BTreeSet::new(),
            Some(_) if world.site.is_laptop() => BTreeSet::from([Group::Laptop]),
            Some(Placement::Gateway(gateway)) => BTreeSet::from([Group::Gateway(gateway.clone())]),
            Some(Placement::Sidecar(_)) => {
                self.sidecars.get(&key.namespace).map(|sidecars| sidecars.groups_of(&key.name)).unwrap_or_default()
            }
        }
    }

    /// The pods of a sidecar group.
    pub(super) fn pods(&self, group: &Group) -> Option<&BTreeSet<ObjectKey>> {
        let Group::Sidecars { namespace, .. } = group else { return None };
        self.sidecars.get(namespace)?.pods(group)
    }

    /// The group of a pod, if sidecar forwards select it.
    pub(super) fn group_of(&self, pod: &ObjectKey) -> Option<&Group> {
        self.sidecars.get(&pod.namespace)?.group_of(&pod.name)
    }

    /// Every sidecar group with its pods.
    pub(super) fn sidecar_groups(&self) -> impl Iterator<Item = (&Group, &BTreeSet<ObjectKey>)> {
        self.sidecars.values().flat_map(Sidecars::groups)
    }
}
