//! Which forwards depend on an object, on grants, or on the claims of other forwards.

use std::collections::BTreeSet;

use proxy_api::Origin;

use crate::{
    translate::{
        backends,
        groups::SidecarGroup,
        index::Index,
        judge::Judgement,
        program,
        validate::{Destination, ValidForward, service_of_id},
    },
    world::ObjectKey,
};

/// Forwards by what they depend on.
#[derive(Debug, Default)]
pub(super) struct Dependents {
    by_gateway: Index,
    by_service: Index,
    /// Forwards with backends in Services of other namespaces.
    foreign: BTreeSet<Origin>,
    /// Forwards with backends on the host of the proxy itself or in front of its fleet, which may be listeners of the
    /// same proxies.
    local: BTreeSet<Origin>,
    /// Forwards with listeners that run in their last good version.
    kept: BTreeSet<Origin>,
}

/// What the judgement on one forward depends on, besides its gateway and its own claims.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Services that the forward names or that its listeners use, sorted.
    pub(super) services: Vec<ObjectKey>,
    is_foreign: bool,
    is_local: bool,
    is_kept: bool,
}

impl Needs {
    /// What a forward depends on that runs this version of its spec, if it runs any, and has this judgement.
    pub(super) fn of(key: &Origin, forward: Option<&ValidForward>, judgement: &Judgement) -> Self {
        let compiled = &judgement.compiled;
        let mut services = BTreeSet::new();
        let (mut is_foreign, mut is_local) = (false, judgement.may_loop);
        let listeners = forward.into_iter().flat_map(|forward| &forward.listeners);
        for entry in listeners.flat_map(|listener| &listener.backends) {
            is_local |= backends::local_port(&entry.to).is_some();
            if let Destination::Service { key: service, .. } = &entry.to {
                is_foreign |= service.namespace != key.namespace;
                services.insert(service.clone());
            }
        }
        // A listener in its last good version may use Services that the spec no longer names.
        let used = compiled.iter().flat_map(|compiled| program::backends(&compiled.offer));
        for service in used.filter_map(|backend| service_of_id(&backend.id)) {
            is_foreign |= service.namespace != key.namespace;
            services.insert(service);
        }
        let is_kept = compiled.iter().any(|compiled| compiled.kept);
        Self { services: services.into_iter().collect(), is_foreign, is_local, is_kept }
    }
}

impl Dependents {
    /// Replaces the gateway that a forward names; both are slices of no or one item.
    pub(super) fn set_gateway(&mut self, key: &Origin, old: &[ObjectKey], new: &[ObjectKey]) {
        self.by_gateway.set(key, old, new);
    }

    /// Replaces what a forward depends on, given the Services that it depended on before.
    pub(super) fn set(&mut self, key: &Origin, old: &[ObjectKey], needs: &Needs) {
        self.by_service.set(key, old, &needs.services);
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

    /// Forgets a forward that named this gateway and depended on these Services.
    pub(super) fn forget(&mut self, key: &Origin, gateway: &[ObjectKey], services: &[ObjectKey]) {
        self.set_gateway(key, gateway, &[]);
        self.set(key, services, &Needs::default());
    }

    /// The forwards that name a gateway.
    pub(super) fn of_gateway(&self, gateway: &ObjectKey) -> impl Iterator<Item = &Origin> {
        self.by_gateway.of(gateway)
    }

    /// The forwards that name a Service or whose listeners use it.
    pub(super) fn of_service(&self, service: &ObjectKey) -> impl Iterator<Item = &Origin> {
        self.by_service.of(service)
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
