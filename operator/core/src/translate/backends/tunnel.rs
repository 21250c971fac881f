//! Backends behind an agent.

use crds::ForwardAgent;
use proxy_api::{Target, Transport};

use super::{Scope, sets::Contacts};
use crate::{
    translate::{
        agents,
        validate::{Placement, host_port},
        verdict::{Condition, Reason},
    },
    world::ObjectKey,
};

impl Scope<'_> {
    /// The target that proxies reach through an agent. The agent must list it.
    pub(super) fn tunnel(
        &self,
        transport: Transport,
        key: &ObjectKey,
        host: &str,
        port: u16,
        contacts: Contacts,
    ) -> Result<Target, Condition> {
        let is_of_files = self.world.site.is_laptop() || self.world.any_agent;
        let Some(agent) = self.world.agents.get(key) else {
            let absent = if is_of_files { "is not among the manifests: add it" } else { "does not exist: create it" };
            let target = target(transport, host, port);
            let message = format!("ForwardAgent {key} {absent}, with {target} in its spec.targets");
            return Err(Condition::unmet(Reason::BackendNotFound, message));
        };
        if !is_of_files {
            self.check_gateway(key, agent)?;
        }
        // Checks connect over TCP.
        let checked = contacts.checked.map(|port| (Transport::Tcp, port));
        let mut ports = [Some((transport, port)), checked].into_iter().flatten();
        if let Some((missing_of, missing)) = ports.find(|(of, port)| !agents::lists(agent, *of, host, *port)) {
            let of_udp = if missing_of == Transport::Udp { " for UDP" } else { "" };
            let what = if (missing_of, missing) == (transport, port) { "" } else { ", which healthCheck connects to" };
            let message = format!(
                "ForwardAgent {key} does not list {}{of_udp}{what}: add {} to its spec.targets",
                host_port(host, missing),
                target(missing_of, host, missing)
            );
            return Err(Condition::unmet(Reason::AddressNotAllowed, message));
        }
        Ok(Target::Tunnel { agent: agents::uid(key, agent), host: host.to_owned(), port })
    }

    /// Checks that the agent serves the proxies of the forward: the proxies of the gateway that it dials, or sidecars.
    fn check_gateway(&self, key: &ObjectKey, agent: &ForwardAgent) -> Result<(), Condition> {
        let unmet = |message: String| Err(Condition::unmet(Reason::BackendNotFound, message));
        let gateway = match self.admissions.of(key, agent) {
            Ok(gateway) => gateway,
            Err(why) => return unmet(format!("ForwardAgent {key} is not accepted: {}", why.message)),
        };
        match &self.forward.placement {
            Placement::Gateway(own) if *own != gateway => unmet(format!(
                "ForwardAgent {key} dials ForwardGateway {gateway} and no other: place the forward there, with \
                 spec.placement.gateway {{name: {}, namespace: {}}}, or in sidecars",
                gateway.name, gateway.namespace
            )),
            Placement::Gateway(_) | Placement::Sidecar(_) => Ok(()),
        }
    }

    /// The target that a running listener reaches through the agent of this uid, if the agent still lists it.
    pub(super) fn tunnel_again(
        &self,
        transport: Transport,
        uid: &str,
        host: &str,
        port: u16,
        contacts: Contacts,
    ) -> Option<Target> {
        let mut agents = self.world.agents.in_namespace(&self.forward.origin.namespace);
        let (key, _) = agents.find(|(key, agent)| agents::uid(key, agent) == uid)?;
        self.tunnel(transport, key, host, port, contacts).ok()
    }
}

/// A target as an entry of a manifest.
fn target(transport: Transport, host: &str, port: u16) -> String {
    let quote = if host.contains(':') { "\"" } else { "" };
    let protocol = match transport {
        Transport::Tcp => "",
        Transport::Udp => ", protocol: UDP",
    };
    format!("{{host: {quote}{host}{quote}, port: {port}{protocol}}}")
}
