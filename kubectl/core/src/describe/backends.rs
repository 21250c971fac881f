//! The backends of a forward, the endpoints of their Services, and the instances of their agents.

use std::collections::BTreeSet;

use crds::{AgentInstance, Backend, ForwardAgent, PortForward, ServiceBackend};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use operator_core::ObjectKey;

use crate::{
    access::{Fetched, Listed},
    check::{Check, Outcome},
    installation::ready,
    placement::key,
    rows,
};

use super::Facts;

/// The Services that are backends of a forward.
pub fn services(forward: &PortForward) -> BTreeSet<ObjectKey> {
    let backends = forward.spec.listeners.iter().flat_map(|listener| &listener.backends);
    backends.filter_map(|backend| Some(service_key(forward, backend.service.as_ref()?))).collect()
}

fn service_key(forward: &PortForward, service: &ServiceBackend) -> ObjectKey {
    let namespace = service.namespace.clone().unwrap_or_else(|| key(forward).namespace);
    ObjectKey::new(namespace, service.name.clone())
}

/// The agents through which backends of a forward are reached.
pub fn agents(forward: &PortForward) -> BTreeSet<ObjectKey> {
    let backends = forward.spec.listeners.iter().flat_map(|listener| &listener.backends);
    backends.filter_map(|backend| Some(agent_key(forward, &backend.tunnel.as_ref()?.agent))).collect()
}

fn agent_key(forward: &PortForward, name: &str) -> ObjectKey {
    ObjectKey::new(key(forward).namespace, name)
}

/// One item for each backend of each listener.
pub(super) fn backends(facts: &Facts) -> Vec<Check> {
    let listeners = facts.forward.spec.listeners.iter();
    let item = |listener: &str, backend: &Backend| {
        let name = |text: String| format!("{listener} -> {text}");
        if let Some(service) = &backend.service {
            let key = service_key(&facts.forward, service);
            let name = name(format!("svc/{}.{}:{}", key.name, key.namespace, service.port));
            return facts.services.get(&key).map(|found| service_item(name, service.port, found));
        }
        if let Some(address) = &backend.address {
            return Some(Check::ok(
                name(format!("{}:{}", address.host, address.port)),
                "an address: proxies resolve it",
            ));
        }
        if let Some(tunnel) = &backend.tunnel {
            let name = name(format!("agent/{}/{}:{}", tunnel.agent, tunnel.host, tunnel.port));
            return facts.agents.get(&agent_key(&facts.forward, &tunnel.agent)).map(|found| agent_item(name, found));
        }
        let local = backend.local.as_ref()?;
        Some(Check::ok(name(format!("localhost:{}", local.port)), "a port of the pod itself"))
    };
    listeners
        .flat_map(|listener| listener.backends.iter().filter_map(move |backend| item(&listener.name, backend)))
        .collect()
}

fn service_item(name: String, port: u16, found: &Fetched<Option<Service>>) -> Check {
    let spec = match found {
        Err(why) => return Check::unknown(name, why),
        Ok(None) => return Check::failed(name, "the Service does not exist").hint("create it, or correct its name"),
        Ok(Some(service)) => service.spec.clone().unwrap_or_default(),
    };
    if let Some(host) = spec.external_name.filter(|_| spec.type_.as_deref() == Some("ExternalName")) {
        return Check::ok(name, format!("ExternalName {host}: proxies resolve it"));
    }
    let ports: Vec<i32> = spec.ports.iter().flatten().map(|open| open.port).collect();
    if ports.contains(&i32::from(port)) {
        return Check::ok(name, "the Service has this port");
    }
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let has = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
    Check::failed(name, format!("the Service has no port {port}: its ports are {has}"))
        .hint("name a port of the Service, or add the port to the Service")
}

fn agent_item(name: String, found: &Fetched<Option<ForwardAgent>>) -> Check {
    let row = match found {
        Err(why) => return Check::unknown(name, why),
        Ok(None) => {
            return Check::failed(name, "the ForwardAgent does not exist").hint("create it, or correct its name");
        }
        Ok(Some(agent)) => rows::agent(agent),
    };
    let check = match (row.outcome, row.reason.as_str()) {
        (Outcome::Ok, "Suspended") => Check::warning(name, row.message),
        (Outcome::Ok, _) => Check::ok(name, format!("the agent is ready, and dials gateway {}", row.gateway)),
        (outcome, _) => Check::new(name, outcome, row.message),
    };
    match row.hint {
        Some(hint) => check.hint(hint),
        None => check,
    }
}

/// One item for each connected instance of each agent that exists.
pub(super) fn instances(facts: &Facts) -> Vec<Check> {
    let mut items = Vec::new();
    for (key, found) in &facts.agents {
        let Ok(Some(agent)) = found else { continue };
        let connected: &[AgentInstance] = agent.status.as_ref().map(|it| it.instances.as_slice()).unwrap_or_default();
        if connected.is_empty() {
            items.push(Check::failed(format!("agent/{}", key.name), "no instance is connected"));
        }
        items.extend(connected.iter().map(|it| {
            let sidecars = it.sidecars.as_ref().map(|sidecars| format!(" and {sidecars} sidecars")).unwrap_or_default();
            let detail = format!("version {}, connected to {} proxies{sidecars}", it.version, it.carriers);
            Check::ok(format!("agent/{}/{}", key.name, it.name), detail)
        }));
    }
    items
}

/// The next step for a listener without a healthy backend. A backend of an agent is unhealthy while no instance is
/// connected, whatever its server does.
pub(super) fn unhealthy(facts: &Facts, listener: &str) -> String {
    let ObjectKey { namespace, name } = key(&facts.forward);
    let listeners = facts.forward.spec.listeners.iter().filter(|it| it.name == listener);
    let backends: Vec<&Backend> = listeners.flat_map(|it| &it.backends).collect();
    let dialling: Vec<&str> = backends.iter().filter_map(|it| Some(it.tunnel.as_ref()?.agent.as_str())).collect();
    let servers = format!(
        "does the server listen, and does every NetworkPolicy admit the proxies? Failed sessions: kubectl portlane logs \
         -n {namespace} {name}"
    );
    if dialling.is_empty() {
        return servers;
    }
    let finding = if dialling.iter().any(|agent| may_be_connected(facts, agent)) {
        "is the agent connected to every proxy, and does the server listen where the agent can reach it? See"
    } else {
        "no agent is connected: see"
    };
    let step =
        format!("{finding} kubectl -n {namespace} get forwardagents, and the log of portlane agent where it runs");
    if dialling.len() == backends.len() { step } else { format!("{step}; for the other backends: {servers}") }
}

/// Whether an instance of an agent is connected, as far as is known: an agent that cannot be read may have one.
fn may_be_connected(facts: &Facts, agent: &str) -> bool {
    match facts.agents.get(&agent_key(&facts.forward, agent)) {
        Some(Ok(Some(agent))) => agent.status.as_ref().is_some_and(|status| !status.instances.is_empty()),
        Some(Ok(None)) => false,
        Some(Err(_)) | None => true,
    }
}

/// One item for each Service that exists.
pub(super) fn endpoints(facts: &Facts) -> Vec<Check> {
    let exists = |key: &ObjectKey| matches!(facts.services.get(key), Some(Ok(Some(service))) if !is_external(service));
    facts.slices.iter().filter(|(key, _)| exists(key)).map(|(key, found)| item(key, found)).collect()
}

fn is_external(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName"))
}

fn item(key: &ObjectKey, found: &Fetched<Listed<EndpointSlice>>) -> Check {
    let name = format!("svc/{}.{}", key.name, key.namespace);
    let listed = match found {
        Err(why) => return Check::unknown(name, why),
        Ok(listed) => listed,
    };
    match ready(&listed.items) {
        (0, 0) => Check::failed(name, "no pod is behind the Service").hint(format!(
            "compare the selector with the pods: kubectl -n {} describe service {}",
            key.namespace, key.name
        )),
        (0, all) => Check::failed(name, format!("none of {all} endpoints is ready"))
            .hint(format!("look at the pods: kubectl -n {} describe service {}", key.namespace, key.name)),
        (ready, all) if ready < all => Check::ok(name, format!("{ready} of {all} endpoints are ready")),
        (1, _) => Check::ok(name, "1 endpoint is ready"),
        (ready, _) => Check::ok(name, format!("{ready} endpoints are ready")),
    }
}
