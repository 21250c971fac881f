//! The agents of a world, by name and by the gateway that they dial.

use std::collections::{BTreeMap, BTreeSet};

use crds::{ForwardAgent, ForwardGateway};

use crate::world::ObjectKey;

/// Position of an agent in the order of age: whether its creation time is unknown, that time in nanoseconds since 1970,
/// and its name.
type Seat = (bool, Option<i128>, ObjectKey);

/// Instances at one proxy of a gateway without `spec.tunnels.maxAgents`.
const DEFAULT_MAX_AGENTS: u32 = 1024;
/// Part of these instances that a namespace has if the gateway sets no number for it: a half, rounded up.
const PART_OF_INSTANCES: u32 = 2;

/// All agents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agents {
    all: BTreeMap<ObjectKey, ForwardAgent>,
    by_gateway: BTreeMap<ObjectKey, Naming>,
}

/// The agents that name one gateway.
#[derive(Clone, Debug, Default, PartialEq)]
struct Naming {
    seats: BTreeSet<Seat>,
    /// Their maximums of instances, added up for each namespace.
    instances: BTreeMap<String, u64>,
}

/// The maximum of instances that the agents of one namespace may have together at a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The number.
    pub most: u32,
    /// Whether the gateway sets no number, so that this is a part of all instances.
    pub is_default: bool,
}

/// The gateway that an agent names.
#[must_use]
pub fn gateway_of(key: &ObjectKey, agent: &ForwardAgent) -> Option<ObjectKey> {
    let gateway = agent.spec.gateway.as_ref()?;
    let namespace = gateway.namespace.as_ref().unwrap_or(&key.namespace);
    Some(ObjectKey::new(namespace.clone(), gateway.name.clone()))
}

/// The share of a namespace at a gateway. `None` for the gateway's own namespace if the gateway sets no number, and for
/// a gateway without tunnels.
#[must_use]
pub fn share_of(key: &ObjectKey, gateway: &ForwardGateway, namespace: &str) -> Option<Share> {
    let tunnels = gateway.spec.tunnels.as_ref()?;
    if let Some(most) = tunnels.allowed_agents.as_ref().and_then(|allowed| allowed.max_instances_per_namespace) {
        return Some(Share { most, is_default: false });
    }
    let most = tunnels.max_agents.unwrap_or(DEFAULT_MAX_AGENTS).div_ceil(PART_OF_INSTANCES);
    (key.namespace != namespace).then_some(Share { most, is_default: true })
}

/// Whether a namespace has at most half of the sidecars of a gateway: its share of instances is no more than half of
/// them, by default or because the gateway says so.
#[must_use]
pub fn has_half_of_sidecars(key: &ObjectKey, gateway: &ForwardGateway, namespace: &str) -> bool {
    let Some(tunnels) = &gateway.spec.tunnels else { return false };
    let half = tunnels.max_agents.unwrap_or(DEFAULT_MAX_AGENTS).div_ceil(PART_OF_INSTANCES);
    key.namespace != namespace && share_of(key, gateway, namespace).is_some_and(|share| share.most <= half)
}

/// The maximum of instances of an agent.
pub(crate) fn max_instances(agent: &ForwardAgent) -> u32 {
    agent.spec.max_instances.unwrap_or(4)
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
            let naming = self.by_gateway.entry(gateway).or_default();
            naming.seats.insert(seat(&key, &agent));
            *naming.instances.entry(key.namespace.clone()).or_default() += u64::from(max_instances(&agent));
        }
        self.all.insert(key, agent);
    }

    /// Removes an agent.
    pub fn remove(&mut self, key: &ObjectKey) {
        let Some(agent) = self.all.remove(key) else { return };
        let Some(gateway) = gateway_of(key, &agent) else { return };
        let Some(naming) = self.by_gateway.get_mut(&gateway) else { return };
        naming.seats.remove(&seat(key, &agent));
        if let Some(instances) = naming.instances.get_mut(&key.namespace) {
            *instances = instances.saturating_sub(u64::from(max_instances(&agent)));
            if *instances == 0 {
                naming.instances.remove(&key.namespace);
            }
        }
        if naming.seats.is_empty() {
            self.by_gateway.remove(&gateway);
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
        self.by_gateway.get(gateway).into_iter().flat_map(|naming| &naming.seats).map(|(_, _, key)| key)
    }

    /// Number of agents that name a gateway.
    #[must_use]
    pub fn count_of(&self, gateway: &ObjectKey) -> usize {
        self.by_gateway.get(gateway).map_or(0, |naming| naming.seats.len())
    }

    /// Whether the agents of a namespace ask a gateway for more instances than the namespace may have there.
    #[must_use]
    pub fn exceed_share(&self, key: &ObjectKey, gateway: &ForwardGateway, namespace: &str) -> bool {
        let asked = self.by_gateway.get(key).and_then(|naming| naming.instances.get(namespace));
        let share = share_of(key, gateway, namespace);
        asked.zip(share).is_some_and(|(asked, share)| *asked > u64::from(share.most))
    }

    /// Whether the agents of any namespace do.
    #[must_use]
    pub fn exceed_a_share(&self, key: &ObjectKey, gateway: &ForwardGateway) -> bool {
        let mut namespaces = self.by_gateway.get(key).into_iter().flat_map(|naming| naming.instances.keys());
        namespaces.any(|namespace| self.exceed_share(key, gateway, namespace))
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

    fn gateway(tunnels: &serde_json::Value) -> ForwardGateway {
        serde_json::from_value(json!({"metadata": {"name": "edge"}, "spec": {"tunnels": tunnels}})).expect("a gateway")
    }

    #[test]
    fn without_a_number_another_namespace_has_a_half_and_the_own_one_has_no_bound() {
        let share = |tunnels: serde_json::Value, namespace: &str| {
            share_of(&ObjectKey::new("ns", "edge"), &gateway(&tunnels), namespace)
        };
        let of = |most: u32, is_default: bool| Some(Share { most, is_default });
        let set = json!({"maxAgents": 7, "allowedAgents": {"maxInstancesPerNamespace": 6}});
        for (tunnels, other, own) in [
            (json!({}), of(512, true), None),
            (json!({"maxAgents": 7}), of(4, true), None),
            (json!({"maxAgents": 1}), of(1, true), None),
            (set, of(6, false), of(6, false)),
            (json!(null), None, None),
        ] {
            assert_eq!((share(tunnels.clone(), "other"), share(tunnels.clone(), "ns")), (other, own), "{tunnels}");
        }
    }

    #[test]
    fn a_namespace_with_more_than_half_of_the_instances_is_not_held_to_half_of_the_sidecars() {
        let is_held = |most: Option<u32>, namespace: &str| {
            let tunnels = json!({"maxAgents": 8, "allowedAgents": {"maxInstancesPerNamespace": most}});
            has_half_of_sidecars(&ObjectKey::new("ns", "edge"), &gateway(&tunnels), namespace)
        };
        assert_eq!([None, Some(1), Some(4), Some(5)].map(|most| is_held(most, "other")), [true, true, true, false]);
        assert!(!is_held(None, "ns") && !is_held(Some(1), "ns"), "the gateway's own namespace");
    }

    #[test]
    fn what_the_agents_of_a_namespace_ask_for_is_added_up_at_each_gateway() {
        let edge = ObjectKey::new("ns", "edge");
        let at = |name: &str| ObjectKey::new("other", name);
        let asking = |gateway: &str, instances: u32| {
            let gateway = json!({"name": gateway, "namespace": "ns"});
            let spec = json!({"gateway": gateway, "targets": [], "maxInstances": instances});
            serde_json::from_value::<ForwardAgent>(json!({"metadata": {"name": "a"}, "spec": spec})).expect("an agent")
        };
        let gateway = gateway(&json!({"maxAgents": 8}));
        let mut agents = Agents::default();
        let exceed = |agents: &Agents| {
            let other = agents.exceed_share(&edge, &gateway, "other");
            assert_eq!(agents.exceed_a_share(&edge, &gateway), other);
            other
        };
        agents.insert(at("a"), asking("edge", 4));
        agents.insert(ObjectKey::new("ns", "own"), asking("edge", 64));
        assert!(!exceed(&agents), "it has the half, and the own namespace has no share");
        agents.insert(at("b"), asking("edge", 1));
        assert!(exceed(&agents));
        agents.insert(at("b"), asking("elsewhere", 1));
        assert!(!exceed(&agents), "it names another gateway");
        agents.insert(at("a"), asking("edge", 5));
        assert!(exceed(&agents), "it asks for more");
        agents.remove(&at("a"));
        assert!(!exceed(&agents));
        agents.remove(&at("b"));
        agents.remove(&ObjectKey::new("ns", "own"));
        assert_eq!(agents, Agents::default(), "nothing is left behind");
    }
}
