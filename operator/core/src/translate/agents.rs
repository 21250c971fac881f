//! Agents in the contract with proxies, and what they allow forwards to reach.

use std::collections::BTreeMap;

use crds::{AgentProtocol, AgentTarget, ForwardAgent};
use proxy_api::{Agent, Enrolment, Transport};
use tunnel_core::{Protocol, Side, Target, allow::AllowList};

use crate::{
    hash::sha256,
    translate::{
        validate::{Destination, ValidForward, ValidListener, host_port},
        verdict::{Condition, Reason},
    },
    world::{ObjectKey, World},
};

/// The agents that may dial the proxies, by uid.
pub(crate) fn all(world: &World) -> BTreeMap<String, Agent> {
    let agents = world.agents.iter().flatten();
    agents.map(|(key, agent)| (uid(key, agent), contract(key, agent))).collect()
}

/// The uid of an agent. An agent from a file has none of an API server's: the name stands for it.
pub(crate) fn uid(key: &ObjectKey, agent: &ForwardAgent) -> String {
    agent.metadata.uid.clone().unwrap_or_else(|| {
        let hash = sha256(&key.to_string());
        let half = hash.iter().take(16).fold(0_u128, |sum, byte| (sum << 8) | u128::from(*byte));
        format!("file-{half:032x}")
    })
}

fn contract(key: &ObjectKey, agent: &ForwardAgent) -> Agent {
    let spec = &agent.spec;
    let enrolment = spec.enrolment.clone().unwrap_or_default();
    Agent {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        rotation: enrolment.rotation.unwrap_or(0),
        suspended: spec.suspend.unwrap_or(false),
        max_instances: spec.max_instances.unwrap_or(4),
        targets: entries(agent),
        enrolment: Some(Enrolment {
            redemptions: enrolment.redemptions.unwrap_or(1),
            expire_seconds: enrolment.expire_seconds.unwrap_or(3600),
        }),
    }
}

fn entries(agent: &ForwardAgent) -> Vec<String> {
    agent.spec.targets.iter().map(entry).collect()
}

/// A target in the form of the contract.
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

/// Whether the targets of an agent list a host and a port, by the rules of the tunnel itself.
pub(crate) fn lists(agent: &ForwardAgent, transport: Transport, host: &str, port: u16) -> bool {
    let protocol = match transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
    };
    let target = Target { protocol, host: host.to_owned(), port };
    AllowList::parse(Side::Listener, &entries(agent)).is_ok_and(|list| list.check(&target).is_ok())
}

/// Refuses a forward with a tunnel backend where nothing admits agents.
pub(crate) fn admitted(world: &World, forward: &ValidForward) -> Result<(), Condition> {
    let mut listeners = forward.listeners.iter();
    let found = listeners.find_map(|listener| Some((listener, first(listener)?)));
    match found.filter(|_| world.agents.is_none()) {
        None => Ok(()),
        Some((listener, to)) => {
            let message = format!(
                "backend {} of listener '{}' needs an agent, and no operator admits agents yet: run this forward with \
                 portlane run, or name a Service or an address",
                to.words(&forward.origin.namespace),
                listener.name
            );
            Err(Condition::unmet(Reason::Invalid, message))
        }
    }
}

/// Warns of a tunnel backend in manifests that no cluster accepts yet. `namespace` is that of the forward.
pub(crate) fn warning(world: &World, listener: &ValidListener, namespace: &str) -> Option<String> {
    let to = first(listener).filter(|_| !world.site.is_laptop())?;
    Some(format!(
        "backend {} of listener '{}' works with portlane run only: no operator admits agents yet",
        to.words(namespace),
        listener.name
    ))
}

/// The first tunnel backend of a listener.
fn first(listener: &ValidListener) -> Option<&Destination> {
    listener.backends.iter().map(|entry| &entry.to).find(|to| matches!(to, Destination::Tunnel { .. }))
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
        assert_eq!(found.enrolment, Some(Enrolment { redemptions: 1, expire_seconds: 3600 }));
    }
}
