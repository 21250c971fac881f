//! Options that name an object that is not in the manifests.

use std::collections::BTreeSet;

use operator_core::{ObjectKey, World};

use crate::{input, options::Resolve};

/// Describes options that match no object, most likely because a name is misspelt.
pub(crate) fn unmatched(world: &World, only: &[String], laptop: Option<&input::Laptop>) -> Vec<String> {
    let mut found = Vec::new();
    let names: Vec<String> = world.forwards.keys().map(ToString::to_string).collect();
    let exists = |name: &str| world.forwards.keys().any(|key| key.name == name || key.to_string() == name);
    for name in only.iter().filter(|name| !exists(name)) {
        found.push(format!("--only {name}: no such PortForward; the manifests have {}", listed(&names)));
    }
    let Some(laptop) = laptop else { return found };
    for map in &laptop.map {
        let has = |key: &ObjectKey, forward: &crds::PortForward| {
            key.name == map.forward && forward.spec.listeners.iter().any(|listener| listener.name == map.listener)
        };
        if !world.forwards.iter().any(|(key, forward)| has(key, forward)) {
            let listeners: Vec<String> = world
                .forwards
                .iter()
                .flat_map(|(key, forward)| forward.spec.listeners.iter().map(|l| format!("{}/{}", key.name, l.name)))
                .collect();
            let has = listed(&listeners);
            found.push(format!("--map {}/{}: no such listener; the manifests have {has}", map.forward, map.listener));
        }
    }
    for resolve in &laptop.resolve {
        let is_used = world.forwards.iter().any(|(key, forward)| {
            let backends = forward.spec.listeners.iter().flat_map(|listener| &listener.backends);
            backends.filter_map(|backend| backend.service.as_ref()).any(|service| {
                service.name == resolve.service.name
                    && *service.namespace.as_ref().unwrap_or(&key.namespace) == resolve.service.namespace
            })
        });
        if !is_used {
            let Resolve { service, .. } = resolve;
            let has = listed(&services(world));
            found.push(format!(
                "--resolve {}.{}: no backend uses this Service; the manifests use {has}",
                service.name, service.namespace
            ));
        }
    }
    found
}

/// The Services of all backends, each once, in the form of the option.
fn services(world: &World) -> Vec<String> {
    let of = |key: &ObjectKey, forward: &crds::PortForward| -> Vec<String> {
        let backends = forward.spec.listeners.iter().flat_map(|listener| &listener.backends);
        let services = backends.filter_map(|backend| backend.service.as_ref());
        services
            .map(|service| format!("{}.{}", service.name, service.namespace.as_ref().unwrap_or(&key.namespace)))
            .collect()
    };
    world.forwards.iter().flat_map(|(key, forward)| of(key, forward)).collect::<BTreeSet<_>>().into_iter().collect()
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
