//! The sidecar groups of one namespace, updated as pods and forwards change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::Selector;
use proxy_api::Transport;

use super::{
    Group, SidecarGroup,
    selectors::{Labels, Selectors},
};
use crate::{
    translate::work::Work,
    world::{ObjectKey, Pod, World},
};

type AppPorts = BTreeSet<(Transport, u16)>;

/// Sidecar forwards and pods of one namespace.
#[derive(Debug, Default)]
pub(crate) struct Sidecars {
    selectors: Selectors,
    /// Forwards whose selectors changed since the pods were last placed.
    reselected: BTreeSet<String>,
    /// The selected pods.
    placed: BTreeMap<String, Placed>,
    groups: BTreeMap<Group, Members>,
    groups_of: BTreeMap<Arc<str>, GroupsOf>,
}

/// The groups of one forward. Nearly all of tens of thousands of forwards have one group, which needs no node of a set.
#[derive(Debug, PartialEq, Eq)]
enum GroupsOf {
    One(Group),
    /// The groups of a forward that once had several; it may have one now.
    Several(BTreeSet<Group>),
}

impl GroupsOf {
    fn all(&self) -> BTreeSet<Group> {
        match self {
            Self::One(group) => BTreeSet::from([group.clone()]),
            Self::Several(groups) => groups.clone(),
        }
    }

    fn with(self, group: &Group) -> Self {
        match self {
            Self::One(only) if only == *group => Self::One(only),
            Self::One(only) => Self::Several(BTreeSet::from([only, group.clone()])),
            Self::Several(mut groups) => {
                groups.insert(group.clone());
                Self::Several(groups)
            }
        }
    }

    /// The groups without one of them; `None` if there is no other.
    fn without(self, group: &Group) -> Option<Self> {
        match self {
            Self::One(only) => (only != *group).then_some(Self::One(only)),
            Self::Several(mut groups) => {
                groups.remove(group);
                (!groups.is_empty()).then_some(Self::Several(groups))
            }
        }
    }
}

#[derive(Debug)]
struct Placed {
    group: Group,
    leaving: bool,
}

#[derive(Debug, Default)]
struct Members {
    pods: BTreeSet<ObjectKey>,
    /// Number of pods that are not terminating.
    staying: usize,
}

/// Changes of group membership.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Groups that gained or lost pods; a group without pods is gone.
    pub(crate) groups: BTreeSet<Group>,
    /// Groups that are new, that are gone, or that began or ceased to count; see [`Sidecars::counts`].
    pub(crate) turned: BTreeSet<Group>,
    /// Pods that joined, left or changed their group.
    pub(crate) pods: BTreeSet<ObjectKey>,
}

impl Sidecars {
    /// Whether the namespace has neither sidecar forwards nor selected pods.
    pub(crate) fn is_empty(&self) -> bool {
        self.selectors.is_empty() && self.placed.is_empty()
    }

    /// The groups of a forward.
    pub(crate) fn groups_of(&self, forward: &str) -> BTreeSet<Group> {
        self.groups_of.get(forward).map(GroupsOf::all).unwrap_or_default()
    }

    /// The pods of a group.
    pub(crate) fn pods(&self, group: &Group) -> Option<&BTreeSet<ObjectKey>> {
        self.groups.get(group).map(|members| &members.pods)
    }

    /// Whether a group counts for verdicts. A group whose pods are all terminating runs its configuration as far as
    /// possible, and does not count.
    pub(crate) fn counts(&self, group: &Group) -> bool {
        self.groups.get(group).is_some_and(|members| members.staying > 0)
    }

    /// Every group with its pods.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&Group, &BTreeSet<ObjectKey>)> {
        self.groups.iter().map(|(group, members)| (group, &members.pods))
    }

    /// The group of a pod.
    pub(crate) fn group_of(&self, pod: &str) -> Option<&Group> {
        self.placed.get(pod).map(|placed| &placed.group)
    }

    /// Sets the selector of a forward; `None` if the forward is gone or does not run in sidecars. Returns whether the
    /// selector changed: pods follow when they are next placed.
    pub(crate) fn select(&mut self, forward: &str, selector: Option<&Arc<Selector>>) -> bool {
        if self.selectors.get(forward) == selector {
            return false;
        }
        self.selectors.set(forward, selector);
        self.reselected.insert(forward.to_owned());
        true
    }

    /// Places these pods of the namespace, and the pods that selectors begin or cease to select. Pods with the same
    /// labels and ports are compared with the selectors once.
    pub(crate) fn place(
        &mut self,
        namespace: &str,
        pods: &BTreeSet<ObjectKey>,
        world: &World,
        moved: &mut Moved,
        work: &mut Work,
    ) {
        let first = ObjectKey::new(namespace, "");
        let here = pods.range(first..).take_while(|pod| pod.namespace == namespace);
        let todo: BTreeSet<ObjectKey> = here.cloned().chain(self.reselected(namespace, world, work)).collect();
        let mut known: BTreeMap<(&Labels, &AppPorts), Option<Group>> = BTreeMap::new();
        for key in &todo {
            work.pods += 1;
            let pod = world.pods.get(key);
            let group = pod.and_then(|pod| {
                let group = known.entry((&pod.labels, &pod.app_ports));
                group.or_insert_with(|| self.group(namespace, pod, work)).clone()
            });
            self.put(key, group, pod.is_some_and(|pod| pod.leaving), moved);
        }
    }

    /// The pods that changed selectors begin or cease to select.
    fn reselected(&mut self, namespace: &str, world: &World, work: &mut Work) -> Vec<ObjectKey> {
        let changed = std::mem::take(&mut self.reselected);
        if changed.is_empty() {
            return Vec::new();
        }
        let now = self.selectors.only(&changed);
        let mut known: BTreeMap<(&Labels, Option<&Group>), bool> = BTreeMap::new();
        let first = ObjectKey::new(namespace, "");
        let here = world.pods.range(first..).take_while(|(pod, _)| pod.namespace == namespace);
        let mut found = Vec::new();
        for (key, pod) in here {
            work.pods += 1;
            let group = self.group_of(&key.name);
            let moves = *known.entry((&pod.labels, group)).or_insert_with(|| {
                let selecting = now.selecting(&pod.labels, &mut work.selectors).names;
                !selecting.iter().map(|name| &**name).eq(common(group, &changed))
            });
            if moves {
                found.push(key.clone());
            }
        }
        found
    }

    /// The group that a pod belongs to; `None` if no forward selects the pod.
    fn group(&self, namespace: &str, pod: &Pod, work: &mut Work) -> Option<Group> {
        let selected = self.selectors.selecting(&pod.labels, &mut work.selectors);
        if selected.names.is_empty() {
            return None;
        }
        let group = Group::Sidecars(SidecarGroup::new(namespace, selected, &pod.app_ports));
        // Pods share the known copy, which makes groups cheap to compare.
        Some(self.groups.get_key_value(&group).map_or(group, |(known, _)| known.clone()))
    }

    fn put(&mut self, pod: &ObjectKey, group: Option<Group>, leaving: bool, moved: &mut Moved) {
        match (self.placed.get_mut(&pod.name), &group) {
            (None, None) => return,
            (Some(placed), Some(group)) if placed.group == *group => {
                if std::mem::replace(&mut placed.leaving, leaving) != leaving {
                    self.stay(group, if leaving { -1 } else { 1 }, moved);
                }
                return;
            }
            _ => {}
        }
        moved.pods.insert(pod.clone());
        if let Some(old) = self.placed.remove(&pod.name) {
            self.leave(pod, old, moved);
        }
        if let Some(group) = group {
            self.join(pod, group, leaving, moved);
        }
    }

    fn leave(&mut self, pod: &ObjectKey, Placed { group, leaving }: Placed, moved: &mut Moved) {
        if !leaving {
            self.stay(&group, -1, moved);
        }
        if let Some(members) = self.groups.get_mut(&group) {
            members.pods.remove(pod);
            if members.pods.is_empty() {
                self.groups.remove(&group);
                self.each_forward(&group, |before| before?.without(&group));
                moved.turned.insert(group.clone());
            }
        }
        moved.groups.insert(group);
    }

    fn join(&mut self, pod: &ObjectKey, group: Group, leaving: bool, moved: &mut Moved) {
        let members = self.groups.entry(group.clone()).or_default();
        let is_new = members.pods.is_empty();
        members.pods.insert(pod.clone());
        if is_new {
            self.each_forward(&group, |before| {
                Some(before.map_or_else(|| GroupsOf::One(group.clone()), |before| before.with(&group)))
            });
            moved.turned.insert(group.clone());
        }
        if !leaving {
            self.stay(&group, 1, moved);
        }
        self.placed.insert(pod.name.clone(), Placed { group: group.clone(), leaving });
        moved.groups.insert(group);
    }

    /// Changes the number of pods that stay in a group.
    fn stay(&mut self, group: &Group, by: isize, moved: &mut Moved) {
        let Some(members) = self.groups.get_mut(group) else { return };
        let counted = members.staying > 0;
        members.staying = members.staying.saturating_add_signed(by);
        if counted != (members.staying > 0) {
            moved.turned.insert(group.clone());
        }
    }

    fn each_forward(&mut self, group: &Group, change: impl Fn(Option<GroupsOf>) -> Option<GroupsOf>) {
        for forward in group.sidecars().map(SidecarGroup::names).unwrap_or_default() {
            let before = self.groups_of.remove(forward);
            if let Some(now) = change(before) {
                self.groups_of.insert(forward.clone(), now);
            }
        }
    }
}

/// The names that are in the group, sorted. The work follows the smaller of the two.
fn common<'a>(group: Option<&'a Group>, names: &'a BTreeSet<String>) -> Vec<&'a str> {
    let Some(group) = group.and_then(Group::sidecars) else { return Vec::new() };
    if names.len() < group.names().len() {
        return names.iter().map(String::as_str).filter(|name| group.has(name)).collect();
    }
    group.names().iter().map(|name| &**name).filter(|name| names.contains(*name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_with_one_group_needs_no_set() {
        let group = |name: &str| Group::Gateway(ObjectKey::new("ns", name));
        let one = GroupsOf::One(group("a")).with(&group("a"));
        assert_eq!(one, GroupsOf::One(group("a")));
        let two = one.with(&group("b"));
        assert_eq!(two.all(), BTreeSet::from([group("a"), group("b")]));
        let left = two.without(&group("a")).expect("another one");
        assert_eq!(left.all(), BTreeSet::from([group("b")]));
        assert_eq!(left.without(&group("b")), None);
        assert_eq!(GroupsOf::One(group("a")).without(&group("b")), Some(GroupsOf::One(group("a"))));
    }
}
