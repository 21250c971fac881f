//! Indexes of forwards by the objects, addresses, grants and claims on which they depend.

use std::{collections::BTreeSet, net::IpAddr};

use proxy_api::Origin;

use crate::{
    translate::{
        backends,
        groups::SidecarGroup,
        index::Index,
        judge::Judgement,
        program,
        validate::{Destination, ValidForward, agent_of_id, service_of_id},
    },
    world::ObjectKey,
};

/// Forwards by their dependencies.
#[derive(Debug, Default)]
pub(super) struct Dependents {
    by_gateway: Index,
    by_service: Index,
    by_agent: Index,
    by_address: Index<IpAddr>,
    /// Forwards with backends in Services of other namespaces.
    foreign: BTreeSet<Origin>,
    /// Forwards with backends on the host of the proxy itself or in front of its fleet, which may be listeners of the
    /// same proxies.
    local: BTreeSet<Origin>,
    /// Forwards with listeners that run in their last good version.
    kept: BTreeSet<Origin>,
}

/// The dependencies of the judgement on one forward, besides its gateway and its own claims.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Services that the forward names or that its listeners use, sorted.
    pub(super) services: Vec<ObjectKey>,
    /// Agents that the forward names or that its listeners use, sorted.
    pub(super) agents: Vec<ObjectKey>,
    is_foreign: bool,
    is_local: bool,
    is_kept: bool,
}

impl Needs {
    /// The dependencies of a forward that runs this version of its spec, if it runs any, and has this judgement.
    pub(super) fn of(key: &Origin, forward: Option<&ValidForward>, judgement: &Judgement) -> Self {
        let compiled = &judgement.compiled;
        let (mut services, mut agents) = (BTreeSet::new(), BTreeSet::new());
        let (mut is_foreign, mut is_local) = (false, judgement.may_loop);
        let listeners = forward.into_iter().flat_map(|forward| &forward.listeners);
        for entry in listeners.flat_map(|listener| &listener.backends) {
            is_local |= backends::local_port(&entry.to).is_some();
            match &entry.to {
                Destination::Service { key: service, .. } => {
                    is_foreign |= service.namespace != key.namespace;
                    services.insert(service.clone());
                }
                Destination::Tunnel { agent, .. } => {
                    agents.insert(agent.clone());
                }
                Destination::Address { .. } | Destination::Local { .. } => {}
            }
        }
        // A listener in its last good version may use Services and agents that the spec no longer names.
        for backend in compiled.iter().flat_map(|compiled| program::backends(&compiled.offer)) {
            if let Some(service) = service_of_id(&backend.id) {
                is_foreign |= service.namespace != key.namespace;
                services.insert(service);
            }
            agents.extend(agent_of_id(&backend.id));
        }
        let is_kept = compiled.iter().any(|compiled| compiled.kept);
        let (services, agents) = (services.into_iter().collect(), agents.into_iter().collect());
        Self { services, agents, is_foreign, is_local, is_kept }
    }
}

impl Dependents {
    /// Replaces the gateway that a forward names; both slices have at most one item.
    pub(super) fn set_gateway(&mut self, key: &Origin, old: &[ObjectKey], new: &[ObjectKey]) {
        self.by_gateway.set(key, old, new);
    }

    /// Replaces the addresses on which a forward depends. Both lists are sorted.
    pub(super) fn set_addresses(&mut self, key: &Origin, old: &[IpAddr], new: &[IpAddr]) {
        self.by_address.set(key, old, new);
    }

    /// Replaces the dependencies of a forward. `services` and `agents` are its earlier ones.
    pub(super) fn set(&mut self, key: &Origin, (services, agents): (&[ObjectKey], &[ObjectKey]), needs: &Needs) {
        self.by_service.set(key, services, &needs.services);
        self.by_agent.set(key, agents, &needs.agents);
        for (set, belongs) in
            [(&mut self.foreign, needs.is_foreign), (&mut self.local, needs.is_local), (&mut self.kept, needs.is_kept)]
        {
            if belongs {
                set.insert(key.clone());
            } else {
                set.remove(key);
            }
        }
    }

    /// Forgets a forward that named this gateway and depended on these Services and agents.
    pub(super) fn forget(&mut self, key: &Origin, gateway: &[ObjectKey], old: (&[ObjectKey], &[ObjectKey])) {
        self.set_gateway(key, gateway, &[]);
        self.set(key, old, &Needs::default());
    }

    /// The forwards that name a gateway.
    pub(super) fn of_gateway(&self, gateway: &ObjectKey) -> impl Iterator<Item = &Origin> {
        self.by_gateway.of(gateway)
    }

    /// The forwards that name a Service or whose listeners use it.
    pub(super) fn of_service(&self, service: &ObjectKey) -> impl Iterator<Item = &Origin> {
        self.by_service.of(service)
    }

    /// The forwards that name an agent or whose listeners use it.
    pub(super) fn of_agent(&self, agent: &ObjectKey) -> impl Iterator<Item = &Origin> {
        self.by_agent.of(agent)
    }

    /// The forwards that name an address.
    pub(super) fn of_address(&self, address: &IpAddr) -> impl Iterator<Item = &Origin> {
        self.by_address.of(address)
    }

    /// Every Service that a forward depends on.
    pub(super) fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.by_service.named()
    }

    /// The forwards that depend on grants.
    pub(super) fn on_grants(&self) -> impl Iterator<Item = &Origin> {
        self.foreign.iter()
    }

    /// The forwards that depend on the claims of other forwards, apart from their own claims.
    pub(super) fn on_claims(&self) -> impl Iterator<Item = &Origin> {
        self.kept.union(&self.local)
    }

    /// The forwards of a sidecar group that depend on the claims of other forwards, apart from their own claims.
    pub(super) fn on_claims_in<'a>(&'a self, group: &'a SidecarGroup) -> impl Iterator<Item = &'a Origin> {
        group.among(&self.kept).chain(group.among(&self.local))
    }
}
