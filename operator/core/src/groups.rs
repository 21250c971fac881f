//! Which proxies run the same configuration.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, Serializer};

use crate::{
    ObjectKey, World,
    validate::{Placement, ValidForward},
};

/// The set of proxies that run the same configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The one process of `portlane run`.
    Laptop,
    /// The fleet of a `ForwardGateway`.
    Gateway(ObjectKey),
    /// The pods of a namespace that the same set of sidecar forwards selects.
    Sidecars {
        /// The namespace.
        namespace: String,
        /// Names of the forwards.
        forwards: BTreeSet<String>,
    },
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Laptop => f.write_str("laptop"),
            Self::Gateway(key) => write!(f, "gateway/{key}"),
            Self::Sidecars { namespace, forwards } => {
                let names: Vec<&str> = forwards.iter().map(String::as_str).collect();
                write!(f, "sidecars/{namespace}/{}", names.join("+"))
            }
        }
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The groups with the forwards in each, and the pods of sidecar groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    pub(crate) forwards: BTreeMap<Group, BTreeSet<ObjectKey>>,
    pub(crate) pods: BTreeMap<Group, Vec<ObjectKey>>,
    by_forward: BTreeMap<ObjectKey, BTreeSet<Group>>,
}

impl Groups {
    pub(crate) fn of(&self, key: &ObjectKey) -> BTreeSet<Group> {
        self.by_forward.get(key).cloned().unwrap_or_default()
    }

    fn add(&mut self, group: &Group, forward: &ObjectKey) {
        self.forwards.entry(group.clone()).or_default().insert(forward.clone());
        self.by_forward.entry(forward.clone()).or_default().insert(group.clone());
    }
}

/// Sorts forwards into groups. A sidecar forward that selects no pod is in none.
pub(crate) fn groups(world: &World, forwards: &BTreeMap<ObjectKey, ValidForward>) -> Groups {
    let mut found = Groups::default();
    if world.site.is_laptop() {
        found.forwards.insert(Group::Laptop, BTreeSet::new());
        for key in forwards.keys() {
            found.add(&Group::Laptop, key);
        }
        return found;
    }
    for key in world.gateways.keys() {
        found.forwards.insert(Group::Gateway(key.clone()), BTreeSet::new());
    }
    for (key, forward) in forwards {
        if let Placement::Gateway(gateway) = &forward.placement {
            found.add(&Group::Gateway(gateway.clone()), key);
        }
    }
    for (pod_key, pod) in &world.pods {
        let first = ObjectKey::new(pod_key.namespace.clone(), "");
        let same_namespace = forwards.range(first..).take_while(|(key, _)| key.namespace == pod_key.namespace);
        let selecting: BTreeSet<String> = same_namespace
            .filter(|(_, forward)| {
                matches!(&forward.placement, Placement::Sidecar(selector) if selector.matches(&pod.labels))
            })
            .map(|(key, _)| key.name.clone())
            .collect();
        if selecting.is_empty() {
            continue;
        }
        let group = Group::Sidecars { namespace: pod_key.namespace.clone(), forwards: selecting.clone() };
        if !found.pods.contains_key(&group) {
            for name in selecting {
                found.add(&group, &ObjectKey::new(pod_key.namespace.clone(), name));
            }
        }
        found.pods.entry(group).or_default().push(pod_key.clone());
    }
    found
}
