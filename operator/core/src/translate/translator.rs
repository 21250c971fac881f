//! The incremental translation.
//!
//! ```text
//! Changes ─▶ forwards to read again ─▶ their groups ─▶ their claims ─▶ forwards to judge again ─▶ programs
//! ```
//!
//! Each step passes on only what it changed: the cost of a change follows the objects that depend on it, not the number
//! of forwards. The result equals a translation of the whole world, except for listeners that keep running in their
//! last good version.

mod apply;
mod reach;
mod surroundings;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proxy_api::{Configuration, Origin, Transport, Version};

use crate::{
    translate::{
        admission::admitted,
        claims::{self, Ledger, Rules},
        groups::{Group, Moved, Sidecars},
        index::Index,
        judge::{Compiled, Judge, Judgement},
        program::{Program, Sets, Snapshot},
        update::Update,
        validate::{Placement, ValidForward, validate},
        verdict::{Condition, Reason, Verdict},
    },
    world::{ObjectKey, World, changes::Changes},
};

/// The translation of a whole world.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// The configuration of every group, without a version.
    pub configurations: BTreeMap<Group, Configuration>,
    /// The verdict on every forward.
    pub verdicts: BTreeMap<Origin, Verdict>,
    /// The pods of every sidecar group.
    pub pods: BTreeMap<Group, BTreeSet<ObjectKey>>,
}

/// One forward as last read and judged.
#[derive(Debug)]
struct Known {
    /// Uid and generation of the object that was read.
    object: (Option<String>, Option<i64>),
    /// The object was recreated since it was judged: its UID differs.
    is_recreated: bool,
    read: Result<ValidForward, Condition>,
    /// Placement of the forward, or of its last good version if the forward is refused.
    place: Option<Placement>,
    judgement: Judgement,
    /// The gateway that the forward names.
    gateway: Option<ObjectKey>,
    /// Services that the forward names or that its listeners use, sorted.
    services: Vec<ObjectKey>,
}

impl Known {
    /// Whether the forward is refused as a mistake and keeps running in its last good version.
    fn keeps_last_good(&self) -> bool {
        let is_mistaken = self.read.as_ref().is_err_and(|why| why.reason == Reason::Invalid);
        is_mistaken && !self.is_recreated && self.place.is_some() && !self.judgement.compiled.is_empty()
    }
}

/// The translation of a world, with the indexes that incremental updates need.
#[derive(Debug, Default)]
pub struct Translator {
    known: BTreeMap<Origin, Known>,
    ledgers: BTreeMap<Group, Ledger>,
    sidecars: BTreeMap<String, Sidecars>,
    by_gateway: Index,
    by_service: Index,
    /// Forwards with backends in Services of other namespaces.
    foreign: BTreeSet<Origin>,
    /// Forwards with backends on the host of the proxy itself or in front of its fleet, which may be listeners of the
    /// same proxies.
    local: BTreeSet<Origin>,
    /// Forwards with listeners that run in their last good version.
    kept: BTreeSet<Origin>,
    sets: Sets,
    programs: BTreeMap<Group, Program>,
    /// The gateway groups in which suspended forwards keep their ports.
    held_in: BTreeMap<Origin, Group>,
    snapshots: BTreeMap<Group, Arc<Snapshot>>,
}

/// Work in progress of one update.
#[derive(Debug, Default)]
struct Step {
    /// Forwards to judge again.
    judge: BTreeSet<Origin>,
    /// Groups whose claims may have changed.
    claims: BTreeSet<Group>,
    moved: Moved,
    /// Groups whose programs may have changed.
    touched: BTreeSet<Group>,
    update: Update,
}

impl Translator {
    /// Brings the translation up to date. Changed snapshots get this version; its number must be greater than that of
    /// any earlier update.
    pub fn update(&mut self, world: &World, changes: &Changes, version: &Version) -> Update {
        let mut step = Step::default();
        self.open_groups(world, changes, &mut step);
        for key in self.to_read(world, changes) {
            self.read(world, &key, &mut step);
        }
        self.move_pods(world, changes, &mut step);
        self.move_forwards(&mut step);
        self.settle(world, &mut step);
        self.add_dependents(changes, &mut step);
        let judged: Vec<(Origin, Vec<Compiled>)> = std::mem::take(&mut step.judge)
            .into_iter()
            .filter_map(|key| Some((key.clone(), self.judge(world, &key, &mut step)?)))
            .collect();
        self.refresh_sets(world, changes, &mut step);
        self.refresh_guest_sets(world, changes, &mut step);
        self.surround(world, changes, &mut step);
        self.apply(&judged, version.number, &mut step);
        self.hold(&judged, &mut step);
        self.publish(version, step)
    }

    /// The verdict on a forward.
    #[must_use]
    pub fn verdict(&self, key: &Origin) -> Option<&Verdict> {
        self.known.get(key).map(|known| &known.judgement.verdict)
    }

    /// Whether the verdict on a forward is about this UID and generation.
    #[must_use]
    pub fn is_about(&self, key: &Origin, forward: &crds::PortForward) -> bool {
        let object = self.known.get(key).map(|known| &known.object);
        object
            .is_some_and(|(uid, generation)| *uid == forward.metadata.uid && *generation == forward.metadata.generation)
    }

    /// Every verdict.
    pub fn verdicts(&self) -> impl Iterator<Item = (&Origin, &Verdict)> {
        self.known.iter().map(|(key, known)| (key, &known.judgement.verdict))
    }

    /// The configuration that a group should run.
    #[must_use]
    pub fn snapshot(&self, group: &Group) -> Option<&Arc<Snapshot>> {
        self.snapshots.get(group)
    }

    /// Every group with the configuration that it should run.
    pub fn snapshots(&self) -> impl Iterator<Item = (&Group, &Arc<Snapshot>)> {
        self.snapshots.iter()
    }

    /// The ports of a group's listeners, including suspended forwards: if a Service lost a port, the port would get
    /// another node port when the forward resumes.
    pub fn ports(&self, group: &Group) -> BTreeSet<(Transport, u16)> {
        self.programs.get(group).map(Program::ports).unwrap_or_default()
    }

    /// The pods of a sidecar group.
    #[must_use]
    pub fn pods(&self, group: &Group) -> Option<&BTreeSet<ObjectKey>> {
        let Group::Sidecars { namespace, .. } = group else { return None };
        self.sidecars.get(namespace)?.pods(group)
    }

    /// The group of a pod, if sidecar forwards select it.
    #[must_use]
    pub fn group_of(&self, pod: &ObjectKey) -> Option<&Group> {
        self.sidecars.get(&pod.namespace)?.group_of(&pod.name)
    }

    /// The forwards of a group.
    pub fn forwards<'a>(&'a self, group: &'a Group) -> Box<dyn Iterator<Item = Origin> + 'a> {
        match group {
            Group::Laptop => Box::new(self.known.keys().cloned()),
            Group::Gateway(key) => Box::new(self.by_gateway.of(key).cloned()),
            Group::Sidecars { .. } => Box::new(group.selecting()),
        }
    }

    /// The number of accepted forwards that name a gateway.
    #[must_use]
    pub fn attached(&self, gateway: &ObjectKey) -> usize {
        let accepted = |key: &&Origin| self.verdict(key).is_some_and(|verdict| verdict.accepted.status);
        self.by_gateway.of(gateway).filter(accepted).count()
    }

    fn groups_of(&self, world: &World, key: &Origin) -> BTreeSet<Group> {
        let Some(known) = self.known.get(key) else { return BTreeSet::new() };
        match &known.place {
            None => BTreeSet::new(),
            Some(_) if world.site.is_laptop() => BTreeSet::from([Group::Laptop]),
            Some(Placement::Gateway(gateway)) => BTreeSet::from([Group::Gateway(gateway.clone())]),
            Some(Placement::Sidecar(_)) => {
                self.sidecars.get(&key.namespace).map(|sidecars| sidecars.groups_of(&key.name)).unwrap_or_default()
            }
        }
    }

    /// Reads one forward again and removes its claims from groups that it has left.
    fn read(&mut self, world: &World, key: &Origin, step: &mut Step) {
        step.judge.insert(key.clone());
        let before = self.groups_of(world, key);
        step.claims.extend(before.iter().cloned());
        let Some(forward) = world.forward(key) else {
            self.unread(world, key, step);
            return;
        };
        let read = validate(forward)
            .map_err(|violations| {
                let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
                Condition::unmet(Reason::Invalid, all.join("; "))
            })
            .and_then(|forward| admitted(world, &forward).map(|()| forward));
        let object = (forward.metadata.uid.clone(), forward.metadata.generation);
        let old = self.known.remove(key);
        // A recreated object (new UID) inherits nothing.
        let is_recreated = old.as_ref().is_some_and(|old| old.object.0 != object.0);
        let (old_place, judgement) = old.as_ref().map_or((None, None), |old| (old.place.clone(), Some(&old.judgement)));
        let place = match &read {
            Ok(forward) => Some(forward.placement.clone()),
            // The last good version keeps running where it is.
            Err(why) if why.reason == Reason::Invalid => {
                old_place.filter(|_| !is_recreated && judgement.is_some_and(|judgement| !judgement.compiled.is_empty()))
            }
            Err(_) => None,
        };
        let gateway = forward.spec.placement.gateway.as_ref().map(|gateway| {
            ObjectKey::new(gateway.namespace.clone().unwrap_or_else(|| key.namespace.clone()), gateway.name.clone())
        });
        let (old_gateway, services, judgement) = match old {
            Some(old) => (old.gateway, old.services, old.judgement),
            None => (None, Vec::new(), Judgement::refused(Condition::met(Reason::Accepted, ""))),
        };
        self.by_gateway.set(key, old_gateway.as_slice(), gateway.as_slice());
        let selector = match &place {
            Some(Placement::Sidecar(selector)) if !world.site.is_laptop() => Some(selector.clone()),
            _ => None,
        };
        self.known.insert(key.clone(), Known { object, is_recreated, read, place, judgement, gateway, services });
        self.select(world, key, selector.as_ref(), step);
        let after = self.groups_of(world, key);
        self.leave(key, before.difference(&after));
        step.claims.extend(after);
    }

    /// Removes a forward that is gone, or that was never readable, from its groups.
    fn unread(&mut self, world: &World, key: &Origin, step: &mut Step) {
        let before = self.groups_of(world, key);
        self.select(world, key, None, step);
        self.leave(key, &before);
        if let Some(known) = self.known.get_mut(key) {
            known.place = None;
            known.read = Err(Condition::met(Reason::Accepted, ""));
        }
    }

    fn select(&mut self, world: &World, key: &Origin, selector: Option<&crds::Selector>, step: &mut Step) {
        if selector.is_none() && !self.sidecars.contains_key(&key.namespace) {
            return;
        }
        let sidecars = self.sidecars.entry(key.namespace.clone()).or_default();
        sidecars.select(key, selector, world, &mut step.moved);
        if sidecars.is_empty() {
            self.sidecars.remove(&key.namespace);
        }
    }

    fn leave<'a>(&mut self, key: &Origin, groups: impl IntoIterator<Item = &'a Group>) {
        for group in groups {
            if let Some(ledger) = self.ledgers.get_mut(group) {
                ledger.remove(key);
            }
        }
    }

    /// Decides the claims of every affected group, and adds the forwards with a different outcome to those to judge.
    fn settle(&mut self, world: &World, step: &mut Step) {
        let mut settled = BTreeSet::new();
        for key in &step.judge {
            let Some(Known { read: Ok(forward), .. }) = self.known.get(key) else {
                // A forward in its last good version keeps its claims, so that a mistake does not cost it its ports.
                if self.known.get(key).is_some_and(Known::keeps_last_good) {
                    continue;
                }
                for group in self.groups_of(world, key) {
                    self.leave(key, [&group]);
                }
                continue;
            };
            let candidates = claims::candidates(world, forward);
            for group in self.groups_of(world, key) {
                self.ledgers.entry(group.clone()).or_default().set(key, candidates.clone());
                settled.insert(group);
            }
        }
        settled.extend(std::mem::take(&mut step.claims));
        for group in settled {
            let Some(ledger) = self.ledgers.get_mut(&group) else { continue };
            step.judge.extend(ledger.settle(Rules::of(world, &group)));
            step.judge.extend(self.depending_on_claims(&group));
        }
    }

    /// The forwards of a group whose judgement depends on the claims of other forwards, apart from their own claims.
    fn depending_on_claims(&self, group: &Group) -> Vec<Origin> {
        let is_here =
            |place: &Placement| matches!((place, group), (Placement::Gateway(key), Group::Gateway(at)) if key == at);
        match group {
            // Both sets are small: few forwards have backends on their own host.
            Group::Gateway(_) => {
                let place = |key: &Origin| self.known.get(key).and_then(|known| known.place.as_ref());
                let depending = self.kept.union(&self.local);
                depending.filter(|key| place(key).is_some_and(is_here)).cloned().collect()
            }
            Group::Laptop | Group::Sidecars { .. } => {
                self.forwards(group).filter(|key| self.local.contains(key) || self.kept.contains(key)).collect()
            }
        }
    }

    /// Judges one forward, or forgets it if it is gone. Returns its previous listeners, `None` if it was never known.
    fn judge(&mut self, world: &World, key: &Origin, step: &mut Step) -> Option<Vec<Compiled>> {
        let groups = self.groups_of(world, key);
        let known = self.known.get(key);
        let exists = world.forward(key).is_some() || world.unreadable(key).is_some();
        let mut judgement = match known.map(|known| &known.read) {
            Some(Ok(forward)) => {
                let own = groups.iter().filter_map(|group| Some((group, (self.ledgers.get(group)?, self.pods(group)))));
                Judge { world, forward, own: own.collect() }.judge()
            }
            Some(Err(why)) => Judgement::refused(why.clone()),
            None => Judgement::refused(Condition::met(Reason::Accepted, "")),
        };
        if let Some(known) = known.filter(|known| !known.is_recreated) {
            judgement.keep_last_good(key, &known.judgement.compiled, &groups, &self.ledgers);
        }
        if let Some(why) = world.unreadable(key) {
            judgement.verdict.accepted = unreadable(why);
        }
        if !exists {
            step.update.verdicts.insert(key.clone());
            return self.forget(key);
        }
        if known.is_none_or(|known| known.judgement.verdict != judgement.verdict) {
            step.update.verdicts.insert(key.clone());
        }
        Some(self.replace(key, judgement))
    }

    /// The whole translation as one value, without versions.
    #[must_use]
    pub fn translation(&self) -> Translation {
        let all_pods = self.sidecars.values().flat_map(Sidecars::groups);
        let configuration =
            |snapshot: &Snapshot| Configuration { version: Version::default(), ..snapshot.configuration() };
        Translation {
            configurations: self.snapshots.iter().map(|(group, now)| (group.clone(), configuration(now))).collect(),
            verdicts: self.verdicts().map(|(key, verdict)| (key.clone(), verdict.clone())).collect(),
            pods: all_pods.map(|(group, pods)| (group.clone(), pods.clone())).collect(),
        }
    }
}

fn unreadable(why: &str) -> Condition {
    let message = format!(
        "this operator cannot read the object ({why}); its listeners keep running unchanged: install CRDs and operator \
         of the same release"
    );
    Condition::unmet(Reason::Unsupported, message)
}
