//! The forwards as last read and judged, with their dependencies.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxy_api::Origin;

use super::{
    dependents::{Dependents, Needs},
    known::Known,
};
use crate::{
    translate::{
        declared::Declared,
        groups::Group,
        judge::{Compiled, Judgement},
        program,
        validate::Placement,
    },
    world::{ObjectKey, World, changes::Changes},
};

/// The known forwards.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    /// The forwards are boxed: a map of large values leaves nearly as much memory unused as it uses.
    known: BTreeMap<Origin, Box<Known>>,
    dependents: Dependents,
}

/// A forward that was read again, and where it runs.
#[derive(Debug)]
pub(super) struct Reread {
    pub(super) key: Origin,
    /// Placement before; `None` if the forward ran nowhere.
    pub(super) before: Option<Placement>,
    /// Placement now; `None` if the forward runs nowhere.
    pub(super) after: Option<Placement>,
}

/// Judgements that were replaced.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub(super) replaced: Vec<Replaced>,
    /// Forwards whose verdict changed, or that are gone.
    pub(super) verdicts: BTreeSet<Origin>,
}

/// A forward with a new judgement.
#[derive(Debug)]
pub(super) struct Replaced {
    pub(super) key: Origin,
    /// The listeners of the previous judgement.
    pub(super) before: Vec<Compiled>,
}

impl Forwards {
    /// Reads the forwards again that may read differently.
    pub(super) fn read(&mut self, world: &World, changes: &Changes) -> Vec<Reread> {
        self.to_read(world, changes).into_iter().map(|key| self.read_one(world, key)).collect()
    }

    /// The changed forwards, and the forwards whose admission may have changed.
    fn to_read(&self, world: &World, changes: &Changes) -> BTreeSet<Origin> {
        if changes.all {
            return world.origins().chain(self.known.keys().cloned()).collect();
        }
        let mut keys: BTreeSet<Origin> = changes.forwards.iter().map(Origin::from).collect();
        for gateway in &changes.gateways {
            keys.extend(self.of_gateway(gateway).cloned());
        }
        for namespace in &changes.namespaces {
            // A forward that is not known yet is among the changed ones.
            let in_gateway = |key: &Origin| self.get(key).is_some_and(|known| !known.gateway().is_empty());
            keys.extend(world.origins_in(namespace).filter(in_gateway));
        }
        keys
    }

    fn read_one(&mut self, world: &World, key: Origin) -> Reread {
        let old = self.known.remove(&key).map(|known| *known);
        let before = old.as_ref().and_then(Known::place).cloned();
        let known = match Declared::read(world, &key) {
            Some(declared) => {
                let old_gateway = old.as_ref().map_or(&[][..], Known::gateway).to_vec();
                let known = Known::read(world, declared, old);
                self.dependents.set_gateway(&key, &old_gateway, known.gateway());
                Some(known)
            }
            None => old.map(Known::without_object),
        };
        let after = known.as_ref().and_then(Known::place).cloned();
        if let Some(known) = known {
            self.known.insert(key.clone(), Box::new(known));
        }
        Reread { key, before, after }
    }

    /// Replaces judgements; `None` forgets a forward that is gone.
    pub(super) fn record(&mut self, judgements: Vec<(Origin, Option<Judgement>)>) -> Recorded {
        let mut recorded = Recorded::default();
        for (key, judgement) in judgements {
            let old = self.get(&key).map(Known::verdict);
            if judgement.as_ref().is_none_or(|new| old != Some(&new.verdict)) {
                recorded.verdicts.insert(key.clone());
            }
            let before = match judgement {
                Some(judgement) => self.replace(&key, judgement),
                None => self.forget(&key),
            };
            recorded.replaced.push(Replaced { key, before });
        }
        recorded
    }

    fn replace(&mut self, key: &Origin, judgement: Judgement) -> Vec<Compiled> {
        let Some(known) = self.known.get_mut(key) else {
            self.known.insert(key.clone(), Box::new(Known::never_read(judgement)));
            return Vec::new();
        };
        let needs = Needs::of(key, known.in_force(), &judgement);
        self.dependents.set(key, (known.services(), known.agents()), &needs);
        self.dependents.set_addresses(key, known.addresses(), &judgement.addresses);
        known.replace(judgement, needs)
    }

    fn forget(&mut self, key: &Origin) -> Vec<Compiled> {
        let Some(known) = self.known.remove(key) else { return Vec::new() };
        self.dependents.forget(key, known.gateway(), (known.services(), known.agents()));
        self.dependents.set_addresses(key, known.addresses(), &[]);
        known.into_compiled()
    }

    /// A forward as last read and judged.
    pub(super) fn get(&self, key: &Origin) -> Option<&Known> {
        self.known.get(key).map(|known| &**known)
    }

    /// All forwards.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Origin, &Known)> {
        self.known.iter().map(|(key, known)| (key, &**known))
    }

    /// The listeners that a forward should run; none if the forward is not known.
    pub(super) fn compiled(&self, key: &Origin) -> &[Compiled] {
        self.get(key).map_or(&[][..], Known::compiled)
    }

    /// The forwards that name a gateway.
    pub(super) fn of_gateway(&self, gateway: &ObjectKey) -> impl Iterator<Item = &Origin> {
        self.dependents.of_gateway(gateway)
    }

    /// The forwards that name a Service or whose listeners use it.
    pub(super) fn of_service(&self, service: &ObjectKey) -> impl Iterator<Item = &Origin> {
        self.dependents.of_service(service)
    }

    /// The forwards that name an agent or whose listeners use it.
    pub(super) fn of_agent(&self, agent: &ObjectKey) -> impl Iterator<Item = &Origin> {
        self.dependents.of_agent(agent)
    }

    /// The forwards that name an address.
    pub(super) fn of_address(&self, address: &IpAddr) -> impl Iterator<Item = &Origin> {
        self.dependents.of_address(address)
    }

    /// The forwards that depend on grants.
    pub(super) fn on_grants(&self) -> impl Iterator<Item = &Origin> {
        self.dependents.on_grants()
    }

    /// The forwards of a group that depend on the claims of other forwards, apart from their own claims.
    pub(super) fn depending_on_claims(&self, group: &Group) -> Vec<Origin> {
        match group {
            Group::Laptop => self.dependents.on_claims().cloned().collect(),
            // There are few such forwards: few have backends on their own host or run in their last good version.
            Group::Gateway(gateway) => {
                let place = |key: &Origin| self.get(key).and_then(Known::place);
                let is_here = |key: &&Origin| matches!(place(key), Some(Placement::Gateway(at)) if at == gateway);
                self.dependents.on_claims().filter(is_here).cloned().collect()
            }
            Group::Sidecars(group) => self.dependents.on_claims_in(group).cloned().collect(),
        }
    }

    /// Every Service that a forward depends on.
    pub(super) fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.dependents.services()
    }

    /// The groups with listeners that use this endpoint set of a Service.
    pub(super) fn groups_using(&self, service: &ObjectKey, set: &str) -> BTreeSet<Group> {
        let compiled = self.of_service(service).flat_map(|key| self.compiled(key));
        let users = compiled.filter(|compiled| program::sets(&compiled.offer).any(|used| used == set));
        let groups: BTreeSet<&Group> = users.flat_map(|compiled| &compiled.groups).collect();
        groups.into_iter().cloned().collect()
    }
}
