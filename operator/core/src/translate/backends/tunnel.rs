//! Backends that an agent reaches.

use proxy_api::Target;

use super::{Scope, sets::Contacts};
use crate::{
    translate::{
        agents,
        validate::host_port,
        verdict::{Condition, Reason},
    },
    world::ObjectKey,
};

impl Scope<'_> {
    /// What proxies reach through an agent, whose targets must list it.
    pub(super) fn tunnel(
        &self,
        key: &ObjectKey,
        host: &str,
        port: u16,
        contacts: Contacts,
    ) -> Result<Target, Condition> {
        let Some(agent) = self.world.agents.as_ref().and_then(|agents| agents.get(key)) else {
            let message = format!(
                "ForwardAgent {key} is not among the manifests: add it, with {} in its spec.targets",
                target(host, port)
            );
            return Err(Condition::unmet(Reason::BackendNotFound, message));
        };
        let mut ports = [Some(port), contacts.checked].into_iter().flatten();
        if let Some(missing) = ports.find(|port| !agents::lists(agent, host, *port)) {
            let what = if missing == port { "" } else { ", which healthCheck connects to" };
            let message = format!(
                "ForwardAgent {key} does not list {}{what}: add {} to its spec.targets",
                host_port(host, missing),
                target(host, missing)
            );
            return Err(Condition::unmet(Reason::AddressNotAllowed, message));
        }
        Ok(Target::Tunnel { agent: agents::uid(key, agent), host: host.to_owned(), port })
    }

    /// What a running listener reaches through the agent of this uid, if that still lists it.
    pub(super) fn tunnel_again(&self, uid: &str, host: &str, port: u16, contacts: Contacts) -> Option<Target> {
        let mut agents = self.world.agents.iter().flatten();
        let (key, _) = agents.find(|(key, agent)| agents::uid(key, agent) == uid)?;
        self.tunnel(key, host, port, contacts).ok()
    }
}

/// A target as an entry of a manifest.
fn target(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("{{host: \"{host}\", port: {port}}}")
    } else {
        format!("{{host: {host}, port: {port}}}")
    }
}
