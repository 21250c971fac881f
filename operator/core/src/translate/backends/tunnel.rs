//! Backends that an agent reaches.

use crds::ForwardAgent;
use proxy_api::Target;

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
    /// What proxies reach through an agent, whose targets must list it.
    pub(super) fn tunnel(
        &self,
        key: &ObjectKey,
        host: &str,
        port: u16,
        contacts: Contacts,
    ) -> Result<Target, Condition> {
        let is_of_files = self.world.site.is_laptop() || self.world.any_agent;
        let Some(agent) = self.world.agents.get(key) else {
            let absent = if is_of_files { "is not among the manifests: add it" } else { "does not exist: create it" };
            let message = format!("ForwardAgent {key} {absent}, with {} in its spec.targets", target(host, port));
            return Err(Condition::unmet(Reason::BackendNotFound, message));
        };
        if !is_of_files {
            self.check_gateway(key, agent)?;
        }
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

    /// Checks that the agent dials the proxies of the forward.
    fn check_gateway(&self, key: &ObjectKey, agent: &ForwardAgent) -> Result<(), Condition> {
        let unmet = |message: String| Err(Condition::unmet(Reason::BackendNotFound, message));
        let gateway = match agents::admission(self.world, key, agent) {
            Ok(gateway) => gateway,
            Err(why) => return unmet(format!("ForwardAgent {key} is not accepted: {}", why.message)),
        };
        if matches!(&self.forward.placement, Placement::Gateway(own) if *own == gateway) {
            return Ok(());
        }
        unmet(format!(
            "ForwardAgent {key} dials the proxies of ForwardGateway {gateway} alone: place the forward there, with \
             spec.placement.gateway {{name: {}, namespace: {}}}",
            gateway.name, gateway.namespace
        ))
    }

    /// What a running listener reaches through the agent of this uid, if that still lists it.
    pub(super) fn tunnel_again(&self, uid: &str, host: &str, port: u16, contacts: Contacts) -> Option<Target> {
        let mut agents = self.world.agents.in_namespace(&self.forward.origin.namespace);
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
