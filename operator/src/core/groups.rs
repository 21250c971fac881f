//! Which proxies run the same configuration.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, Serializer};

use super::{
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
pub(super) struct Groups {
    pub(super) forwards: BTreeMap<Group, Vec<ObjectKey>>,
    pub(super) pods: BTreeMap<Group, Vec<ObjectKey>>,
}

impl Groups {
    pub(super) fn of(&self, key: &ObjectKey) -> BTreeSet<Group> {
        let holds = |forwards: &Vec<ObjectKey>| forwards.contains(key);
        self.forwards.iter().filter(|(_, forwards)| holds(forwards)).map(|(group, _)| group.clone()).collect()
    }
}

/// Sorts forwards into groups. A sidecar forward that selects no pod is in none.
pub(super) fn groups(world: &World, forwards: &BTreeMap<ObjectKey, ValidForward>) -> Groups {
    let mut found = Groups::default();
    if world.site.is_laptop() {
        found.forwards.insert(Group::Laptop, forwards.keys().cloned().collect());
        return found;
    }
    for key in world.gateways.keys() {
        found.forwards.insert(Group::Gateway(key.clone()), Vec::new());
    }
    for (key, forward) in forwards {
        if let Placement::Gateway(gateway) = &forward.placement {
            found.forwards.entry(Group::Gateway(gateway.clone())).or_default().push(key.clone());
        }
    }
    for (pod_key, pod) in &world.pods {
        let selecting: BTreeSet<String> = forwards
            .iter()
            .filter(|(key, forward)| {
                key.namespace == pod_key.namespace
                    && matches!(&forward.placement, Placement::Sidecar(selector) if selector.matches(&pod.labels))
            })
            .map(|(key, _)| key.name.clone())
            .collect();
        if selecting.is_empty() {
            continue;
        }
        let keys = selecting.iter().map(|name| ObjectKey::new(pod_key.namespace.clone(), name.clone())).collect();
        let group = Group::Sidecars { namespace: pod_key.namespace.clone(), forwards: selecting };
        found.forwards.insert(group.clone(), keys);
        found.pods.entry(group).or_default().push(pod_key.clone());
    }
    found
}
