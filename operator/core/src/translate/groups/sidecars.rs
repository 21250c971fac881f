//! The sidecar groups of one namespace, updated as pods and forwards change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::Selector;
use proxy_api::{Origin, Transport};

use super::Group;
use crate::world::{ObjectKey, Pod, World};

/// Sidecar forwards and pods of one namespace.
#[derive(Debug, Default)]
pub(crate) struct Sidecars {
    selectors: BTreeMap<String, Selector>,
    /// The group of each selected pod.
    group_of: BTreeMap<String, Group>,
    pods: BTreeMap<Group, BTreeSet<ObjectKey>>,
    groups_of: BTreeMap<String, BTreeSet<Group>>,
}

/// Changes of group membership.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Groups that gained or lost pods; a group without pods is gone.
    pub(crate) groups: BTreeSet<Group>,
    /// Forwards of these groups.
    pub(crate) forwards: BTreeSet<Origin>,
    /// Pods that joined, left or changed their group.
    pub(crate) pods: BTreeSet<ObjectKey>,
}

impl Sidecars {
    /// Whether the namespace has neither sidecar forwards nor selected pods.
    pub(crate) fn is_empty(&self) -> bool {
        self.selectors.is_empty() && self.group_of.is_empty()
    }

    /// The groups of a forward.
    pub(crate) fn groups_of(&self, forward: &str) -> BTreeSet<Group> {
        self.groups_of.get(forward).cloned().unwrap_or_default()
    }

    /// The pods of a group.
    pub(crate) fn pods(&self, group: &Group) -> Option<&BTreeSet<ObjectKey>> {
        self.pods.get(group)
    }

    /// Every group with its pods.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&Group, &BTreeSet<ObjectKey>)> {
        self.pods.iter()
    }

    /// The group of a pod.
    pub(crate) fn group_of(&self, pod: &str) -> Option<&Group> {
        self.group_of.get(pod)
    }

    /// Sets the selector of a forward; `None` if the forward is gone or does not run in sidecars.
    pub(crate) fn select(&mut self, key: &Origin, selector: Option<&Selector>, world: &World, moved: &mut Moved) {
        if self.selectors.get(&key.name) == selector {
            return;
        }
        match selector {
            Some(selector) => drop(self.selectors.insert(key.name.clone(), selector.clone())),
            None => drop(self.selectors.remove(&key.name)),
        }
        let first = ObjectKey::new(key.namespace.clone(), "");
        let here = world.pods.range(first..).take_while(|(pod, _)| pod.namespace == key.namespace);
        for (pod, Pod { labels, app_ports, .. }) in here {
            let is_selected = selector.is_some_and(|selector| selector.matches(labels));
            let old = self.group_of.get(&pod.name);
            let was_selected = matches!(old, Some(Group::Sidecars { forwards, .. }) if forwards.contains(&key.name));
            if is_selected != was_selected {
                let mut forwards = match old {
                    Some(Group::Sidecars { forwards, .. }) => (**forwards).clone(),
                    _ => BTreeSet::new(),
                };
                if is_selected {
                    forwards.insert(key.name.clone());
                } else {
                    forwards.remove(&key.name);
                }
                self.place(pod, forwards, app_ports, moved);
            }
        }
    }

    /// Updates the group of a pod; `None` if the pod is gone.
    pub(crate) fn pod(&mut self, key: &ObjectKey, pod: Option<&Pod>, moved: &mut Moved) {
        let selecting = |pod: &Pod| {
            let selecting = self.selectors.iter().filter(|(_, selector)| selector.matches(&pod.labels));
            selecting.map(|(name, _)| name.clone()).collect()
        };
        let forwards: BTreeSet<String> = pod.map(selecting).unwrap_or_default();
        let none = BTreeSet::new();
        self.place(key, forwards, pod.map_or(&none, |pod| &pod.app_ports), moved);
    }

    fn place(
        &mut self,
        pod: &ObjectKey,
        forwards: BTreeSet<String>,
        app_ports: &BTreeSet<(Transport, u16)>,
        moved: &mut Moved,
    ) {
        let group = (!forwards.is_empty()).then(|| Group::Sidecars {
            namespace: pod.namespace.clone(),
            forwards: Arc::new(forwards),
            app_ports: Arc::new(app_ports.clone()),
        });
        // Reuse the known copy of the group, which shares the names.
        let group =
            group.map(|group| self.pods.get_key_value(&group).map_or(group.clone(), |(known, _)| known.clone()));
        if self.group_of.get(&pod.name) == group.as_ref() {
            return;
        }
        if let Some(old) = self.group_of.remove(&pod.name) {
            if let Some(pods) = self.pods.get_mut(&old) {
                pods.remove(pod);
                if pods.is_empty() {
                    self.pods.remove(&old);
                    self.each_forward(&old, |groups| groups.remove(&old));
                }
            }
            moved.note(old, pod);
        }
        if let Some(group) = group {
            self.group_of.insert(pod.name.clone(), group.clone());
            if self.pods.entry(group.clone()).or_default().insert(pod.clone()) {
                self.each_forward(&group, |groups| groups.insert(group.clone()));
            }
            moved.note(group, pod);
        }
    }

    fn each_forward(&mut self, group: &Group, change: impl Fn(&mut BTreeSet<Group>) -> bool) {
        let Group::Sidecars { forwards, .. } = group else { return };
        for forward in forwards.iter() {
            let groups = self.groups_of.entry(forward.clone()).or_default();
            change(groups);
            if groups.is_empty() {
                self.groups_of.remove(forward);
            }
        }
    }
}

impl Moved {
    fn note(&mut self, group: Group, pod: &ObjectKey) {
        self.forwards.extend(group.selecting());
        self.groups.insert(group);
        self.pods.insert(pod.clone());
    }
}
