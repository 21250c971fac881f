//! The agents that the gateways of a world take.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use crds::{ForwardAgent, GatewayTunnels};
use proxy_api::MAX_AGENTS;

use crate::{
    translate::{
        scope::is_in_scope,
        verdict::{Condition, Reason},
    },
    world::{
        ObjectKey, World,
        agents::{Share, gateway_of, max_instances, share_of},
        class,
    },
};

/// Why a gateway does not take an agent that it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// The gateway has its maximum of agents.
    Gateway,
    /// Older agents of the namespace leave too little of its share.
    Share(Share),
}

/// The agents that a gateway allows but has no place for.
type LeftOut = BTreeMap<ObjectKey, Full>;

/// The agents that the gateways of one world take. The agents that a gateway leaves out depend on all of its agents;
/// they are computed once, however many agents are judged.
pub(crate) struct Admissions<'a> {
    pub(crate) world: &'a World,
    left_out: RefCell<BTreeMap<ObjectKey, Rc<LeftOut>>>,
}

impl<'a> Admissions<'a> {
    pub(crate) fn new(world: &'a World) -> Self {
        Self { world, left_out: RefCell::default() }
    }

    /// The agents that a gateway takes: the oldest ones that it allows.
    pub(crate) fn taken<'b>(&'b self, gateway: &'b ObjectKey) -> Vec<(&'b ObjectKey, &'b ForwardAgent)> {
        let found = self.world.gateways.get(gateway);
        let Some(tunnels) = found.and_then(|found| found.spec.tunnels.as_ref()) else { return Vec::new() };
        let left_out = self.left_out(gateway);
        allowed(self.world, gateway, tunnels).filter(|(key, _)| !left_out.contains_key(*key)).collect()
    }

    /// The gateway that takes an agent, or why none does.
    pub(crate) fn of(&self, key: &ObjectKey, agent: &ForwardAgent) -> Result<ObjectKey, Condition> {
        let refused = |reason, message| Err(Condition::unmet(reason, message));
        let Some(gateway) = gateway_of(key, agent) else {
            let message = "spec.gateway is missing: name the ForwardGateway that the agent dials".to_owned();
            return refused(Reason::Invalid, message);
        };
        let Some(found) = self.world.gateways.get(&gateway) else {
            let message = match self.world.foreign_gateways.get(&gateway) {
                Some(other) => {
                    format!("ForwardGateway {gateway} has {}, which another operator serves", class::words(other))
                }
                None => format!("ForwardGateway {gateway} does not exist: create it, or correct spec.gateway"),
            };
            return refused(Reason::GatewayNotFound, message);
        };
        let Some(tunnels) = &found.spec.tunnels else {
            let message = format!("ForwardGateway {gateway} has no spec.tunnels: ask its owner to set it");
            return refused(Reason::NotAllowedByGateway, message);
        };
        if !allows(self.world, &gateway, tunnels, &key.namespace) {
            let message = format!(
                "ForwardGateway {gateway} does not admit agents of namespace '{}': see its \
                 spec.tunnels.allowedAgents.namespaces",
                key.namespace
            );
            return refused(Reason::NotAllowedByGateway, message);
        }
        let full = self.left_out(&gateway).get(key).copied();
        match full {
            None => Ok(gateway),
            Some(full) => refused(Reason::QuotaExceeded, words(full, &gateway, key)),
        }
    }

    fn left_out(&self, gateway: &ObjectKey) -> Rc<LeftOut> {
        let known = self.left_out.borrow().get(gateway).cloned();
        known.unwrap_or_else(|| {
            let found = Rc::new(find_left_out(self.world, gateway));
            self.left_out.borrow_mut().insert(gateway.clone(), found.clone());
            found
        })
    }
}

/// Walks through the agents of a gateway, the oldest first.
fn find_left_out(world: &World, gateway: &ObjectKey) -> LeftOut {
    let mut left_out = LeftOut::new();
    let Some(found) = world.gateways.get(gateway) else { return left_out };
    let Some(tunnels) = &found.spec.tunnels else { return left_out };
    if world.agents.count_of(gateway) <= MAX_AGENTS && !world.agents.exceed_a_share(gateway, found) {
        return left_out;
    }
    let mut taken = 0;
    let mut instances: BTreeMap<&str, u32> = BTreeMap::new();
    for (key, agent) in allowed(world, gateway, tunnels) {
        let held = instances.entry(key.namespace.as_str()).or_default();
        let with_it = held.saturating_add(max_instances(agent));
        let share = share_of(gateway, found, &key.namespace);
        if taken == MAX_AGENTS {
            left_out.insert(key.clone(), Full::Gateway);
        } else if let Some(share) = share.filter(|share| with_it > share.most) {
            left_out.insert(key.clone(), Full::Share(share));
        } else {
            taken += 1;
            *held = with_it;
        }
    }
    left_out
}

/// The agents that name a gateway and belong to a namespace that it allows.
fn allowed<'a>(
    world: &'a World,
    gateway: &'a ObjectKey,
    tunnels: &'a GatewayTunnels,
) -> impl Iterator<Item = (&'a ObjectKey, &'a ForwardAgent)> {
    let named = world.agents.of_gateway(gateway).filter_map(move |key| Some((key, world.agents.get(key)?)));
    named.filter(move |(key, _)| allows(world, gateway, tunnels, &key.namespace))
}

fn allows(world: &World, gateway: &ObjectKey, tunnels: &GatewayTunnels, namespace: &str) -> bool {
    let scope = tunnels.allowed_agents.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    is_in_scope(world, gateway, scope, namespace)
}

fn words(full: Full, gateway: &ObjectKey, key: &ObjectKey) -> String {
    match full {
        Full::Gateway => format!(
            "ForwardGateway {gateway} admits at most {MAX_AGENTS} agents, and older agents have used up that number: \
             remove some of them, or use another gateway"
        ),
        Full::Share(Share { most, is_default }) => format!(
            "ForwardGateway {gateway} admits at most {most} instances for all agents of namespace '{}'{}; this agent \
             and the older ones exceed that number: lower their spec.maxInstances, remove some of them, or ask the \
             owner of the gateway for a higher spec.tunnels.allowedAgents.maxInstancesPerNamespace",
            key.namespace,
            if is_default { " (half of what one of its pods admits)" } else { "" }
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    /// A world with the gateway `edge` and agents with these maximums of instances, the oldest first.
    fn world(tunnels: &Value, agents: &[(&str, u32)]) -> World {
        let mut world = World::default();
        let gateway = json!({"metadata": {"name": "edge", "namespace": "ns"}, "spec": {"tunnels": tunnels}});
        world.gateways.insert(key("edge"), serde_json::from_value(gateway).expect("a gateway"));
        for (at, (name, instances)) in agents.iter().enumerate() {
            let created = format!("2026-01-{:02}T00:00:00Z", at + 1);
            let agent = json!({
                "metadata": {"name": name, "namespace": "ns", "creationTimestamp": created},
                "spec": {"gateway": {"name": "edge"}, "targets": [], "maxInstances": instances},
            });
            world.agents.insert(key(name), serde_json::from_value(agent).expect("an agent"));
        }
        world
    }

    fn taken(world: &World) -> Vec<String> {
        let admissions = Admissions::new(world);
        let gateway = key("edge");
        let taken = admissions.taken(&gateway);
        for (key, agent) in world.agents.all() {
            let is_taken = taken.iter().any(|(other, _)| *other == key);
            assert_eq!(admissions.of(key, agent).is_ok(), is_taken, "{key}");
        }
        taken.into_iter().map(|(key, _)| key.name.clone()).collect()
    }

    #[test]
    fn the_oldest_agents_of_a_namespace_have_its_share_and_one_that_does_not_fit_keeps_no_other_out() {
        let agents = [("a", 2), ("b", 3), ("c", 64), ("d", 3), ("e", 1)];
        assert_eq!(taken(&world(&json!({}), &agents)), ["a", "b", "c", "d", "e"], "without a share");
        let shared = world(&json!({"allowedAgents": {"maxInstancesPerNamespace": 8}}), &agents);
        assert_eq!(taken(&shared), ["a", "b", "d"]);
        let why = Admissions::new(&shared).of(&key("e"), shared.agents.get(&key("e")).expect("there"));
        let why = why.expect_err("no place");
        assert_eq!(why.reason, Reason::QuotaExceeded);
        assert!(why.message.contains("admits at most 8 instances for all agents of namespace 'ns'"), "{}", why.message);
    }

    #[test]
    fn a_share_is_one_of_each_namespace() {
        let allowed = json!({"namespaces": {"from": "All"}, "maxInstancesPerNamespace": 4});
        let mut world = world(&json!({"allowedAgents": allowed}), &[("a", 4), ("b", 1)]);
        let other = ObjectKey::new("other", "c");
        let agent = json!({
            "metadata": {"name": "c", "namespace": "other", "creationTimestamp": "2026-02-01T00:00:00Z"},
            "spec": {"gateway": {"name": "edge", "namespace": "ns"}, "targets": []},
        });
        world.agents.insert(other, serde_json::from_value(agent).expect("an agent"));
        assert_eq!(taken(&world), ["a", "c"], "4 instances if maxInstances is absent");
    }

    #[test]
    fn without_a_number_another_namespace_has_half_of_the_instances_and_leaves_the_rest_to_others() {
        let mut world = world(
            &json!({"maxAgents": 10, "allowedAgents": {"namespaces": {"from": "All"}}}),
            &[("own", 64), ("last", 1)],
        );
        for (at, (namespace, name, instances)) in
            [("greedy", "g1", 3), ("greedy", "g2", 2), ("greedy", "g3", 1), ("modest", "m", 4)].into_iter().enumerate()
        {
            let agent = json!({
                "metadata": {
                    "name": name, "namespace": namespace, "creationTimestamp": format!("2025-01-{:02}T00:00:00Z", at + 1),
                },
                "spec": {"gateway": {"name": "edge", "namespace": "ns"}, "targets": [], "maxInstances": instances},
            });
            let agent = serde_json::from_value(agent).expect("an agent");
            world.agents.insert(ObjectKey::new(namespace, name), agent);
        }
        assert_eq!(taken(&world), ["g1", "g2", "m", "own", "last"], "its own agents have no share");
        let left_out = ObjectKey::new("greedy", "g3");
        let why = Admissions::new(&world).of(&left_out, world.agents.get(&left_out).expect("there"));
        let why = why.expect_err("no place");
        assert_eq!(why.reason, Reason::QuotaExceeded);
        let words = "admits at most 5 instances for all agents of namespace 'greedy' (half of what one of its pods \
                     admits)";
        assert!(why.message.contains(words) && why.message.contains("maxInstancesPerNamespace"), "{}", why.message);
    }

    #[test]
    fn whom_a_gateway_leaves_out_is_worked_out_once_for_all_of_its_agents() {
        let world = world(&json!({"allowedAgents": {"maxInstancesPerNamespace": 1}}), &[("a", 1), ("b", 1)]);
        let admissions = Admissions::new(&world);
        let first = admissions.left_out(&key("edge"));
        assert_eq!(first.len(), 1);
        for (key, agent) in world.agents.all() {
            let _ = admissions.of(key, agent);
        }
        assert!(Rc::ptr_eq(&first, &admissions.left_out(&key("edge"))));
    }
}
