//! Applies judgements to programs, and publishes snapshots.

use std::{collections::BTreeSet, sync::Arc};

use proxy_api::{EndpointSet, Origin, Version};

use super::{Step, Translator};
use crate::{
    translate::{
        backends,
        claims::Port,
        groups::Group,
        judge::{Compiled, Judgement},
        program::{self, Program},
        update::Update,
        validate::Destination,
        verdict::{ListenerVerdict, Outcome, Verdict},
    },
    world::{ObjectKey, World, changes::Changes},
};

impl Translator {
    /// Forgets a forward that is gone; returns its previous listeners.
    pub(super) fn forget(&mut self, key: &Origin) -> Option<Vec<Compiled>> {
        let known = self.known.remove(key)?;
        self.by_gateway.set(key, known.gateway.as_slice(), &[]);
        self.by_service.set(key, &known.services, &[]);
        for set in [&mut self.foreign, &mut self.local, &mut self.kept] {
            set.remove(key);
        }
        Some(known.judgement.compiled)
    }

    /// Replaces the judgement on a forward and updates the indexes of its dependencies; returns its previous listeners.
    pub(super) fn replace(&mut self, key: &Origin, mut judgement: Judgement) -> Vec<Compiled> {
        let mut services = BTreeSet::new();
        let (mut foreign, mut local) = (false, judgement.may_loop);
        let known = self.known.get(key);
        if let Some(Ok(forward)) = known.map(|known| &known.read) {
            for to in forward.listeners.iter().flat_map(|listener| &listener.backends).map(|entry| &entry.to) {
                local |= backends::local_port(to).is_some();
                if let Destination::Service { key: service, .. } = to {
                    foreign |= service.namespace != key.namespace;
                    services.insert(service.clone());
                }
            }
        }
        let used = judgement.compiled.iter().flat_map(|compiled| program::sets(&compiled.offer));
        services.extend(used.filter_map(|name| backends::service_of(name)));
        for (set, belongs) in [
            (&mut self.foreign, foreign),
            (&mut self.local, local),
            (&mut self.kept, judgement.compiled.iter().any(|compiled| compiled.kept)),
        ] {
            if belongs {
                set.insert(key.clone());
            } else {
                set.remove(key);
            }
        }
        for (name, set) in std::mem::take(&mut judgement.endpoints) {
            self.sets.entry(name).or_insert(set);
        }
        let services: Vec<ObjectKey> = services.into_iter().collect();
        let Some(known) = self.known.get_mut(key) else {
            // The forward was never readable: only its verdict is known.
            let read = Err(judgement.verdict.accepted.clone());
            let services = Vec::new();
            let known = super::Known {
                object: (None, None),
                is_recreated: false,
                read,
                place: None,
                judgement,
                gateway: None,
                services,
            };
            self.known.insert(key.clone(), known);
            return Vec::new();
        };
        known.is_recreated = false;
        let old = std::mem::replace(&mut known.services, services.clone());
        let before = std::mem::replace(&mut known.judgement, judgement);
        self.by_service.set(key, &old, &services);
        before.compiled
    }

    /// Updates endpoint sets from their Services. The set of a deleted Service stays as it was, for listeners that run
    /// in their last good version.
    pub(super) fn refresh_sets(&mut self, world: &World, changes: &Changes, step: &mut Step) {
        let services: BTreeSet<ObjectKey> = if changes.all {
            self.by_service.named().cloned().collect()
        } else {
            changes.services.union(&changes.endpoints).cloned().collect()
        };
        for service in services {
            let first = format!("{service}:");
            let names: Vec<String> = self
                .sets
                .range(first.clone()..)
                .map(|(name, _)| name)
                .take_while(|name| name.starts_with(&first))
                .cloned()
                .collect();
            for name in names {
                let Some(set) = backends::endpoint_set(world, &name) else { continue };
                if self.sets.get(&name) != Some(&set) {
                    self.set_endpoints(&service, &name, &set, step);
                    self.sets.insert(name, set);
                }
            }
            if self.by_service.of(&service).next().is_none() {
                self.sets.retain(|name, _| !name.starts_with(&first));
            }
        }
    }

    pub(super) fn set_endpoints(&mut self, service: &ObjectKey, name: &str, set: &EndpointSet, step: &mut Step) {
        for forward in self.by_service.of(service) {
            let Some(known) = self.known.get(forward) else { continue };
            let users = known.judgement.compiled.iter();
            for compiled in users.filter(|compiled| program::sets(&compiled.offer).any(|used| used == name)) {
                for group in &compiled.groups {
                    if let Some(program) = self.programs.get_mut(group) {
                        program.set_endpoints(name, set);
                        step.touched.insert(group.clone());
                    }
                }
            }
        }
    }

    /// Applies the judged listeners to the programs: removals, then listeners that won their ports, then kept listeners
    /// whose ports are still free.
    pub(super) fn apply(&mut self, judged: &[(Origin, Vec<Compiled>)], number: u64, step: &mut Step) {
        let Self { known, programs, sets, .. } = self;
        let now = |key: &Origin| known.get(key).map_or(&[][..], |known| &known.judgement.compiled);
        let mut each = |groups: &[Group], change: &dyn Fn(&mut Program, &Group)| {
            for group in groups {
                if let Some(program) = programs.get_mut(group) {
                    change(program, group);
                    step.touched.insert(group.clone());
                }
            }
        };
        for (key, before) in judged {
            for compiled in before {
                let id = &compiled.id;
                let stays = now(key).iter().find(|now| now.id == *id).map(|compiled| &compiled.groups);
                each(&compiled.groups, &|program, group| {
                    if stays.is_none_or(|stays| !stays.contains(group)) {
                        program.remove(id);
                    }
                });
            }
        }
        for kept in [false, true] {
            for compiled in judged.iter().flat_map(|(key, _)| now(key)).filter(|compiled| compiled.kept == kept) {
                let id = &compiled.id;
                each(&compiled.groups, &|program, _| {
                    if kept {
                        program.put_if_free(id, &compiled.offer, number, sets);
                    } else {
                        program.put(id, &compiled.offer, number, sets);
                    }
                });
            }
        }
    }

    /// Holds the ports of suspended forwards in their gateways.
    pub(super) fn hold(&mut self, judged: &[(Origin, Vec<Compiled>)], step: &mut Step) {
        for (key, _) in judged {
            let (group, ports) =
                self.known.get(key).map(|known| suspended(&known.judgement.verdict)).unwrap_or_default();
            let before = match &group {
                Some(group) => self.held_in.insert(key.clone(), group.clone()),
                None => self.held_in.remove(key),
            };
            for (at, ports) in
                [(before.filter(|before| Some(before) != group.as_ref()), BTreeSet::new()), (group, ports)]
            {
                let Some(at) = at else { continue };
                if let Some(program) = self.programs.get_mut(&at) {
                    program.hold(key, &ports);
                    step.touched.insert(at);
                }
            }
        }
    }

    /// Publishes a snapshot for every group that changed.
    pub(super) fn publish(&mut self, version: &Version, step: Step) -> Update {
        let mut update = step.update;
        for group in step.touched {
            let has_changed = match self.programs.get_mut(&group) {
                None => self.snapshots.remove(&group).is_some(),
                Some(program) => {
                    if program.take_ports_changed() {
                        update.ports.insert(group.clone());
                    }
                    let next = program.publish(version).map(Arc::new);
                    next.map(|next| self.snapshots.insert(group.clone(), next)).is_some()
                }
            };
            if has_changed {
                update.programs.insert(group);
            }
        }
        update
    }
}

/// The gateway group of a suspended forward and the ports that the forward keeps there.
fn suspended(verdict: &Verdict) -> (Option<Group>, BTreeSet<Port>) {
    let is_suspended = |listener: &&ListenerVerdict| listener.outcome == Outcome::Suspended;
    let ports = verdict.listeners.iter().filter(is_suspended).filter_map(|listener| {
        let first = listener.port?;
        Some((first..=listener.end_port.unwrap_or(first)).map(|port| (listener.transport, port)))
    });
    let ports: BTreeSet<Port> = ports.flatten().collect();
    let group = verdict.groups.iter().find(|group| matches!(group, Group::Gateway(_)) && !ports.is_empty());
    (group.cloned(), ports)
}
