//! Sidecar pods of a forward that its agents do not reach.

use std::collections::BTreeSet;

use crds::PortForward;

use crate::{
    schedule::View,
    translate::agents,
    world::{ObjectKey, agents::gateway_of},
};

/// A warning for each agent that a sidecar forward uses and that does not reach all pods of its forwards.
pub(super) fn warnings(forward: &PortForward, view: &View<'_>) -> Vec<String> {
    if forward.spec.placement.sidecar.is_none() {
        return Vec::new();
    }
    let namespace = forward.metadata.namespace.as_deref().unwrap_or_default();
    let backends = forward.spec.listeners.iter().flat_map(|listener| &listener.backends);
    let named: BTreeSet<&str> = backends.filter_map(|backend| Some(backend.tunnel.as_ref()?.agent.as_str())).collect();
    let warning = |name: &str| {
        let key = ObjectKey::new(namespace, name);
        let agent = view.cache.world.agents.get(&key)?;
        let gateway = gateway_of(&key, agent)?;
        let pods = view.translator.left_out(&gateway, &agents::uid(&key, agent));
        let words = || {
            format!(
                "ForwardAgent {key} does not reach {} of its forwards, where clients find no instance: place the forward \
                 on ForwardGateway {gateway}, or have it select fewer pods",
                proxy_api::count(pods as u64, "pod")
            )
        };
        (pods > 0).then(words)
    };
    named.into_iter().filter_map(warning).collect()
}
