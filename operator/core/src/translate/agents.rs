//! Agents in the contract with proxies, and the targets that forwards reach through them.

mod admissions;

use std::collections::{BTreeMap, BTreeSet};

use crds::{AgentProtocol, AgentTarget, ForwardAgent};
use proxy_api::{Agent, Enrolment, MAX_AGENTS, SIDECAR_TUNNEL_PORT, Transport};
use tunnel_core::{Protocol, Side, Target, allow::AllowList};

use crate::{
    hash::sha256,
    translate::{
        groups::Group,
        sidecars,
        validate::{Destination, Placement, ValidForward, ValidListener, host_port},
    },
    world::{
        ObjectKey, World,
        agents::{gateway_of, max_instances},
        changes::Changes,
    },
};

pub(crate) use self::admissions::Admissions;

/// The agents that may dial the process of a laptop, by uid. That process enrols them on its own.
pub(crate) fn all(world: &World) -> BTreeMap<String, Agent> {
    let agent = |(key, agent): (&ObjectKey, &ForwardAgent)| {
        let enrolment = agent.spec.enrolment.clone().unwrap_or_default();
        let enrolment = Enrolment {
            redemptions: enrolment.redemptions.unwrap_or(1),
            expire_seconds: enrolment.expire_seconds.unwrap_or(3600),
        };
        (uid(key, agent), Agent { enrolment: Some(enrolment), ..contract(key, agent) })
    };
    world.agents.all().map(agent).collect()
}

/// The agents that may dial the proxies of a gateway, by uid. The operator enrols them.
pub(crate) fn of_gateway(world: &World, gateway: &ObjectKey) -> BTreeMap<String, Agent> {
    let admissions = Admissions::new(world);
    let taken = admissions.taken(gateway).into_iter();
    taken.map(|(key, agent)| (uid(key, agent), contract(key, agent))).collect()
}

/// The agents of a namespace with these uids, as its sidecars need them, each with the gateway that it dials.
pub(crate) fn of_sidecars(
    admissions: &Admissions<'_>,
    namespace: &str,
    uids: &BTreeSet<&String>,
) -> BTreeMap<String, (ObjectKey, Agent)> {
    if uids.is_empty() {
        return BTreeMap::new();
    }
    let world = admissions.world;
    let met = |(key, agent): (&ObjectKey, &ForwardAgent)| {
        let uid = uid(key, agent);
        if !uids.contains(&uid) {
            return None;
        }
        let gateway = admissions.of(key, agent).ok()?;
        let gateway_uid = world.gateways.get(&gateway)?.metadata.uid.clone()?;
        let agent = Agent { gateway: Some(gateway_uid), ..contract(key, agent) };
        Some((uid, (gateway, agent)))
    };
    // A proxy accepts at most this many agents.
    world.agents.in_namespace(namespace).filter_map(met).take(MAX_AGENTS).collect()
}

/// The gateways whose agents may have changed.
pub(crate) fn changed_gateways(world: &World, changes: &Changes) -> BTreeSet<ObjectKey> {
    if changes.all {
        return world.gateways.keys().cloned().collect();
    }
    let mut gateways: BTreeSet<ObjectKey> = changes.gateways.union(&changes.agents_at).cloned().collect();
    for namespace in &changes.namespaces {
        let here = world.agents.in_namespace(namespace);
        gateways.extend(here.filter_map(|(key, agent)| gateway_of(key, agent)));
    }
    gateways
}

/// The agents that may be admitted differently, or are gone.
pub(crate) fn changed(world: &World, changes: &Changes) -> BTreeSet<ObjectKey> {
    if changes.all {
        return world.agents.all().map(|(key, _)| key.clone()).collect();
    }
    let mut agents = changes.agents.clone();
    for gateway in changes.gateways.union(&changes.crowded) {
        agents.extend(world.agents.of_gateway(gateway).cloned());
    }
    for namespace in &changes.namespaces {
        for (key, agent) in world.agents.in_namespace(namespace) {
            agents.insert(key.clone());
            // Admitting or dropping an agent may change the position of younger agents.
            if let Some(gateway) = gateway_of(key, agent).filter(|it| world.agents.count_of(it) > MAX_AGENTS) {
                agents.extend(world.agents.of_gateway(&gateway).cloned());
            }
        }
    }
    agents
}

/// The uid of an agent. An agent from a file has no uid of an API server: its name stands in.
pub(crate) fn uid(key: &ObjectKey, agent: &ForwardAgent) -> String {
    agent.metadata.uid.clone().unwrap_or_else(|| {
        let hash = sha256(&key.to_string());
        let half = hash.iter().take(16).fold(0_u128, |sum, byte| (sum << 8) | u128::from(*byte));
        format!("file-{half:032x}")
    })
}

fn contract(key: &ObjectKey, agent: &ForwardAgent) -> Agent {
    let spec = &agent.spec;
    Agent {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        rotation: spec.enrolment.as_ref().and_then(|enrolment| enrolment.rotation).unwrap_or(0),
        suspended: spec.suspend.unwrap_or(false),
        is_newer: false,
        max_instances: max_instances(agent),
        targets: entries(agent),
        enrolment: None,
        gateway: None,
    }
}

fn entries(agent: &ForwardAgent) -> Vec<String> {
    agent.spec.targets.iter().map(entry).collect()
}

/// Writes a target in the form of the contract.
fn entry(target: &AgentTarget) -> String {
    let prefix = match target.protocol {
        Some(AgentProtocol::Udp) => "udp/",
        Some(AgentProtocol::Tcp) | None => "",
    };
    let first = host_port(&target.host, target.port);
    match target.end_port.filter(|last| *last > target.port) {
        Some(last) => format!("{prefix}{first}-{last}"),
        None => format!("{prefix}{first}"),
    }
}

/// Whether the targets of an agent contain a host and a port, by the rules of the tunnel.
pub(crate) fn lists(agent: &ForwardAgent, transport: Transport, host: &str, port: u16) -> bool {
    let protocol = match transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
    };
    let target = Target { protocol, host: host.to_owned(), port };
    AllowList::parse(Side::Listener, &entries(agent)).is_ok_and(|list| list.check(&target).is_ok())
}

/// Warns about a tunnel backend in manifests that no cluster accepts, because the forward and the agent are on
/// different gateways, or the agent names none.
pub(crate) fn warning(world: &World, forward: &ValidForward, listener: &ValidListener) -> Option<String> {
    let (to, agent) = first(listener).filter(|_| world.any_agent)?;
    let dialled = world.agents.get(agent).and_then(|found| gateway_of(agent, found));
    let remedy = match (&forward.placement, dialled) {
        (Placement::Gateway(own), Some(dialled)) if *own != dialled => {
            format!(
                "in a cluster, place the forward on ForwardGateway {dialled}, which the agent dials, or in sidecars"
            )
        }
        (_, Some(_)) => return None,
        (_, None) => format!(
            "in a cluster, ForwardAgent {agent} needs spec.gateway, and the forward has to be placed on that gateway \
             or in sidecars"
        ),
    };
    Some(format!(
        "backend {} of listener '{}' works with portlane run only: {remedy}",
        to.words(&forward.origin.namespace),
        listener.name
    ))
}

/// Warns about a tunnel backend in sidecars that no agent reaches, because the app of their pods has the port.
pub(crate) fn taken_port<'a>(
    namespace: &str,
    listener: &ValidListener,
    mut groups: impl Iterator<Item = &'a Group>,
) -> Option<String> {
    let (to, _) = first(listener)?;
    groups.any(sidecars::has_taken_port).then(|| {
        format!(
            "backend {} of listener '{}' has no instance in pods whose app uses port {SIDECAR_TUNNEL_PORT}/TCP, to which \
             agents connect: move the app to another port, or place the forward on the gateway of the agent",
            to.words(namespace),
            listener.name
        )
    })
}

/// The first tunnel backend of a listener, and its agent.
fn first(listener: &ValidListener) -> Option<(&Destination, &ObjectKey)> {
    listener.backends.iter().find_map(|entry| match &entry.to {
        to @ Destination::Tunnel { agent, .. } => Some((to, agent)),
        Destination::Service { .. } | Destination::Address { .. } | Destination::Local { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(targets: &str) -> ForwardAgent {
        let text = format!("{{\"metadata\": {{\"name\": \"home\"}}, \"spec\": {{\"targets\": {targets}}}}}");
        serde_json::from_str(&text).expect("an agent")
    }

    #[test]
    fn an_agent_of_a_file_has_a_uid_by_its_name_and_one_of_a_cluster_has_its_own() {
        let (key, mut agent) = (ObjectKey::new("default", "home"), agent("[]"));
        assert_eq!(uid(&key, &agent), "file-62f9570dff5ac8f14772c547e72ff85f");
        assert_ne!(uid(&ObjectKey::new("default", "homes"), &agent), uid(&key, &agent));
        agent.metadata.uid = Some("1-2-3".to_owned());
        assert_eq!(uid(&key, &agent), "1-2-3");
    }

    #[test]
    fn targets_are_written_as_both_ends_of_a_tunnel_read_them() {
        let agent = agent(
            r#"[{"host": "127.0.0.1", "port": 1}, {"host": "fd00::/8", "port": 2, "endPort": 9},
                {"host": "db.example.", "port": 3, "endPort": 3, "protocol": "TCP"},
                {"host": "10.0.0.0/8", "port": 53, "protocol": "UDP"}]"#,
        );
        assert_eq!(entries(&agent), ["127.0.0.1:1", "[fd00::/8]:2-9", "db.example.:3", "udp/10.0.0.0/8:53"]);
        for (host, port) in [("127.0.0.1", 1), ("fd00::1", 2), ("fd00::1", 9), ("DB.example", 3), ("db.example.", 3)] {
            assert!(lists(&agent, Transport::Tcp, host, port), "{host} {port}");
        }
        for (host, port) in [("127.0.0.1", 2), ("localhost", 1), ("fd00::1", 10), ("fe00::1", 2), ("10.0.0.1", 53)] {
            assert!(!lists(&agent, Transport::Tcp, host, port), "{host} {port}");
        }
        assert!(lists(&agent, Transport::Udp, "10.0.0.1", 53));
        assert!(!lists(&agent, Transport::Udp, "127.0.0.1", 1));
    }

    #[test]
    fn absent_fields_of_an_agent_have_the_defaults_of_their_descriptions() {
        let found = contract(&ObjectKey::new("default", "home"), &agent("[]"));
        assert_eq!((found.rotation, found.suspended, found.max_instances), (0, false, 4));
        assert_eq!(found.enrolment, None, "an operator enrols it");
        let mut world = World::default();
        world.agents.insert(ObjectKey::new("default", "home"), agent("[]"));
        let enrolments: Vec<_> = all(&world).into_values().map(|agent| agent.enrolment).collect();
        assert_eq!(enrolments, [Some(Enrolment { redemptions: 1, expire_seconds: 3600 })]);
    }

    #[test]
    fn labels_of_a_namespace_change_the_agents_of_others_only_at_a_gateway_with_more_than_it_takes() {
        let text = r#"{"metadata": {}, "spec": {"gateway": {"name": "edge", "namespace": "ns"}, "targets": []}}"#;
        let agent: ForwardAgent = serde_json::from_str(text).expect("an agent");
        let own = ObjectKey::new("ns", "own");
        let mut world = World::default();
        world.agents.insert(own.clone(), agent.clone());
        for number in 1..MAX_AGENTS {
            world.agents.insert(ObjectKey::new("other", format!("a-{number}")), agent.clone());
        }
        let changes = Changes { namespaces: ["ns".to_owned()].into(), ..Changes::default() };
        assert_eq!(changed(&world, &changes), BTreeSet::from([own]), "the gateway takes all of them");
        world.agents.insert(ObjectKey::new("other", "last"), agent);
        assert_eq!(changed(&world, &changes).len(), MAX_AGENTS + 1);
    }
}
