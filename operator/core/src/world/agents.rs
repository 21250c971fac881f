//! The agents of a world, by name and by the gateway that they dial.

use std::collections::{BTreeMap, BTreeSet};

use crds::{ForwardAgent, ForwardGateway};

use crate::world::ObjectKey;

/// Position of an agent in the order of age: whether its creation time is unknown, that time in nanoseconds since 1970,
/// and its name.
type Seat = (bool, Option<i128>, ObjectKey);

/// All agents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agents {
    all: BTreeMap<ObjectKey, ForwardAgent>,
    by_gateway: BTreeMap<ObjectKey, BTreeSet<Seat>>,
}

/// The gateway that an agent names.
#[must_use]
pub fn gateway_of(key: &ObjectKey, agent: &ForwardAgent) -> Option<ObjectKey> {
    let gateway = agent.spec.gateway.as_ref()?;
    let namespace = gateway.namespace.as_ref().unwrap_or(&key.namespace);
    Some(ObjectKey::new(namespace.clone(), gateway.name.clone()))
}

/// The maximum of instances that the agents of one namespace may have together at a gateway. Absent if the gateway sets
/// no such bound.
#[must_use]
pub fn share_of(gateway: &ForwardGateway) -> Option<u32> {
    gateway.spec.tunnels.as_ref()?.allowed_agents.as_ref()?.max_instances_per_namespace
}

fn seat(key: &ObjectKey, agent: &ForwardAgent) -> Seat {
    let created = agent.metadata.creation_timestamp.as_ref().map(|time| time.0.as_nanosecond());
    (created.is_none(), created, key.clone())
}

impl Agents {
    /// Adds or replaces an agent.
    pub fn insert(&mut self, key: ObjectKey, agent: ForwardAgent) {
        self.remove(&key);
        if let Some(gateway) = gateway_of(&key, &agent) {
            self.by_gateway.entry(gateway).or_default().insert(seat(&key, &agent));
        }
        self.all.insert(key, agent);
    }

    /// Removes an agent.
    pub fn remove(&mut self, key: &ObjectKey) {
        let Some(agent) = self.all.remove(key) else { return };
        let Some(gateway) = gateway_of(key, &agent) else { return };
        if let Some(seats) = self.by_gateway.get_mut(&gateway) {
            seats.remove(&seat(key, &agent));
            if seats.is_empty() {
                self.by_gateway.remove(&gateway);
            }
        }
    }

    /// One agent.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&ForwardAgent> {
        self.all.get(key)
    }

    /// Every agent.
    pub fn all(&self) -> impl Iterator<Item = (&ObjectKey, &ForwardAgent)> {
        self.all.iter()
    }

    /// The agents of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &ForwardAgent)> {
        let here = self.all.range(ObjectKey::new(namespace, "")..);
        here.take_while(move |(key, _)| key.namespace == namespace)
    }

    /// The agents that name a gateway, the oldest first.
    pub fn of_gateway(&self, gateway: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.by_gateway.get(gateway).into_iter().flatten().map(|(_, _, key)| key)
    }

    /// Number of agents that name a gateway.
    #[must_use]
    pub fn count_of(&self, gateway: &ObjectKey) -> usize {
        self.by_gateway.get(gateway).map_or(0, BTreeSet::len)
    }
}

impl FromIterator<(ObjectKey, ForwardAgent)> for Agents {
    fn from_iter<I: IntoIterator<Item = (ObjectKey, ForwardAgent)>>(all: I) -> Self {
        let mut agents = Self::default();
        for (key, agent) in all {
            agents.insert(key, agent);
        }
        agents
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn agent(gateway: &str, created: Option<&str>) -> ForwardAgent {
        let agent = json!({
            "metadata": {"name": "a", "creationTimestamp": created},
            "spec": {"gateway": {"name": gateway}, "targets": []},
        });
        serde_json::from_value(agent).expect("an agent")
    }

    #[test]
    fn the_agents_of_a_gateway_are_in_the_order_of_age_and_follow_what_they_name() {
        let key = |name: &str| ObjectKey::new("ns", name);
        let mut agents: Agents = [
            (key("unknown"), agent("edge", None)),
            (key("young"), agent("edge", Some("2026-01-02T00:00:00Z"))),
            (key("twin"), agent("edge", Some("2026-01-01T00:00:00Z"))),
            (key("old"), agent("edge", Some("2026-01-01T00:00:00Z"))),
        ]
        .into_iter()
        .collect();
        let names = |agents: &Agents, gateway: &str| {
            agents.of_gateway(&key(gateway)).map(|key| key.name.clone()).collect::<Vec<String>>()
        };
        assert_eq!(names(&agents, "edge"), ["old", "twin", "young", "unknown"]);
        agents.insert(key("old"), agent("other", None));
        agents.remove(&key("twin"));
        assert_eq!(
            (names(&agents, "edge"), names(&agents, "other")),
            (vec!["young".into(), "unknown".into()], vec!["old".into()])
        );
        assert_eq!((agents.count_of(&key("edge")), agents.count_of(&key("none"))), (2, 0));
        assert_eq!(agents.in_namespace("ns").count(), 3);
        assert_eq!(agents.in_namespace("n").count(), 0);
    }
}
