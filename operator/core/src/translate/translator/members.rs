//! The groups that exist, with their pods and forwards.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::{Origin, OriginKind};

use super::forwards::Reread;
use crate::{
    translate::{
        groups::{Group, Moved, SidecarGroup, Sidecars},
        validate::Placement,
        work::Work,
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
    /// Forwards that were read again, and forwards of sidecar groups that are new or gone, or began or ceased to count.
    pub(super) forwards: BTreeSet<Origin>,
    /// Sidecar groups that gained or lost pods, or that are gone.
    pub(super) pods: BTreeSet<Group>,
    /// Pods that joined, left or changed their sidecar group.
    pub(super) placed: BTreeSet<ObjectKey>,
    /// The number of compared selectors and pods.
    pub(super) work: Work,
}

/// The effects on groups of forwards that were read again.
#[derive(Debug, Default)]
struct Reassigned {
    /// Namespaces in which sidecar forwards changed their selectors.
    reselected: BTreeSet<String>,
    /// Groups of these forwards, before or now.
    groups: BTreeSet<Group>,
    /// Forwards that left a group.
    left: Vec<(Origin, Group)>,
}

impl Members {
    /// Brings the groups up to date: first gateways, then the forwards that were read again, then pods.
    pub(super) fn regroup(&mut self, world: &World, changes: &Changes, reread: &[Reread]) -> Regrouped {
        let (gateways, deleted) = self.regroup_gateways(world, changes);
        let Reassigned { reselected, groups, left } = self.regroup_forwards(world, reread);
        let (Moved { groups: pods, turned, pods: placed }, work) = self.regroup_pods(world, changes, reselected);
        // If other pods stay in a group, a pod that joins or leaves the group changes neither claims nor verdicts.
        let mut forwards: BTreeSet<Origin> = reread.iter().map(|reread| reread.key.clone()).collect();
        forwards.extend(turned.iter().flat_map(Group::selecting));
        let (populated, deserted): (Vec<Group>, Vec<Group>) =
            turned.into_iter().partition(|group| self.pods(group).is_some());
        // The process of a laptop is a group even without forwards.
        let laptop = world.site.is_laptop().then_some(Group::Laptop);
        Regrouped {
            unsettled: groups.into_iter().chain(gateways.iter().chain(&populated).cloned()).collect(),
            open: laptop.into_iter().chain(gateways).chain(populated).collect(),
            closed: deleted.into_iter().chain(deserted).collect(),
            left,
            forwards,
            pods,
            placed,
            work,
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

    /// Updates the selectors of forwards that were read again; pods change their groups once all forwards are read.
    fn regroup_forwards(&mut self, world: &World, reread: &[Reread]) -> Reassigned {
        let mut reassigned = Reassigned::default();
        for Reread { key, before, after } in reread {
            let old = self.groups_of(world, key, before.as_ref());
            if self.select(world, key, after.as_ref()) {
                reassigned.reselected.insert(key.namespace.clone());
            }
            let new = self.groups_of(world, key, after.as_ref());
            reassigned.left.extend(old.difference(&new).map(|group| (key.clone(), group.clone())));
            reassigned.groups.extend(old.into_iter().chain(new));
        }
        reassigned
    }

    /// Sets the selector of a forward; returns whether it changed.
    fn select(&mut self, world: &World, key: &Origin, place: Option<&Placement>) -> bool {
        match key.kind {
            OriginKind::PortForward => {}
            // Groups name the forwards that select their pods without a kind, so only PortForwards select pods.
            OriginKind::Other(_) => return false,
        }
        let selector = match place {
            Some(Placement::Sidecar(selector)) if !world.site.is_laptop() => Some(selector),
            _ => None,
        };
        if selector.is_none() && !self.sidecars.contains_key(&key.namespace) {
            return false;
        }
        self.sidecars.entry(key.namespace.clone()).or_default().select(&key.name, selector)
    }

    /// Updates the groups of changed pods, and of pods that changed selectors select.
    fn regroup_pods(&mut self, world: &World, changes: &Changes, reselected: BTreeSet<String>) -> (Moved, Work) {
        let (mut moved, mut work) = (Moved::default(), Work::default());
        if world.site.is_laptop() {
            return (moved, work);
        }
        let mut pods = changes.pods.clone();
        if changes.all {
            pods.extend(world.pods.keys().cloned());
            pods.extend(self.sidecar_groups().flat_map(|(_, pods)| pods).cloned());
        }
        let mut namespaces = reselected;
        namespaces.extend(pods.iter().map(|pod| pod.namespace.clone()));
        for namespace in namespaces {
            let Some(sidecars) = self.sidecars.get_mut(&namespace) else { continue };
            sidecars.place(&namespace, &pods, world, &mut moved, &mut work);
            if sidecars.is_empty() {
                self.sidecars.remove(&namespace);
            }
        }
        (moved, work)
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
        self.sidecars.get(group.sidecars()?.namespace())?.pods(group)
    }

    /// Whether a group counts for verdicts: a group whose pods are all terminating does not.
    pub(super) fn counts(&self, group: &Group) -> bool {
        let Some(namespace) = group.sidecars().map(SidecarGroup::namespace) else { return true };
        self.sidecars.get(namespace).is_some_and(|sidecars| sidecars.counts(group))
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
